//! Stopping jobs.

use std::sync::Arc;

use api::{
    ErrorCode, Span,
    wire::Stop,
    workload::{Outcome, StopReason},
};
use clawbernetes_node::engine::Engine as _;

use super::{
    fixture,
    life::{Life, Memory, script, until},
};

#[tokio::test]
async fn a_job_may_end_within_its_grace() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "stop-grace", &memory).await;
    let job = script(
        "stop-grace",
        "trap 'echo bye; exit 5' TERM; echo ready; while true; do sleep 0.05; done",
    );
    life.start(&job).await;
    until("the trap", || !memory.lines(&job.job).is_empty()).await;
    life.engine.stop(&job.job, Span::secs(60));
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 5 });
    assert_eq!(memory.stdout(&job.job), ["ready", "bye"]);
    life.engine.forget(&job.job).await;
}

#[tokio::test]
async fn a_job_is_killed_after_its_grace() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "stop-kill", &memory).await;
    let job = script(
        "stop-kill",
        "trap 'echo no' TERM; echo ready; while true; do sleep 0.05; done",
    );
    life.start(&job).await;
    until("the trap", || !memory.lines(&job.job).is_empty()).await;
    // A later order may only shorten the grace.
    life.engine.stop(&job.job, Span(300));
    life.engine.stop(&job.job, Span::secs(3600));
    assert_eq!(life.ended(&job.job).await.1, Outcome::Signaled { signal: 9 });
    assert_eq!(memory.stdout(&job.job), ["ready", "no"]);
    life.engine.forget(&job.job).await;

    let job = script(
        "stop-hasty",
        "trap 'echo no' TERM; echo ready; while true; do sleep 0.05; done",
    );
    life.start(&job).await;
    until("the trap", || !memory.lines(&job.job).is_empty()).await;
    life.engine.stop(&job.job, Span::secs(3600));
    until("SIGTERM", || memory.lines(&job.job).len() == 2).await;
    life.engine.stop(&job.job, Span(0));
    assert_eq!(life.ended(&job.job).await.1, Outcome::Signaled { signal: 9 });
    life.engine.forget(&job.job).await;
}

#[tokio::test]
async fn a_job_that_is_stopped_before_it_starts_never_does() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "stop-early", &memory).await;
    let mut job = script("stop-early", "echo ran");
    job.stop = Some(Stop {
        reason: StopReason::Cancelled,
        grace: Span(0),
    });
    match life.run(&job).await {
        Outcome::StartFailed { code, .. } => assert_eq!(code, ErrorCode::Conflict),
        other => panic!("{other:?}"),
    }
    assert!(memory.lines(&job.job).is_empty());
    let (found, errors) = Life::begin(fixture, "stop-early", &memory).await.adopt().await;
    assert_eq!((found, errors), (vec![], vec![]));
}
