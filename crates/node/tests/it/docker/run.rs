//! Jobs that run to their end: output, codes, environment, folders, limits, hooks, commands beside them.

use std::sync::Arc;

use api::{
    Cpu, Size,
    wire::ExecEvent,
    workload::{EnvVar, HeldGpu, Hooks, LogSource, Outcome, Volume, VolumeSource},
};
use bollard::{models::HostConfig, query_parameters::InspectContainerOptions};
use bytes::Bytes;
use clawbernetes_node::engine::{Engine as _, Exec, What};

use super::{
    fixture::{self, Fixture, IMAGE_WITH_COMMAND},
    life::{Life, Memory, processes, script, until},
};

async fn life(node: &str) -> Option<(Life, Arc<Memory>, &'static Fixture)> {
    let fixture = fixture::shared()?;
    let memory = Arc::new(Memory::default());
    let life = Life::begin(fixture, node, &memory).await;
    Some((life, memory, fixture))
}

async fn host_config(fixture: &Fixture, job: &api::workload::JobKey) -> HostConfig {
    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("clawbernetes-{job}");
    let inspect = docker
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
        .unwrap();
    inspect.host_config.unwrap()
}

#[tokio::test]
async fn output_and_exit_code_come_back() {
    let Some((life, memory, fixture)) = life("run").await else {
        return;
    };
    let text =
        "echo one; echo two; echo oops >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; printf last; exit 7";
    let job = script("run", text);
    life.start(&job).await;
    let started = life.started(&job.job).await;
    let (ended, outcome, usage) = life.ended(&job.job).await;
    assert_eq!(outcome, Outcome::Exited { code: 7 });
    assert!(started < ended, "{started} {ended}");
    assert!(usage.cpu_ms.is_some() && usage.memory_peak_bytes.is_some(), "{usage:?}");
    assert_eq!(memory.stdout(&job.job), ["one", "two", "last"]);
    assert_eq!(memory.texts(&job.job, LogSource::Stderr), ["oops"]);
    let lines = memory.lines(&job.job);
    assert!(lines.windows(2).all(|pair| pair[0].at_ns < pair[1].at_ns));
    assert_eq!(
        lines.iter().map(|line| line.partial).collect::<Vec<_>>(),
        [false, false, false, true]
    );

    // A job that is known isn't begun again, also after its end.
    life.start(&job).await;
    let cgroup = format!("/{}/jobs/{}", fixture.name, job.job);
    let cgroups = || {
        let mounts = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        let paths = mounts.map(|mount| format!("{}{cgroup}", mount.path().display()));
        paths.filter(|path| std::path::Path::new(path).exists()).count()
    };
    assert!(cgroups() > 0);
    life.engine.forget(&job.job).await;
    assert_eq!(cgroups(), 0);
    assert_eq!(memory.lines(&job.job).len(), 4);
}

/// However the daemon arranges control groups, they end in the container's id.
#[tokio::test]
async fn a_control_group_tells_its_job() {
    let Some((life, _, fixture)) = life("owner").await else {
        return;
    };
    let job = script("owner", "exit 0");
    assert_eq!(life.run(&job).await, Outcome::Exited { code: 0 });
    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("clawbernetes-{}", job.job);
    let inspect = docker.inspect_container(&name, None::<InspectContainerOptions>);
    let id = inspect.await.unwrap().id.unwrap();
    let by_systemd = format!("/system.slice/docker-{id}.scope");
    assert_eq!(life.engine.owner(&by_systemd).await, Some(job.job.clone()));
    let own = format!("/{}/jobs/{}", fixture.name, job.job);
    assert_eq!(life.engine.owner(&own).await, Some(job.job.clone()));
    let strange = format!("/system.slice/docker-{}.scope", "0".repeat(64));
    assert_eq!(life.engine.owner(&strange).await, None);
    life.engine.forget(&job.job).await;
    assert_eq!(life.engine.owner(&by_systemd).await, None, "it is gone");
    assert_eq!(life.engine.owner(&own).await, None);
}

#[tokio::test]
async fn the_command_replaces_the_images_own() {
    let Some((life, memory, _)) = life("command").await else {
        return;
    };
    let mut own = script("command-own", "");
    own.image = IMAGE_WITH_COMMAND.to_owned();
    own.command.clear();
    assert_eq!(life.run(&own).await, Outcome::Exited { code: 0 });
    assert_eq!(memory.stdout(&own.job), ["own command"]);

    let mut other = script(
        "command-other",
        "echo other $OWN $MINE; echo cuda=$CUDA_VISIBLE_DEVICES",
    );
    other.image = IMAGE_WITH_COMMAND.to_owned();
    other.env = vec![EnvVar {
        name: "MINE".to_owned(),
        value: "a b=c".to_owned(),
    }];
    other.gpus = vec![HeldGpu {
        index: 3,
        uuid: "SIM-3".to_owned(),
    }];
    assert_eq!(life.run(&other).await, Outcome::Exited { code: 0 });
    assert_eq!(memory.stdout(&other.job), ["other command a b=c", "cuda=3"]);

    let mut absent = script("command-absent", "");
    absent.command = vec!["no-such-program".to_owned()];
    assert_eq!(life.run(&absent).await, Outcome::Exited { code: 127 });
    for job in [own, other, absent] {
        life.engine.forget(&job.job).await;
    }
}

