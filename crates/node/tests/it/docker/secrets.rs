//! Secrets of containers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use api::{
    ApiError, ErrorCode, Span,
    secret::{SecretTarget, SecretUse, SecretValue},
    wire::Assignment,
    workload::{Hooks, LogSource, Outcome},
};
use bollard::{
    models::{ContainerConfig, ContainerCreateBody},
    query_parameters::{
        CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions, RemoveImageOptions,
        StartContainerOptions, WaitContainerOptionsBuilder,
    },
};
use clawbernetes_node::{engine::Engine as _, secret::Secrets};
use futures_util::StreamExt;

use super::{
    fixture::{self, Fixture, IMAGE},
    life::{Life, Memory, gate, processes, script, secrets_of, until},
};

const VALUE: &str = "canary-in-a-container-55e1";
/// The same as `tr a-z b-za` makes it: proof of its bytes that nobody masks.
const TURNED: &str = "dbobsz-jo-b-dpoubjofs-55f1";

/// The files of a node's secrets, which go with the test.
struct Place(PathBuf);

impl Place {
    fn of(fixture: &Fixture, node: &str) -> Self {
        Self(secrets_of(fixture, node))
    }

    fn jobs(&self) -> usize {
        std::fs::read_dir(&self.0).map_or(0, Iterator::count)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // The last one takes the folder of all of them along.
        let _ = std::fs::remove_dir(self.0.parent().unwrap_or(Path::new("/")));
    }
}

/// A job that gets the secret as variable and file.
fn secretive(name: &str, text: &str) -> Assignment {
    let token = |to| SecretUse {
        secret: "token".to_owned(),
        key: None,
        to,
    };
    Assignment {
        secrets: vec![
            token(SecretTarget::Env("TOKEN".to_owned())),
            token(SecretTarget::File("/etc/app/token".to_owned())),
        ],
        ..script(name, text)
    }
}

fn secrets(job: &Assignment) -> Arc<Secrets> {
    let values = job
        .secrets
        .iter()
        .map(|_| SecretValue::from(VALUE.to_owned()))
        .collect();
    Arc::new(Secrets::resolve(&job.secrets, values, Vec::new()).unwrap())
}

async fn start(life: &Life, job: &Assignment) {
    life.start_with(job, Some(secrets(job))).await;
}

#[tokio::test]
async fn a_container_has_its_secrets_and_says_them_to_nobody() {
    let Some(fixture) = fixture::shared() else { return };
    let place = Place::of(fixture, "secrets");
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "secrets", &memory).await;
    let folder = fixture.folder("secrets-gate");
    let text = "stat -c '%a %u' /etc/app/token; tr a-z b-za < /etc/app/token; echo; echo it is $TOKEN; cat /etc/app/token >&2; \
                (echo no > /etc/app/token) && echo open; while [ ! -e /gate/open ]; do sleep 0.05; done";
    let mut job = secretive("secrets", text);
    job.volumes = vec![gate(&folder)];
    let hook = |name: &str| {
        ["/bin/sh", "-c", &format!("echo {name} $TOKEN $(cat /etc/app/token)")]
            .map(str::to_owned)
            .to_vec()
    };
    job.hooks = Some(Hooks {
        pre_start: hook("pre"),
        post_stop: hook("post"),
    });
    start(&life, &job).await;
    life.started(&job.job).await;
    until("its lines", || memory.stdout(&job.job).len() == 4).await;
    assert_eq!(place.jobs(), 1);
    assert_eq!(processes(VALUE), 0, "in a command line");
    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("clawbernetes-{}", job.job);
    let inspect = docker
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
        .unwrap();
    let labels = inspect.config.unwrap().labels.unwrap();
    assert!(!format!("{labels:?}").contains(VALUE));
    std::fs::write(folder.join("open"), "").unwrap();
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 0 });
    assert_eq!(
        memory.stdout(&job.job),
        ["pre *** ***", "400 0", TURNED, "it is ***", "post *** ***"]
    );
    let stderr = memory.texts(&job.job, LogSource::Stderr);
    assert!(stderr[0].starts_with("***"), "{stderr:?}");
    assert_eq!(place.jobs(), 0, "they go with the job");
    life.engine.forget(&job.job).await;
}

#[tokio::test]
async fn output_isnt_read_before_it_is_known_what_to_hide() {
    let Some(fixture) = fixture::shared() else { return };
    let place = Place::of(fixture, "secrets-adopted");
    let memory = Arc::new(Memory::default());
    let first = Life::begin(fixture, "secrets-adopted", &memory).await;
    let folder = fixture.folder("secrets-adopted-gate");
    let text = |code: u32| {
        format!("echo one $TOKEN; while [ ! -e /gate/open ]; do sleep 0.05; done; echo two $TOKEN; exit {code}")
    };
    let (mut told, mut refused) = (
        secretive("secrets-told", &text(3)),
        secretive("secrets-refused", &text(4)),
    );
    for job in [&mut told, &mut refused] {
        job.volumes = vec![gate(&folder)];
        start(&first, job).await;
        until("its line", || memory.stdout(&job.job) == ["one ***"]).await;
    }
    drop(first);
    std::fs::write(folder.join("open"), "").unwrap();
    // Of a job that nobody knows any more.
    std::fs::create_dir(place.0.join("wl-gone.1.0")).unwrap();
    let second = Life::begin(fixture, "secrets-adopted", &memory).await;
    let (found, errors) = second.adopt().await;
    assert_eq!(errors, [""; 0]);
    assert!(
        found.len() == 2 && found.iter().all(|job| job.wants_secrets && job.ended.is_none()),
        "{found:?}"
    );
    assert!(!place.0.join("wl-gone.1.0").exists());
    // Both have ended by now, as far as Docker knows.
    let docker = fixture.docker().negotiate_version().await.unwrap();
    for job in [&told, &refused] {
        let name = format!("clawbernetes-{}", job.job);
        let mut end = docker.wait_container(&name, Some(WaitContainerOptionsBuilder::new().build()));
        let _ = end.next().await;
        assert_eq!(memory.stdout(&job.job), ["one ***"]);
    }
    second.engine.secrets(&told.job, Ok(secrets(&told)));
    assert_eq!(second.ended(&told.job).await.1, Outcome::Exited { code: 3 });
    assert_eq!(memory.stdout(&told.job), ["one ***", "two ***"]);
    second
        .engine
        .secrets(&refused.job, Err(ApiError::not_found("no such secret")));
    assert_eq!(second.ended(&refused.job).await.1, Outcome::Exited { code: 4 });
    assert_eq!(memory.stdout(&refused.job), ["one ***"]);
    let said = memory.texts(&refused.job, LogSource::System);
    assert!(said.len() == 1 && said[0].contains("no such secret"), "{said:?}");
    for job in [told, refused] {
        second.engine.forget(&job.job).await;
    }
    assert_eq!(place.jobs(), 0);
}

