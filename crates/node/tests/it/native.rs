//! Native jobs: real processes.

mod secrets;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::{
    ErrorCode, Size, Span,
    wire::{Assignment, ExecEvent, LogLine},
    workload::{HeldGpu, Hooks, JobKey, LogSource, Outcome, Volume, VolumeSource},
};
use clawbernetes_node::{
    engine::{
        Engine, EngineEvent, What,
        native::{Config, NativeEngine},
    },
    spool::{Limits, Spool},
};
use tokio::sync::mpsc;

struct Rig {
    folder: Folder,
    engine: NativeEngine,
    spool: Spool,
    events: mpsc::UnboundedReceiver<EngineEvent>,
}

/// A folder whose processes go with it, also when a test fails.
pub(super) struct Folder(tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for (pid, _) in processes(self.path()) {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

fn key(name: &str) -> JobKey {
    format!("wl-{name}.1.0").parse().unwrap()
}

pub(super) fn assignment(name: &str, command: &[&str]) -> Assignment {
    Assignment {
        job: key(name),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        image: "host".to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        env: Vec::new(),
        secrets: Vec::new(),
        volumes: Vec::new(),
        gpus: Vec::new(),
        cpu: None,
        memory: None,
        timeout: None,
        grace: Span::secs(10),
        checkpointing: None,
        gang: None,
        ports: Vec::new(),
        dynamic_ports: false,
        host_ports: Vec::new(),
        health_check: None,
        readiness: None,
        hooks: None,
        metrics_port: None,
        stop: None,
    }
}

fn shell(name: &str, script: &str) -> Assignment {
    assignment(name, &["sh", "-c", script])
}

pub(super) fn config(folder: &std::path::Path) -> Config {
    Config {
        helper: Some(PathBuf::from(env!("CARGO_BIN_EXE_clawbernetes-test-agent"))),
        ..Config::new(folder.join("data"))
    }
}

impl Rig {
    fn new() -> Self {
        Self::at(Folder::new())
    }

    fn at(folder: Folder) -> Self {
        Self::with(folder, |_| {})
    }

    fn with(folder: Folder, change: impl FnOnce(&mut Config)) -> Self {
        let spool = Spool::open(folder.path().join("spool"), Limits::default()).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let mut config = config(folder.path());
        change(&mut config);
        let engine = NativeEngine::open(&config, &spool, sender).unwrap();
        Self {
            folder,
            engine,
            spool,
            events,
        }
    }

    /// Ends the engine as a crash would: nothing is told to anybody. Gives a new life of it.
    fn crash(self) -> Self {
        let Self { folder, engine, .. } = self;
        drop(engine);
        Self::at(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, job: Assignment) -> JobKey {
        let key = job.job.clone();
        self.engine.start(Arc::new(job), None);
        key
    }

    async fn event(&mut self) -> EngineEvent {
        self.events.recv().await.unwrap()
    }

    async fn started(&mut self) {
        let event = self.event().await;
        assert!(matches!(event.what, What::Started { .. }), "{event:?}");
    }

    /// The outcome of the next job to end.
    async fn ended(&mut self) -> Outcome {
        loop {
            if let What::Ended { outcome, .. } = self.event().await.what {
                return outcome;
            }
        }
    }

    async fn run(&mut self, job: Assignment) -> (Outcome, Vec<LogLine>) {
        let key = self.start(job);
        let outcome = self.ended().await;
        (outcome, self.lines(&key))
    }

    fn lines(&self, job: &JobKey) -> Vec<LogLine> {
        self.spool.read(job, 1, usize::MAX).unwrap()
    }

    /// Waits until a job has said this line.
    async fn said(&self, job: &JobKey, text: &str) {
        let mut watch = self.spool.watch().unwrap();
        while !self.lines(job).iter().any(|line| line.text == text) {
            watch.changed().await.unwrap();
        }
    }

    /// Whether memory limits can be tested on this machine.
    fn limits_memory(&self) -> bool {
        let limitations = self.engine.info().limitations;
        let limits = !limitations.iter().any(|what| what.contains("memory limits"));
        if !limits {
            eprintln!("skipped: {limitations:?}");
        }
        limits
    }
}

/// The commands of all processes that carry this folder in their environment.
fn alive(folder: &Path) -> Vec<String> {
    processes(folder).into_iter().map(|(_, command)| command).collect()
}

/// All processes that carry this folder in their environment, with their commands.
fn processes(folder: &Path) -> Vec<(i32, String)> {
    let mark = folder.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environ.windows(mark.len()).any(|part| part == mark) {
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok()).unwrap();
            found.push((pid, String::from_utf8_lossy(&command).into_owned()));
        }
    }
    found
}

/// Waits until a process has gone.
async fn gone(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    if let Ok(fd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        tokio::task::spawn_blocking(move || {
            let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
        })
        .await
        .unwrap();
    }
}

fn texts(lines: &[LogLine], source: LogSource) -> Vec<&str> {
    lines
        .iter()
        .filter(|l| l.source == source)
        .map(|l| l.text.as_str())
        .collect()
}

fn start_failed(outcome: &Outcome) -> (ErrorCode, &str, bool) {
    match outcome {
        Outcome::StartFailed {
            code,
            message,
            retryable,
        } => (*code, message, *retryable),
        other => panic!("not a failed start: {other:?}"),
    }
}

const EXITED: Outcome = Outcome::Exited { code: 0 };

#[tokio::test]
async fn a_job_starts_speaks_and_ends() {
    let mut rig = Rig::new();
    let job = rig.start(shell("a", "echo one; echo two >&2; printf three; exit 3"));
    let event = rig.event().await;
    assert_eq!(event.job, job);
    assert!(matches!(event.what, What::Started { .. }), "{event:?}");
    let What::Ended { outcome, usage, .. } = rig.event().await.what else {
        panic!("no end");
    };
    assert_eq!(outcome, Outcome::Exited { code: 3 });
    assert!(
        usage.cpu_ms.is_some() && usage.memory_peak_bytes.unwrap().bytes() > 0,
        "{usage:?}"
    );
    let lines = rig.lines(&job);
    assert_eq!(texts(&lines, LogSource::Stdout), ["one", "three"]);
    assert_eq!(texts(&lines, LogSource::Stderr), ["two"]);
    assert!(lines.iter().all(|line| line.partial == (line.text == "three")));
    // Known, so nothing happens; forgotten, so it runs again.
    rig.start(shell("a", "exit 4"));
    rig.engine.forget(&job).await;
    assert_eq!(std::fs::read_dir(rig.path("data/run")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(rig.path("data/work")).unwrap().count(), 0);
    rig.start(shell("a", "exit 5"));
    assert_eq!(rig.ended().await, Outcome::Exited { code: 5 });
}

#[tokio::test]
async fn output_is_kept_in_order_whatever_it_is() {
    let mut rig = Rig::new();
    let (outcome, lines) = rig.run(shell("many", "seq 1 50000")).await;
    assert_eq!(outcome, EXITED);
    assert_eq!(lines.len(), 50_000);
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(
            (line.number, line.text.as_str()),
            (i as u64 + 1, (i + 1).to_string().as_str())
        );
    }
    let (_, lines) = rig
        .run(shell(
            "long",
            "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo after",
        ))
        .await;
    assert_eq!(lines.iter().take_while(|line| line.partial).count(), 15);
    assert_eq!(lines[..16].iter().map(|line| line.text.len()).sum::<usize>(), 1_000_000);
    assert_eq!(lines[16].text, "after");
    let (_, lines) = rig.run(shell("binary", r"printf '\377\000\n\nend\r\n'")).await;
    assert_eq!(texts(&lines, LogSource::Stdout), ["\u{fffd}\0", "", "end\r"]);
}

#[tokio::test]
async fn ends_are_told_exactly() {
    let mut rig = Rig::new();
    assert_eq!(rig.run(shell("zero", "true")).await.0, EXITED);
    assert_eq!(
        rig.run(shell("code", "exit 255")).await.0,
        Outcome::Exited { code: 255 }
    );
    assert_eq!(
        rig.run(shell("segv", "kill -SEGV $$")).await.0,
        Outcome::Signaled { signal: 11 }
    );
    assert_eq!(
        rig.run(shell("kill", "kill -9 $$")).await.0,
        Outcome::Signaled { signal: 9 }
    );
    assert_eq!(rig.run(shell("137", "exit 137")).await.0, Outcome::Exited { code: 137 });
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut rig = Rig::new();
    let (outcome, _) = rig.run(assignment("missing", &["no-such-command", "x"])).await;
    let (code, message, retryable) = start_failed(&outcome);
    assert_eq!((code, retryable), (ErrorCode::InvalidArgument, false));
    assert!(message.contains("command not found: 'no-such-command'"), "{message}");
    let (outcome, _) = rig.run(assignment("path", &["/etc/passwd"])).await;
    assert!(start_failed(&outcome).1.contains("executable"), "{outcome:?}");
    let (outcome, _) = rig.run(assignment("empty", &[])).await;
    assert!(start_failed(&outcome).1.contains("needs a command"), "{outcome:?}");
    let mut job = shell("image", "true");
    job.image = "alpine".to_owned();
    let (outcome, _) = rig.run(job).await;
    assert!(
        start_failed(&outcome).1.contains("runs only the image 'host'"),
        "{outcome:?}"
    );
    // Started by nobody: the refusals are ends like any other.
    rig.engine.forget(&key("image")).await;
    let mut rig = rig.crash();
    let (found, leftovers) = rig.engine.adopt().await;
    assert_eq!((found.len(), leftovers), (3, Vec::<String>::new()));
    assert!(found.iter().all(|found| found.ended.is_some()));
    assert!(rig.events.try_recv().is_err());
}

#[tokio::test]
async fn a_job_sees_its_own_environment_and_gpus_only() {
    let mut rig = Rig::new();
    let script = "echo $CUDA_VISIBLE_DEVICES,$NVIDIA_VISIBLE_DEVICES,$ROCR_VISIBLE_DEVICES; echo $MINE; pwd; env | cut -d= -f1 | sort | tr '\\n' ' '";
    let mut job = shell("env", script);
    job.env.push(api::workload::EnvVar {
        name: "MINE".to_owned(),
        value: "a b".to_owned(),
    });
    let (_, lines) = rig.run(job.clone()).await;
    let lines = texts(&lines, LogSource::Stdout);
    assert_eq!(lines[..2], [",void,", "a b"]);
    assert!(lines[2].ends_with("wl-env.1.0.d"), "{lines:?}");
    assert!(!lines[3].contains("CARGO"), "{lines:?}");
    job.job = key("gpu");
    job.gpus = vec![
        HeldGpu {
            index: 3,
            uuid: "GPU-x".to_owned(),
        },
        HeldGpu {
            index: 5,
            uuid: "GPU-y".to_owned(),
        },
    ];
    let (_, lines) = rig.run(job.clone()).await;
    assert_eq!(texts(&lines, LogSource::Stdout)[0], "GPU-x,GPU-y,GPU-x,GPU-y,");
    job.job = key("amd");
    job.gpus[0].uuid = "0x77".to_owned();
    let (_, lines) = rig.run(job).await;
    assert_eq!(texts(&lines, LogSource::Stdout)[0], "3,5,3,5,3,5");
}

#[tokio::test]
async fn nothing_outlives_a_job() {
    let mut rig = Rig::new();
    // Daemons in the twice forked way, one in a session of its own, all deaf to SIGTERM and holding the pipes.
    let daemons = "trap '' TERM HUP; (setsid sleep 1000 &) ; (sleep 1001 & sleep 1002 &); nohup sleep 1003 & echo up";
    let (outcome, lines) = rig.run(shell("daemons", daemons)).await;
    assert_eq!(outcome, EXITED);
    assert_eq!(texts(&lines, LogSource::Stdout), ["up"]);
    assert_eq!(alive(rig.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn stopping_asks_first() {
    let mut rig = Rig::new();
    let job = rig.start(shell(
        "polite",
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done",
    ));
    rig.said(&job, "up").await;
    rig.engine.stop(&job, Span::secs(60));
    rig.engine.stop(&job, Span::secs(70));
    assert_eq!(rig.ended().await, Outcome::Exited { code: 7 });
    assert_eq!(texts(&rig.lines(&job), LogSource::Stdout), ["up", "bye"]);
    rig.engine.stop(&job, Span::secs(0));
    rig.engine.stop(&key("unknown"), Span::secs(0));
    assert!(rig.events.try_recv().is_err());
}

#[tokio::test]
async fn stopping_kills_after_the_grace_and_at_once_without_one() {
    let mut rig = Rig::new();
    let deaf = "trap 'echo no' TERM; echo up; while :; do sleep 0.05; done";
    for (name, grace) in [("grace", Span(300)), ("now", Span(0))] {
        let job = rig.start(shell(name, deaf));
        rig.said(&job, "up").await;
        rig.engine.stop(&job, grace);
        assert_eq!(rig.ended().await, Outcome::Signaled { signal: 9 });
        assert_eq!(
            texts(&rig.lines(&job), LogSource::Stdout).len(),
            if grace.is_zero() { 1 } else { 2 }
        );
    }
    // A long grace is cut short by a second order.
    let job = rig.start(shell("shorter", deaf));
    rig.said(&job, "up").await;
    rig.engine.stop(&job, Span::secs(1000));
    rig.said(&job, "no").await;
    rig.engine.stop(&job, Span(0));
    assert_eq!(rig.ended().await, Outcome::Signaled { signal: 9 });
    assert_eq!(alive(rig.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_that_is_stopped_at_once_still_ends_once() {
    let mut rig = Rig::new();
    for n in 0..20 {
        let job = rig.start(shell(&format!("race{n}"), "sleep 1000"));
        rig.engine.stop(&job, Span(0));
        let outcome = rig.ended().await;
        match &outcome {
            Outcome::Signaled { signal: 9 } => {}
            other => assert_eq!(start_failed(other).1, "stopped before it started"),
        }
    }
    assert!(rig.events.try_recv().is_err());
}

#[tokio::test]
async fn hooks_run_around_the_command() {
    let mut rig = Rig::new();
    let hooks = |pre: &str, post: &str| {
        Some(Hooks {
            pre_start: ["sh", "-c", pre].map(str::to_owned).to_vec(),
            post_stop: ["sh", "-c", post].map(str::to_owned).to_vec(),
        })
    };
    let mut job = shell("around", "cat made; exit 9");
    job.hooks = hooks("echo before; echo by-hook > made", "echo after; exit 1");
    let (outcome, lines) = rig.run(job).await;
    assert_eq!(outcome, Outcome::Exited { code: 9 });
    assert_eq!(texts(&lines, LogSource::Stdout), ["before", "by-hook", "after"]);
    assert_eq!(
        texts(&lines, LogSource::System),
        ["the postStop hook failed: exit code 1"]
    );
    let mut job = shell("refused", "echo never");
    job.hooks = hooks("echo no >&2; exit 3", "echo never");
    let (outcome, lines) = rig.run(job).await;
    assert!(start_failed(&outcome).1.contains("exit code 3"), "{outcome:?}");
    assert_eq!(texts(&lines, LogSource::Stdout), Vec::<&str>::new());
}

#[tokio::test]
async fn out_of_memory_is_the_kernels_word() {
    let mut rig = Rig::new();
    if !rig.limits_memory() {
        return;
    }
    let mut job = shell("oom", "exec tail /dev/zero");
    job.memory = Some(Size::mib(64));
    let (outcome, _) = rig.run(job.clone()).await;
    let Outcome::OomKilled {
        limit_bytes,
        peak_bytes,
    } = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(limit_bytes, Some(Size::mib(64)));
    assert!(peak_bytes.unwrap() > Size::mib(50), "{peak_bytes:?}");
    // A SIGKILL of somebody else's isn't one, nor is the fall of a part.
    job.job = key("killed");
    job.command[2] = "kill -9 $$".to_owned();
    assert_eq!(rig.run(job.clone()).await.0, Outcome::Signaled { signal: 9 });
    job.job = key("part");
    job.command[2] = "tail /dev/zero; exit 6".to_owned();
    let (outcome, lines) = rig.run(job.clone()).await;
    if outcome != (Outcome::Exited { code: 6 }) {
        // Version 2 takes the whole group.
        assert!(matches!(outcome, Outcome::OomKilled { .. }), "{outcome:?}");
    } else {
        assert!(
            texts(&lines, LogSource::System)[0].contains("killed 1 of its processes"),
            "{lines:?}"
        );
    }
    // A lower limit while it runs.
    job.job = key("squeezed");
    job.memory = Some(Size::gib(4));
    job.command[2] = "echo up; read -r line < fifo; exec tail /dev/zero".to_owned();
    job.command[2].insert_str(0, "mkfifo fifo; ");
    let squeezed = rig.start(job);
    rig.said(&squeezed, "up").await;
    rig.started().await;
    let stats = rig.engine.stats(&squeezed).await.unwrap();
    assert!(stats.memory_bytes.is_some() && stats.memory_peak_bytes.is_some() && stats.cpu_ms.is_some());
    rig.engine.set_memory(&squeezed, Some(Size::mib(64))).await.unwrap();
    std::fs::write(rig.path("data/work/wl-squeezed.1.0.d/fifo"), "go\n").unwrap();
    assert!(matches!(rig.ended().await, Outcome::OomKilled { .. }));
}

#[tokio::test]
async fn without_cgroups_it_says_so_and_still_leaves_nothing_behind() {
    let folder = Folder::new();
    let none = folder.path().join("none");
    let mut rig = Rig::with(folder, |config| config.cgroups = none);
    let limitations = rig.engine.info().limitations;
    assert!(
        limitations
            .iter()
            .any(|what| what.contains("memory limits aren't enforced")),
        "{limitations:?}"
    );
    let (outcome, _) = rig
        .run(shell("plain", "(setsid sleep 1000 &); (sleep 1001 &); exit 2"))
        .await;
    assert_eq!(outcome, Outcome::Exited { code: 2 });
    assert_eq!(alive(rig.folder.path()), Vec::<String>::new());
    let job = rig.start(shell("busy", "echo up; sleep 1000"));
    rig.said(&job, "up").await;
    rig.started().await;
    let stats = rig.engine.stats(&job).await.unwrap();
    assert!(stats.memory_bytes.unwrap().bytes() > 0, "{stats:?}");
    assert!(rig.engine.set_memory(&job, Some(Size::mib(64))).await.is_err());
    rig.engine.stop(&job, Span(0));
    assert_eq!(rig.ended().await, Outcome::Signaled { signal: 9 });
}

#[tokio::test]
async fn jobs_are_adopted_with_their_true_ends() {
    let mut rig = Rig::new();
    let slow = "mkfifo fifo; echo up; read -r code < fifo; seq 1 1000; exit $code";
    let (over, runs) = (rig.start(shell("over", slow)), rig.start(shell("runs", slow)));
    rig.said(&over, "up").await;
    rig.said(&runs, "up").await;
    rig.started().await;
    rig.started().await;
    let Rig {
        folder, engine, spool, ..
    } = rig;
    drop(engine);
    // One ends while no engine is there.
    std::fs::write(folder.path().join("data/work/wl-over.1.0.d/fifo"), "41\n").unwrap();
    let state = folder.path().join("data/run/wl-over.1.0.state");
    let mut watch = spool.watch().unwrap();
    while spool.last(&over).unwrap().is_none_or(|(last, _)| last < 1001) {
        watch.changed().await.unwrap();
    }
    let shim: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&state).unwrap().lines().next().unwrap()).unwrap();
    gone(shim["shim"]["pid"].as_i64().unwrap() as i32).await;
    let mut rig = Rig::at(folder);
    let (found, leftovers) = rig.engine.adopt().await;
    assert_eq!(leftovers, Vec::<String>::new());
    let [first, second] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((&first.job, &second.job), (&over, &runs));
    assert!(first.started_at.is_some() && second.started_at.is_some());
    assert_eq!(first.ended.as_ref().unwrap().1, Outcome::Exited { code: 41 });
    assert_eq!(second.ended, None);
    std::fs::write(rig.path("data/work/wl-runs.1.0.d/fifo"), "42\n").unwrap();
    assert_eq!(rig.ended().await, Outcome::Exited { code: 42 });
    for job in [&over, &runs] {
        let lines = rig.lines(job);
        assert_eq!(lines.len(), 1001);
        assert!(lines.iter().enumerate().all(|(i, line)| line.number == i as u64 + 1));
    }
    // Stopping works for adopted jobs as well.
    let job = rig.start(shell(
        "stopped",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done",
    ));
    rig.said(&job, "up").await;
    let mut rig = rig.crash();
    rig.engine.adopt().await;
    rig.engine.stop(&job, Span::secs(60));
    assert_eq!(rig.ended().await, Outcome::Exited { code: 7 });
}

#[tokio::test]
async fn an_agent_that_is_killed_leaves_its_jobs_running() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let folder = Folder::new();
    let mut agent = tokio::process::Command::new(env!("CARGO_BIN_EXE_clawbernetes-test-agent"))
        .arg("agent")
        .arg(folder.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let job = shell(
        "kept",
        "mkfifo fifo; echo up; read -r code < fifo; echo $code; exit $code",
    );
    let line = serde_json::to_string(&job).unwrap() + "\n";
    agent.stdin.take().unwrap().write_all(line.as_bytes()).await.unwrap();
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
    assert!(said.next_line().await.unwrap().unwrap().contains("Started"));
    agent.kill().await.unwrap();
    let mut rig = Rig::at(folder);
    let (found, _) = rig.engine.adopt().await;
    assert_eq!(found[0].ended, None);
    rig.said(&job.job, "up").await;
    std::fs::write(rig.path("data/work/wl-kept.1.0.d/fifo"), "33\n").unwrap();
    assert_eq!(rig.ended().await, Outcome::Exited { code: 33 });
    assert_eq!(texts(&rig.lines(&job.job), LogSource::Stdout), ["up", "33"]);
}

#[tokio::test]
async fn a_shim_that_is_killed_takes_its_job_with_it() {
    let mut rig = Rig::new();
    for round in ["watched", "adopted"] {
        let job = rig.start(shell(round, "(setsid sleep 1000 &); echo up; sleep 1001"));
        rig.said(&job, "up").await;
        rig.started().await;
        if round == "adopted" {
            rig = rig.crash();
            rig.engine.adopt().await;
        }
        let state = std::fs::read_to_string(rig.path(&format!("data/run/{job}.state"))).unwrap();
        let shim: serde_json::Value = serde_json::from_str(state.lines().next().unwrap()).unwrap();
        let pid = rustix::process::Pid::from_raw(shim["shim"]["pid"].as_i64().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let outcome = rig.ended().await;
        let Outcome::Unknown { why } = &outcome else {
            panic!("{outcome:?}")
        };
        assert!(why.contains("shim"), "{why}");
        assert_eq!(alive(rig.folder.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn records_of_another_boot_end_as_unknown() {
    let mut rig = Rig::new();
    let job = rig.start(shell("boot", "echo up; sleep 1000"));
    rig.said(&job, "up").await;
    rig.started().await;
    rig.engine.stop(&job, Span(0));
    rig.ended().await;
    // The same files as if the machine had restarted while it ran.
    let (spec, state) = (
        rig.path("data/run/wl-boot.1.0.spec"),
        rig.path("data/run/wl-boot.1.0.state"),
    );
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&spec).unwrap()).unwrap();
    record["boot"] = "another".into();
    std::fs::write(&spec, record.to_string()).unwrap();
    let steps = std::fs::read_to_string(&state).unwrap();
    let running: Vec<&str> = steps.split_inclusive('\n').take(2).collect();
    std::fs::write(&state, running.concat() + "{\"ended\":{\"at\":\"torn").unwrap();
    let rig = rig.crash();
    let (found, _) = rig.engine.adopt().await;
    assert!(found[0].started_at.is_some());
    let why = "the machine restarted".to_owned();
    assert_eq!(found[0].ended.as_ref().unwrap().1, Outcome::Unknown { why });
}

#[tokio::test]
async fn the_lease_stops_jobs_even_of_a_dead_agent() {
    let rig = Rig::new();
    rig.engine.set_lease(Some(Duration::from_secs(1000))).unwrap();
    let mut job = shell(
        "fenced",
        "trap 'echo asked' TERM; echo up; while :; do sleep 0.05; done",
    );
    job.grace = Span(200);
    rig.start(job.clone());
    rig.said(&job.job, "up").await;
    rig.engine.set_lease(Some(Duration::from_millis(50))).unwrap();
    let Rig {
        folder, engine, spool, ..
    } = rig;
    drop(engine);
    let mut watch = spool.watch().unwrap();
    let asked = |lines: &[LogLine]| texts(lines, LogSource::Stdout).contains(&"asked");
    while !asked(&spool.read(&job.job, 1, usize::MAX).unwrap()) {
        watch.changed().await.unwrap();
    }
    let mut rig = Rig::at(folder);
    let (found, _) = rig.engine.adopt().await;
    let outcome = match found[0].ended.clone() {
        Some((_, outcome, _)) => outcome,
        None => rig.ended().await,
    };
    assert_eq!(outcome, Outcome::Signaled { signal: 9 });
    assert!(rig.engine.fenced(&job.job));
    assert!(texts(&rig.lines(&job.job), LogSource::System)[0].contains("no word from the gateway"));
    // A lease that has run out starts nothing either, until it is renewed.
    rig.start(shell("late", "true"));
    assert_eq!(start_failed(&rig.ended().await).1, "stopped before it started");
    rig.engine.set_lease(None).unwrap();
    rig.start(shell("again", "true"));
    assert_eq!(rig.ended().await, EXITED);
}

#[tokio::test]
async fn leftovers_are_named_and_killed() {
    let mut rig = Rig::new();
    if !rig.limits_memory() {
        return;
    }
    let job = rig.start(shell("lost", "echo up; sleep 1000"));
    rig.said(&job, "up").await;
    rig.started().await;
    for kind in ["spec", "state"] {
        std::fs::remove_file(rig.path(&format!("data/run/{job}.{kind}"))).unwrap();
    }
    let rig = rig.crash();
    let (found, leftovers) = rig.engine.adopt().await;
    assert_eq!(found, []);
    assert!(leftovers[0].contains("wl-lost.1.0"), "{leftovers:?}");
    assert_eq!(alive(rig.folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_spawner_that_dies_is_replaced() {
    let mut rig = Rig::new();
    let job = rig.start(shell("orphan", "mkfifo fifo; echo up; read -r code < fifo; exit $code"));
    rig.said(&job, "up").await;
    rig.started().await;
    let mark = rig.path("data/run").canonicalize().unwrap().display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let parent = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let ours = parent.contains(&format!(") S {} ", std::process::id()));
        if ours && String::from_utf8_lossy(&command).contains(&mark) {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
    }
    rig.start(shell("next", "exit 12"));
    assert_eq!(rig.ended().await, Outcome::Exited { code: 12 });
    std::fs::write(rig.path("data/work/wl-orphan.1.0.d/fifo"), "13\n").unwrap();
    assert_eq!(rig.ended().await, Outcome::Exited { code: 13 });
}

#[tokio::test]
async fn volumes_are_mounted_for_the_job_alone() {
    let mut rig = Rig::new();
    std::fs::create_dir(rig.path("source")).unwrap();
    std::fs::write(rig.path("source/file"), "hello\n").unwrap();
    let path = |name: &str| rig.path(name).display().to_string();
    let host = |at: &str, read_only| Volume {
        name: String::new(),
        mount_path: path(at),
        source: VolumeSource::HostPath {
            source: path("source"),
            read_only,
        },
    };
    let mut same = shell("same", &format!("cat {}/file", path("source")));
    same.volumes = vec![host("source", false)];
    let mut other = shell(
        "other",
        "cat $AT/file; touch $AT/x 2>/dev/null || echo read-only; touch $AT-tmp/y; touch $AT-disk/z; df -k $AT-tmp | tail -1 | cut -d' ' -f1; echo up; read -r line < $AT-disk/fifo",
    );
    other.command[2] = other.command[2].replace("echo up", "mkfifo $AT-disk/fifo; echo up");
    other.env.push(api::workload::EnvVar {
        name: "AT".to_owned(),
        value: path("at"),
    });
    let empty = |at: &str, memory| Volume {
        name: String::new(),
        mount_path: path(at),
        source: VolumeSource::EmptyDir {
            memory,
            size_limit: memory.then_some(Size::mib(8)),
        },
    };
    other.volumes = vec![host("at", true), empty("at-tmp", true), empty("at-disk", false)];
    let mut hiding = shell("hiding", "true");
    hiding.volumes = vec![host("data", false)];
    let mut missing = shell("missing", "true");
    missing.volumes = vec![host("source", false)];
    missing.volumes[0].source = VolumeSource::HostPath {
        source: "/no/such/folder".to_owned(),
        read_only: false,
    };
    let (outcome, lines) = rig.run(same).await;
    assert_eq!((outcome, lines[0].text.as_str()), (EXITED, "hello"));
    let (outcome, _) = rig.run(hiding).await;
    assert!(start_failed(&outcome).1.contains("hide"), "{outcome:?}");
    let (outcome, _) = rig.run(missing).await;
    assert!(start_failed(&outcome).1.contains("doesn't have"), "{outcome:?}");
    let root = rustix::process::geteuid().is_root();
    if !root {
        let (outcome, _) = rig.run(other).await;
        assert!(start_failed(&outcome).1.contains("isn't root"), "{outcome:?}");
        eprintln!("skipped: mounts need root");
        return;
    }
    let job = rig.start(other);
    rig.said(&job, "up").await;
    assert_eq!(
        texts(&rig.lines(&job), LogSource::Stdout),
        ["hello", "read-only", "tmpfs", "up"]
    );
    assert_eq!(std::fs::read_dir(rig.path("at-tmp")).unwrap().count(), 0);
    // A command inside sees the same mounts.
    let command = |line: &str| ["sh", "-c", line].map(str::to_owned).to_vec();
    let mut exec = rig.engine.exec(&job, command("test -p $AT-disk/fifo")).await.unwrap();
    drop(exec.input);
    assert_eq!(exec.events.recv().await, Some(ExecEvent::Exited { code: 0 }));
    // This one lets the job end, which may end the command before it ends by itself.
    let mut exec = rig.engine.exec(&job, command("echo go > $AT-disk/fifo")).await.unwrap();
    drop(exec.input);
    assert!(matches!(exec.events.recv().await, Some(ExecEvent::Exited { .. })));
    assert_eq!(rig.ended().await, EXITED);
}

#[tokio::test]
async fn commands_run_inside_a_job() {
    let mut rig = Rig::new();
    let job = rig.start(shell("host", "echo up; sleep 1000"));
    assert!(rig.engine.exec(&key("unknown"), vec!["true".to_owned()]).await.is_err());
    rig.said(&job, "up").await;
    rig.started().await;
    let script = "pwd; echo $CLAWBERNETES_JOB >&2; cat; exit 5";
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut exec = rig.engine.exec(&job, command).await.unwrap();
    exec.input.send(bytes::Bytes::from_static(b"in\n")).await.unwrap();
    exec.input.send(bytes::Bytes::new()).await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = loop {
        match exec.events.recv().await.unwrap() {
            ExecEvent::Output {
                source: LogSource::Stdout,
                data,
            } => out.extend(data),
            ExecEvent::Output { data, .. } => err.extend(data),
            ExecEvent::Exited { code } => break code,
            ExecEvent::Failed { error } => panic!("{error}"),
        }
    };
    assert_eq!(code, 5);
    assert!(String::from_utf8(out).unwrap().ends_with("wl-host.1.0.d\nin\n"));
    assert_eq!(err, b"wl-host.1.0\n");
    let error = rig
        .engine
        .exec(&job, vec!["no-such-command".to_owned()])
        .await
        .err()
        .unwrap();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    // One that nobody wants any more dies; one that is left ends with the job.
    let sleeper = |n: u32| vec!["sleep".to_owned(), n.to_string()];
    drop(rig.engine.exec(&job, sleeper(2001)).await.unwrap());
    let mut left = rig.engine.exec(&job, sleeper(2002)).await.unwrap();
    rig.engine.stop(&job, Span(0));
    assert_eq!(rig.ended().await, Outcome::Signaled { signal: 9 });
    assert_eq!(left.events.recv().await, Some(ExecEvent::Exited { code: 137 }));
    assert!(!alive(rig.folder.path()).iter().any(|command| command.contains("2002")));
}

#[tokio::test]
async fn two_hundred_jobs_at_once() {
    let mut rig = Rig::new();
    for n in 0..200 {
        rig.start(shell(&format!("crowd{n}"), &format!("echo {n}; exit {n}")));
    }
    let mut ended = BTreeMap::new();
    while ended.len() < 200 {
        let event = rig.event().await;
        if let What::Ended { outcome, .. } = event.what {
            assert_eq!(ended.insert(event.job, outcome), None);
        }
    }
    for n in 0..200 {
        let job = key(&format!("crowd{n}"));
        assert_eq!(ended[&job], Outcome::Exited { code: n });
        assert_eq!(texts(&rig.lines(&job), LogSource::Stdout), [n.to_string()]);
    }
}

#[tokio::test]
async fn a_remark_goes_into_the_log_of_a_running_job() {
    let mut rig = Rig::new();
    let key = rig.start(shell("a", "echo ready; sleep 600"));
    rig.started().await;
    rig.said(&key, "ready").await;
    rig.engine.remark(&key, "too much");
    rig.said(&key, "too much").await;
    let lines = rig.lines(&key);
    assert_eq!(texts(&lines, LogSource::System), ["too much"]);
    rig.engine.stop(&key, Span(0));
    rig.ended().await;
    rig.engine.remark(&key, "too late");
    assert_eq!(texts(&rig.lines(&key), LogSource::System), ["too much"]);
}

#[tokio::test]
async fn a_running_job_is_measured() {
    let mut rig = Rig::new();
    let script = "dd if=/dev/zero of=f bs=64k count=64 conv=fsync 2>/dev/null; echo written; sleep 600";
    let key = rig.start(shell("a", script));
    rig.started().await;
    rig.said(&key, "written").await;
    let stats = rig.engine.stats(&key).await.unwrap();
    assert!(stats.memory_bytes.is_some_and(|bytes| bytes.0 > 0), "{stats:?}");
    assert!(stats.cpu_ms.is_some(), "{stats:?}");
    // A folder in memory counts nothing, and some kernels count nothing at all.
    assert!(
        stats.io_bytes.is_none_or(|bytes| bytes.0 == 0 || bytes.0 >= 4 << 20),
        "{stats:?}"
    );
    rig.engine.stop(&key, Span(0));
    rig.ended().await;
    assert_eq!(rig.engine.stats(&key).await, None);
}
