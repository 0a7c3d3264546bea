//! Images from a registry.

use std::sync::Arc;

use api::{ErrorCode, workload::Outcome};
use clawbernetes_node::engine::{Engine as _, What};

use super::{
    fixture::{self, BLOB_BYTES},
    life::{Life, Memory, script},
};

#[tokio::test]
async fn images_are_fetched_with_progress() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "pull", &memory).await;
    let mut job = script("pull", "echo here");
    job.image = fixture.remote_image();
    life.start(&job).await;
    let mut reports = Vec::new();
    let outcome = loop {
        match life.next(&job.job).await {
            What::Pulling(progress) => reports.push(progress),
            What::Started { .. } => {}
            What::Ended { outcome, .. } => break outcome,
        }
    };
    assert_eq!(outcome, Outcome::Exited { code: 0 });
    assert_eq!(reports[0].done_bytes, 0);
    let last = reports.last().unwrap();
    assert!(
        last.done_bytes >= BLOB_BYTES as u64 && last.done_bytes == last.total_bytes,
        "{reports:?}"
    );
    assert!(
        reports.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes),
        "{reports:?}"
    );

    // It is there now: nothing to report.
    let mut again = script("pull-again", "echo here");
    again.image = fixture.remote_image();
    life.start(&again).await;
    assert!(matches!(life.next(&again.job).await, What::Started { .. }));
    assert_eq!(life.ended(&again.job).await.1, Outcome::Exited { code: 0 });
    for job in [job, again] {
        life.engine.forget(&job.job).await;
    }
}

#[tokio::test]
async fn an_image_that_nobody_has_isnt_found() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "pull-absent", &memory).await;
    for (name, image) in [
        ("absent-repository", format!("{}/no-such-image:1", fixture.registry)),
        ("absent-tag", format!("{}/clawtest-big:no-such-tag", fixture.registry)),
    ] {
        let mut job = script(name, "true");
        job.image = image.clone();
        match life.run(&job).await {
            Outcome::StartFailed {
                code,
                message,
                retryable,
            } => {
                assert_eq!((code, retryable), (ErrorCode::ImageNotFound, false), "{message}");
                assert!(
                    message.contains(&image) && message.contains("manifest unknown"),
                    "{message}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let mut malformed = script("malformed", "true");
    malformed.image = "Not An Image".to_owned();
    match life.run(&malformed).await {
        Outcome::StartFailed {
            code,
            retryable,
            message,
        } => {
            assert_eq!((code, retryable), (ErrorCode::InvalidArgument, false), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_registry_that_is_away_is_worth_another_try() {
    let Some(fixture) = fixture::shared() else { return };
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "pull-away", &memory).await;
    let mut job = script("away", "true");
    // Port 1 of this machine: nobody listens there.
    job.image = "127.0.0.1:1/image:1".to_owned();
    match life.run(&job).await {
        Outcome::StartFailed { retryable, message, .. } => assert!(retryable, "{message}"),
        other => panic!("{other:?}"),
    }
}