#[tokio::test]
async fn a_container_that_was_made_and_not_begun_waits_for_its_secrets() {
    let Some(fixture) = fixture::shared() else { return };
    let place = Place::of(fixture, "secrets-made");
    let memory = Arc::new(Memory::default());
    let first = Life::begin(fixture, "secrets-made", &memory).await;
    let folder = fixture.folder("secrets-made-gate");
    let mut job = secretive("secrets-made", "echo main $(cat /etc/app/token)");
    job.volumes = vec![gate(&folder)];
    let text = "echo pre $TOKEN; while [ ! -e /gate/open ]; do sleep 0.05; done";
    job.hooks = Some(Hooks {
        pre_start: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        post_stop: Vec::new(),
    });
    start(&first, &job).await;
    until("its hook", || memory.stdout(&job.job) == ["pre ***"]).await;
    drop(first);
    // As if the machine's memory had been lost.
    std::fs::remove_dir_all(place.0.join(job.job.to_string())).unwrap();
    std::fs::write(folder.join("open"), "").unwrap();
    let second = Life::begin(fixture, "secrets-made", &memory).await;
    let (found, _) = second.adopt().await;
    assert!(found[0].wants_secrets && found[0].started_at.is_none(), "{found:?}");
    second.engine.secrets(&job.job, Ok(secrets(&job)));
    assert_eq!(second.ended(&job.job).await.1, Outcome::Exited { code: 0 });
    assert_eq!(memory.stdout(&job.job), ["pre ***", "main ***"]);
    second.engine.forget(&job.job).await;
}

/// An image whose command runs as another user, who has a name.
async fn with_user(fixture: &Fixture, image: &str) {
    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("{image}-maker");
    let command = "mkdir -p /etc; echo 'app:x:1234:1234::/:/bin/sh' > /etc/passwd";
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", command].map(str::to_owned).to_vec()),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker.create_container(Some(options), body).await.unwrap();
    docker
        .start_container(&name, None::<StartContainerOptions>)
        .await
        .unwrap();
    let mut end = docker.wait_container(&name, Some(WaitContainerOptionsBuilder::new().build()));
    end.next().await.unwrap().unwrap();
    let options = CommitContainerOptionsBuilder::new()
        .container(&name)
        .repo(image)
        .tag("1")
        .build();
    let config = ContainerConfig {
        user: Some("app".to_owned()),
        ..Default::default()
    };
    docker.commit_container(options, config).await.unwrap();
    docker
        .remove_container(&name, None::<bollard::query_parameters::RemoveContainerOptions>)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_is_its_images_users_own() {
    let Some(fixture) = fixture::shared() else { return };
    let _place = Place::of(fixture, "secrets-user");
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "secrets-user", &memory).await;
    with_user(fixture, "clawtest-user").await;
    let mut job = secretive(
        "secrets-user",
        "id -u; stat -c '%a %u' /etc/app/token; tr a-z b-za < /etc/app/token",
    );
    job.image = "clawtest-user:1".to_owned();
    start(&life, &job).await;
    assert_eq!(life.ended(&job.job).await.1, Outcome::Exited { code: 0 });
    assert_eq!(memory.stdout(&job.job), ["1234", "400 1234", TURNED]);
    life.engine.forget(&job.job).await;
    let docker = fixture.docker().negotiate_version().await.unwrap();
    docker
        .remove_image("clawtest-user:1", None::<RemoveImageOptions>, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_said_of_a_failed_start_is_masked_too() {
    let Some(fixture) = fixture::shared() else { return };
    let place = Place::of(fixture, "secrets-failed");
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, "secrets-failed", &memory).await;
    let mut job = secretive("secrets-failed", "");
    // The hook is named with its words.
    job.hooks = Some(Hooks {
        pre_start: ["/bin/sh", "-c", &format!("exit 3 # {VALUE}")]
            .map(str::to_owned)
            .to_vec(),
        post_stop: Vec::new(),
    });
    start(&life, &job).await;
    let (_, outcome, _) = life.ended(&job.job).await;
    let Outcome::StartFailed { code, message, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(code, ErrorCode::InvalidArgument);
    assert!(message.contains("***") && !message.contains(VALUE), "{message}");
    assert_eq!(place.jobs(), 0);
    life.engine.stop(&job.job, Span(0));
    life.engine.forget(&job.job).await;
}
