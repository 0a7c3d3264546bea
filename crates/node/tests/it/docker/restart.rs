//! Adoption after the agent's death, and the daemon's absence.

use std::{collections::HashMap, sync::Arc};

use api::{Span, workload::Outcome};
use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptionsBuilder, InspectContainerOptions},
};
use clawbernetes_node::engine::Engine as _;

use super::{
    fixture::{self, Fixture, IMAGE},
    life::{Life, Memory, gate, processes, script, until},
};

#[tokio::test]
async fn running_and_ended_jobs_are_adopted() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let first = Life::begin(fixture, "adopt", &memory).await;
    let folder = fixture.folder("adopt-gate");
    let text = "echo begin; while [ ! -e /gate/open ]; do sleep 0.05; done; echo end; exit 6";
    let mut runs = script("adopt-runs", text);
    runs.volumes = vec![gate(&folder)];
    let ended = script("adopt-ended", "echo done; exit 2");
    first.start(&runs).await;
    first.start(&ended).await;
    let started = first.started(&runs.job).await;
    first.started(&ended.job).await;
    drop(first);

    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("clawbernetes-{}", ended.job);
    while docker
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
        .unwrap()
        .state
        .unwrap()
        .running
        == Some(true)
    {
        tokio::task::yield_now().await;
    }
    let second = Life::begin(fixture, "adopt", &memory).await;
    let (found, errors) = second.adopt().await;
    assert_eq!(errors, [""; 0]);
    let [a, b] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&a.job, &b.job), (&ended.job, &runs.job));
    assert!(a.started_at.is_some());
    assert_eq!(a.ended.as_ref().unwrap().1, Outcome::Exited { code: 2 });
    assert_eq!((b.started_at, b.ended.is_none()), (Some(started), true));
    assert_eq!(memory.stdout(&ended.job), ["done"]);

    // What was adopted is known, and isn't begun again.
    second.start(&runs).await;
    std::fs::write(folder.join("open"), "").unwrap();
    assert_eq!(second.ended(&runs.job).await.1, Outcome::Exited { code: 6 });
    assert_eq!(memory.stdout(&runs.job), ["begin", "end"]);
    for job in [runs, ended] {
        second.engine.forget(&job.job).await;
    }
    let (found, errors) = Life::begin(fixture, "adopt", &memory).await.adopt().await;
    assert_eq!((found, errors), (vec![], vec![]));
}

/// The agent is killed while each hook runs: each still runs once, and the output is whole.
#[tokio::test]
async fn hooks_go_on_where_a_dead_agent_left_them() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let folder = fixture.folder("hooks-gate");
    let words = |name: &str, code: u32| {
        let text = format!(
            "echo {name} begins; while [ ! -e /gate/{name} ]; do sleep 0.02; done; echo {name} ends; exit {code}"
        );
        ["/bin/sh".to_owned(), "-c".to_owned(), text].to_vec()
    };
    let mut job = script("hooks-adopted", "");
    job.command = words("main", 5);
    job.volumes = vec![gate(&folder)];
    job.hooks = Some(api::workload::Hooks {
        pre_start: words("pre", 0),
        post_stop: words("post", 0),
    });
    let mut life = Life::begin(fixture, "hooks-adopted", &memory).await;
    life.start(&job).await;
    for (lines, stage) in [(1, "pre"), (3, "main"), (5, "post")] {
        until(stage, || memory.lines(&job.job).len() == lines).await;
        drop(life);
        life = Life::begin(fixture, "hooks-adopted", &memory).await;
        let (found, errors) = life.adopt().await;
        assert_eq!((found.len(), errors), (1, vec![]));
        assert_eq!(
            (found[0].started_at.is_some(), found[0].ended.is_some()),
            (stage != "pre", false)
        );
        std::fs::write(folder.join(stage), "").unwrap();
    }
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 5 });
    let wanted = [
        "pre begins",
        "pre ends",
        "main begins",
        "main ends",
        "post begins",
        "post ends",
    ];
    assert_eq!(memory.stdout(&job.job), wanted);
    life.engine.forget(&job.job).await;
}