#[tokio::test]
async fn folders_are_mounted() {
    let Some((life, memory, fixture)) = life("mounts").await else {
        return;
    };
    let (shared, sealed) = (fixture.folder("shared"), fixture.folder("sealed"));
    std::fs::write(sealed.join("in"), "sealed\n").unwrap();
    let host = |path: &std::path::Path, to: &str, read_only| Volume {
        name: String::new(),
        mount_path: to.to_owned(),
        source: VolumeSource::HostPath {
            source: path.to_string_lossy().into_owned(),
            read_only,
        },
    };
    let empty = |memory, to: &str| Volume {
        name: String::new(),
        mount_path: to.to_owned(),
        source: VolumeSource::EmptyDir {
            memory,
            size_limit: memory.then_some(Size::mib(4)),
        },
    };
    let mut job = script(
        "mounts",
        "cat /sealed/in; touch /sealed/out 2>/dev/null || echo sealed; echo hi >/shared/out; \
         echo e >/empty/x && echo empty; dd if=/dev/zero of=/fast/x bs=1M count=8 2>/dev/null || echo full",
    );
    job.volumes = vec![
        host(&shared, "/shared", false),
        host(&sealed, "/sealed", true),
        empty(false, "/empty"),
        empty(true, "/fast"),
    ];
    assert_eq!(life.run(&job).await, Outcome::Exited { code: 0 });
    assert_eq!(memory.stdout(&job.job), ["sealed", "sealed", "empty", "full"]);
    assert_eq!(std::fs::read_to_string(shared.join("out")).unwrap(), "hi\n");

    let docker = fixture.docker().negotiate_version().await.unwrap();
    let name = format!("clawbernetes-{}", job.job);
    let inspect = docker
        .inspect_container(&name, None::<InspectContainerOptions>)
        .await
        .unwrap();
    let volumes: Vec<String> = inspect
        .mounts
        .unwrap()
        .into_iter()
        .filter_map(|mount| mount.name)
        .collect();
    assert_eq!(volumes.len(), 1);
    life.engine.forget(&job.job).await;
    assert!(
        docker
            .inspect_container(&name, None::<InspectContainerOptions>)
            .await
            .is_err()
    );
    assert!(
        docker.inspect_volume(&volumes[0]).await.is_err(),
        "the folder went with its job"
    );

    let mut nowhere = script("mounts-nowhere", "true");
    nowhere.volumes = vec![host(std::path::Path::new("/no/such/folder"), "/x", false)];
    match life.run(&nowhere).await {
        Outcome::StartFailed {
            code,
            message,
            retryable: false,
        } => {
            assert_eq!(code, api::ErrorCode::InvalidArgument);
            assert!(message.contains("/no/such/folder"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_memory_limit_makes_an_oom_kill() {
    let Some((life, memory, fixture)) = life("oom").await else {
        return;
    };
    let mut job = script("oom", "echo begin; x=a; while true; do x=$x$x; done");
    job.memory = Some(Size::mib(24));
    job.cpu = Some(Cpu(500));
    life.start(&job).await;
    match life.ended(&job.job).await.1 {
        Outcome::OomKilled {
            limit_bytes,
            peak_bytes,
        } => {
            assert_eq!(limit_bytes, Some(Size::mib(24)));
            assert!(peak_bytes.is_some_and(|peak| peak > Size::mib(12)), "{peak_bytes:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(memory.stdout(&job.job), ["begin"]);
    let host = host_config(fixture, &job.job).await;
    assert_eq!((host.memory, host.memory_swap), (Some(24 << 20), Some(24 << 20)));
    assert_eq!(host.nano_cpus, Some(500_000_000));

    let mut killed = script("killed", "kill -9 $$");
    killed.memory = Some(Size::mib(24));
    assert_eq!(life.run(&killed).await, Outcome::Signaled { signal: 9 });
    for job in [job, killed] {
        life.engine.forget(&job.job).await;
    }
}

#[tokio::test]
async fn hooks_run_around_the_command() {
    let Some((life, memory, _)) = life("hooks").await else {
        return;
    };
    let words = |text: &str| ["/bin/sh", "-c", text].map(str::to_owned).to_vec();
    let mut job = script("hooks", "cat /work/pre; echo main; echo left >/work/main; exit 4");
    job.volumes = vec![Volume {
        name: String::new(),
        mount_path: "/work".to_owned(),
        source: VolumeSource::EmptyDir {
            memory: false,
            size_limit: None,
        },
    }];
    job.hooks = Some(Hooks {
        pre_start: words("echo pre; echo prepared >/work/pre"),
        post_stop: words("echo post; cat /work/main"),
    });
    assert_eq!(life.run(&job).await, Outcome::Exited { code: 4 });
    assert_eq!(memory.stdout(&job.job), ["pre", "prepared", "main", "post", "left"]);
    life.engine.forget(&job.job).await;

    let mut failing = script("hooks-failing", "echo main");
    failing.hooks = Some(Hooks {
        pre_start: words("echo no; exit 3"),
        post_stop: words("echo post"),
    });
    life.start(&failing).await;
    match life.next(&failing.job).await {
        What::Ended {
            outcome: Outcome::StartFailed { message, .. },
            ..
        } => assert!(message.contains("exit code 3"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(memory.stdout(&failing.job), ["no"]);
}

async fn collect(mut exec: Exec) -> (String, String, i32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    drop(exec.input);
    while let Some(event) = exec.events.recv().await {
        match event {
            ExecEvent::Output { source, data } => match source {
                LogSource::Stderr => err.extend(data),
                _ => out.extend(data),
            },
            ExecEvent::Exited { code } => {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), code);
            }
            ExecEvent::Failed { error } => panic!("{error}"),
        }
    }
    panic!("no end");
}

#[tokio::test]
async fn commands_run_inside_a_job() {
    let Some((life, _, _)) = life("exec").await else { return };
    let job = script("exec", "echo $$ >/tmp/pid; exec sleep 100000");
    life.start(&job).await;
    life.started(&job.job).await;
    let run = |text: &str| {
        life.engine
            .exec(&job.job, ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
    };

    let (out, err, code) = collect(run("echo out; echo err >&2; exit 9").await.unwrap()).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("out\n", "err\n", 9));

    let exec = run("tr a-z A-Z").await.unwrap();
    exec.input.send(Bytes::from_static(b"hello ")).await.unwrap();
    exec.input.send(Bytes::from_static(b"there")).await.unwrap();
    exec.input.send(Bytes::new()).await.unwrap();
    assert_eq!(collect(exec).await, ("HELLO THERE".to_owned(), String::new(), 0));

    // What nobody waits for any more is killed, with its children.
    let exec = run("sleep 98761 & sleep 98762").await.unwrap();
    until("the command", || {
        processes("sleep 98761") == 1 && processes("sleep 98762") >= 1
    })
    .await;
    drop(exec);
    until("the command's end", || processes("sleep 9876") == 0).await;

    let stats = life.engine.stats(&job.job).await.unwrap();
    assert!(stats.memory_bytes.is_some() && stats.cpu_ms.is_some(), "{stats:?}");
    assert!(stats.memory_peak_bytes >= stats.memory_bytes, "{stats:?}");

    life.engine.stop(&job.job, api::Span(0));
    assert_eq!(life.ended(&job.job).await.1, Outcome::Signaled { signal: 9 });
    assert_eq!(life.engine.stats(&job.job).await, None);
    let error = life.engine.exec(&job.job, vec!["true".to_owned()]).await.err().unwrap();
    assert_eq!(error.code, api::ErrorCode::Conflict);
    life.engine.forget(&job.job).await;
    let error = life.engine.exec(&job.job, vec!["true".to_owned()]).await.err().unwrap();
    assert_eq!(error.code, api::ErrorCode::NotFound);
}

#[tokio::test]
async fn the_memory_limit_of_a_running_job_can_be_changed() {
    let Some((life, _, fixture)) = life("set-memory").await else {
        return;
    };
    let mut job = script("set-memory", "sleep 100000");
    job.memory = Some(Size::mib(32));
    life.start(&job).await;
    life.started(&job.job).await;
    life.engine.set_memory(&job.job, Some(Size::mib(64))).await.unwrap();
    let host = host_config(fixture, &job.job).await;
    assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    life.engine.set_memory(&job.job, None).await.unwrap();
    let host = host_config(fixture, &job.job).await;
    assert!(host.memory > Some(64 << 20) && host.memory_swap == host.memory);
    let error = life.engine.set_memory(&job.job, Some(Size(1))).await.unwrap_err();
    assert_eq!(error.code, api::ErrorCode::InvalidArgument, "{error:?}");
    life.engine.forget(&job.job).await;
    assert_eq!(life.ended(&job.job).await.1, Outcome::Signaled { signal: 9 });
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    let Some((life, _, _)) = life("info").await else { return };
    let info = life.engine.info();
    assert_eq!(info.kind, api::node::EngineKind::Docker);
    assert!(info.version.is_some());
    assert!(
        info.limitations.iter().any(|words| words.contains("NVIDIA")),
        "{:?}",
        info.limitations
    );
}
