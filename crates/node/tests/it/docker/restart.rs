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
    life::{Life, Memory, script, until},
};

#[tokio::test]
async fn running_and_ended_jobs_are_adopted() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let first = Life::begin(fixture, "adopt", &memory).await;
    let gate = fixture.folder("adopt-gate");
    let mut runs = script(
        "adopt-runs",
        "echo begin; while [ ! -e /gate/open ]; do sleep 0.05; done; echo end; exit 6",
    );
    runs.volumes = vec![api::workload::Volume {
        name: String::new(),
        mount_path: "/gate".to_owned(),
        source: api::workload::VolumeSource::HostPath {
            source: gate.to_string_lossy().into_owned(),
            read_only: true,
        },
    }];
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
    std::fs::write(gate.join("open"), "").unwrap();
    assert_eq!(second.ended(&runs.job).await.1, Outcome::Exited { code: 6 });
    assert_eq!(memory.stdout(&runs.job), ["begin", "end"]);
    for job in [runs, ended] {
        second.engine.forget(&job.job).await;
    }
    let (found, errors) = Life::begin(fixture, "adopt", &memory).await.adopt().await;
    assert_eq!((found, errors), (vec![], vec![]));
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
    second.engine.stop(&job.job, Span(0));
    let outcome = second.ended(&job.job).await.1;
    // Depending on what came first it was killed, or stopped before it was looked at; it doesn't run either way.
    assert!(
        matches!(outcome, Outcome::Signaled { signal: 9 } | Outcome::StartFailed { .. }),
        "{outcome:?}"
    );
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
    let gate = fixture.folder("gate");
    let mut job = script(
        "away",
        "i=0; while [ ! -e /gate/open ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 8",
    );
    job.volumes = vec![api::workload::Volume {
        name: String::new(),
        mount_path: "/gate".to_owned(),
        source: api::workload::VolumeSource::HostPath {
            source: gate.to_string_lossy().into_owned(),
            read_only: true,
        },
    }];
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
    std::fs::write(gate.join("open"), "").unwrap();
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 8 });
    let lines = memory.stdout(&job.job);
    let wanted: Vec<String> = (1..=lines.len()).map(|n| n.to_string()).collect();
    assert_eq!(lines, wanted);
    life.engine.forget(&job.job).await;
    drop(life);
    tokio::task::spawn_blocking(move || drop(fixture)).await.unwrap();
}