#[tokio::test]
async fn a_container_that_is_there_already_is_taken_and_not_doubled() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let job = script("there", "echo once; sleep 100000");
    let first = Life::begin(fixture, "there", &memory).await;
    first.start(&job).await;
    until("its line", || !memory.lines(&job.job).is_empty()).await;
    drop(first);
    // A life that began without adopting, as if the agent had died before it knew of the container.
    let second = Life::begin(fixture, "there", &memory).await;
    second.start(&job).await;
    second.started(&job.job).await;
    second.engine.stop(&job.job, Span(0));
    assert_eq!(second.ended(&job.job).await.1, Outcome::Signaled { signal: 9 });
    assert_eq!(memory.stdout(&job.job), ["once"]);
    second.engine.forget(&job.job).await;
}

#[tokio::test]
async fn what_cant_be_read_is_named() {
    let Some(fixture) = fixture::shared() else { return };
    let docker = fixture.docker().negotiate_version().await.unwrap();
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        entrypoint: Some(vec!["/bin/true".to_owned()]),
        labels: Some(HashMap::from([(
            "io.clawbernetes.node".to_owned(),
            "unread".to_owned(),
        )])),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::new().name("somebodys").build();
    docker.create_container(Some(options), body).await.unwrap();
    let life = Life::begin(fixture, "unread", &Arc::new(Memory::default())).await;
    let (found, errors) = life.adopt().await;
    assert_eq!((found.len(), errors.len()), (0, 1));
    assert!(errors[0].contains("somebodys"), "{errors:?}");
}

/// The daemon goes away and comes back, while its containers run on (`live-restore`).
#[tokio::test]
async fn a_daemon_that_is_away_ends_no_job() {
    let Some(fixture) = Fixture::start("--live-restore") else {
        return;
    };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(&fixture, "away", &memory).await;
    let folder = fixture.folder("gate");
    let mut job = script(
        "away",
        "i=0; while [ ! -e /gate/open ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 8",
    );
    job.volumes = vec![gate(&folder)];
    life.start(&job).await;
    until("output", || memory.lines(&job.job).len() > 3).await;
    let fixture = tokio::task::spawn_blocking(move || {
        fixture.stop();
        fixture
    })
    .await
    .unwrap();
    assert_eq!(life.engine.stats(&job.job).await, None);
    let before = memory.lines(&job.job).len();
    let fixture = tokio::task::spawn_blocking(move || {
        fixture.start_again();
        fixture
    })
    .await
    .unwrap();
    until("more output", || memory.lines(&job.job).len() > before).await;
    std::fs::write(folder.join("open"), "").unwrap();
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 8 });
    let lines = memory.stdout(&job.job);
    let wanted: Vec<String> = (1..=lines.len()).map(|n| n.to_string()).collect();
    assert_eq!(lines, wanted);
    life.engine.forget(&job.job).await;

    // A job whose time is up doesn't outlive it because the daemon is away.
    let mut due = script("due", "exec sleep 98763");
    due.job.rank = 1;
    life.start(&due).await;
    life.started(&due.job).await;
    let fixture = tokio::task::spawn_blocking(move || {
        fixture.stop();
        fixture
    })
    .await
    .unwrap();
    assert!(processes("sleep 98763") > 0);
    life.engine.stop(&due.job, Span(0));
    until("the processes' end", || processes("sleep 98763") == 0).await;
    let fixture = tokio::task::spawn_blocking(move || {
        fixture.start_again();
        fixture
    })
    .await
    .unwrap();
    let outcome = life.ended(&due.job).await.1;
    assert!(outcome.exit_code().is_some_and(|code| code > 0), "{outcome:?}");
    life.engine.forget(&due.job).await;
    drop(life);
    tokio::task::spawn_blocking(move || drop(fixture)).await.unwrap();
}
