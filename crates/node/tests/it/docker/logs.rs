//! Output through lives and deaths of the agent.

use std::sync::Arc;

use api::workload::{LogSource, Outcome};
use clawbernetes_node::engine::Engine as _;

use super::{
    fixture,
    life::{Life, Memory, script, until},
};

#[tokio::test]
async fn long_lines_come_in_parts() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "long-lines", &memory).await;
    let job = script("long-lines", "head -c 150000 /dev/zero | tr '\\0' x; echo; echo short");
    assert_eq!(life.run(&job).await, Outcome::Exited { code: 0 });
    let shapes: Vec<(usize, bool)> = memory
        .lines(&job.job)
        .iter()
        .map(|line| (line.text.len(), line.partial))
        .collect();
    assert_eq!(shapes, [(65536, true), (65536, true), (18928, false), (5, false)]);
    life.engine.forget(&job.job).await;
}

/// The agent is killed again and again while a job writes in bursts to both streams; each line is there once.
#[tokio::test]
async fn every_line_is_kept_once_whatever_the_agent_goes_through() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let job = script(
        "resume",
        "b=0; while [ $b -lt 40 ]; do seq $((b*50)) $((b*50+49)); echo e$b >&2; sleep 0.02; b=$((b+1)); done; printf end; exit 3",
    );
    let life = Life::begin(fixture, "resume", &memory).await;
    life.start(&job).await;
    life.started(&job.job).await;
    let mut life = Some(life);
    for round in 1..=8 {
        until("more lines", || memory.lines(&job.job).len() >= round * 200).await;
        drop(life.take());
        let next = Life::begin(fixture, "resume", &memory).await;
        let (found, errors) = next.adopt().await;
        assert_eq!((found.len(), errors.len()), (1, 0));
        life = Some(next);
        if found[0].ended.is_some() {
            break;
        }
    }
    // The last life sees the end, whether it came before its adoption or after.
    let life = life.unwrap();
    drop(life);
    until("the end", || {
        std::fs::read_dir("/proc").unwrap().flatten().all(|folder| {
            let line = std::fs::read(folder.path().join("cmdline")).unwrap_or_default();
            !String::from_utf8_lossy(&line).contains("seq $((b*50))")
        })
    })
    .await;
    let life = Life::begin(fixture, "resume", &memory).await;
    let (found, _) = life.adopt().await;
    let outcome = match &found[0].ended {
        Some((_, outcome, _)) => outcome.clone(),
        None => life.ended(&job.job).await.1,
    };
    assert_eq!(outcome, Outcome::Exited { code: 3 });
    let mut wanted: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    wanted.push("end".to_owned());
    assert_eq!(memory.stdout(&job.job), wanted);
    let errors: Vec<String> = (0..40).map(|n| format!("e{n}")).collect();
    assert_eq!(memory.texts(&job.job, LogSource::Stderr), errors);
    life.engine.forget(&job.job).await;
}

#[tokio::test]
async fn a_flood_of_lines_is_kept_whole() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let job = script("flood", "seq 100000");
    let life = Life::begin(fixture, "flood", &memory).await;
    life.start(&job).await;
    until("a part of it", || memory.lines(&job.job).len() > 20_000).await;
    drop(life);
    let life = Life::begin(fixture, "flood", &memory).await;
    let (found, _) = life.adopt().await;
    if found[0].ended.is_none() {
        life.ended(&job.job).await;
    }
    let wanted: Vec<String> = (1..=100_000).map(|n| n.to_string()).collect();
    assert!(
        memory.stdout(&job.job) == wanted,
        "{} lines",
        memory.lines(&job.job).len()
    );
    life.engine.forget(&job.job).await;
}
