//! Secrets of native jobs: where they are, and where they must not be.

use std::{
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    sync::{Mutex, OnceLock},
};

use api::{
    ApiError,
    secret::{SecretTarget, SecretUse, SecretValue},
};
use clawbernetes_node::secret::Secrets;

use super::*;

/// What must be found nowhere.
const CANARY: &str = "canary-that-sings-nowhere-7f3a";

/// All that this process logs, at the finest level.
fn logged() -> &'static Mutex<Vec<u8>> {
    static LOGGED: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOGGED.get_or_init(|| {
        struct Log;
        impl Write for Log {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                logged().lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(|| Log)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        Mutex::default()
    })
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|part| part == CANARY.as_bytes())
}

/// The files below a folder that hold the canary.
fn traces(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(traces(&path));
        } else if kind.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes)) {
            found.push(path);
        }
    }
    found
}

/// Neither on disk nor in a command line nor in the log.
fn no_traces(rig: &Rig) {
    assert_eq!(traces(rig.folder.path()), Vec::<PathBuf>::new());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!holds(&line), "{}", String::from_utf8_lossy(&line));
    }
    assert!(!holds(&logged().lock().unwrap()));
}

fn token(to: SecretTarget) -> SecretUse {
    SecretUse {
        secret: "token".to_owned(),
        key: None,
        to,
    }
}

fn env() -> SecretTarget {
    SecretTarget::Env("TOKEN".to_owned())
}

fn with(mut job: Assignment, targets: &[SecretTarget]) -> Assignment {
    job.secrets = targets.iter().cloned().map(token).collect();
    job
}

fn secrets(job: &Assignment, value: &str) -> Option<Arc<Secrets>> {
    let values = job
        .secrets
        .iter()
        .map(|_| SecretValue::from(value.to_owned()))
        .collect();
    Some(Arc::new(Secrets::resolve(&job.secrets, values, Vec::new()).unwrap()))
}

fn start(rig: &Rig, job: &Assignment, value: &str) -> JobKey {
    rig.engine.start(Arc::new(job.clone()), secrets(job, value));
    job.job.clone()
}

/// The canary as `tr a-z b-za` makes it: proof of its bytes that nobody masks.
fn turned(text: &str) -> String {
    let turn = |c: char| match c {
        'z' => 'a',
        'a'..='y' => char::from(c as u8 + 1),
        other => other,
    };
    text.chars().map(turn).collect()
}

async fn exec(rig: &Rig, job: &JobKey, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let mut exec = rig.engine.exec(job, command).await.unwrap();
    let mut output = Vec::new();
    loop {
        match exec.events.recv().await.unwrap() {
            ExecEvent::Output { data, .. } => output.extend(data),
            ExecEvent::Exited { code: 0 } => return String::from_utf8(output).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_secret_is_in_the_job_and_nowhere_else() {
    drop(logged().lock());
    tracing::trace!("it is listened to");
    let mut rig = Rig::new();
    let script = "printf %s \"$TOKEN\" | tr a-z b-za; echo; echo \"it is $TOKEN!\"; printf %s \"$TOKEN\" | base64 >&2; \
                  echo up; while :; do sleep 0.05; done";
    let mut job = with(shell("canary", script), &[env()]);
    job.hooks = Some(Hooks {
        pre_start: ["sh", "-c", "echo pre $TOKEN"].map(str::to_owned).to_vec(),
        post_stop: ["sh", "-c", "echo post $TOKEN"].map(str::to_owned).to_vec(),
    });
    let key = start(&rig, &job, CANARY);
    rig.started().await;
    rig.said(&key, "up").await;
    no_traces(&rig);
    assert_eq!(
        exec(&rig, &key, "printf %s \"$TOKEN\" | tr a-z b-za").await,
        turned(CANARY)
    );
    // The next life of the agent finds it with all that it has.
    let mut rig = rig.crash();
    let (found, leftovers) = rig.engine.adopt().await;
    assert_eq!((found.len(), leftovers), (1, Vec::<String>::new()));
    assert!(!found[0].wants_secrets, "its shim has them");
    rig.engine.stop(&key, Span::secs(10));
    assert_eq!(rig.ended().await, Outcome::Signaled { signal: 15 });
    let lines = rig.lines(&key);
    let stdout = texts(&lines, LogSource::Stdout);
    assert_eq!(stdout, ["pre ***", &turned(CANARY), "it is ***!", "up", "post ***"]);
    assert_eq!(texts(&lines, LogSource::Stderr), ["***"]);
    no_traces(&rig);
    // What is there is found.
    assert!(!logged().lock().unwrap().is_empty());
    std::fs::write(rig.path("data/run/control"), format!("x{CANARY}x")).unwrap();
    assert_eq!(traces(rig.folder.path()), [rig.path("data/run/control")]);
}

#[tokio::test]
async fn output_is_masked_wherever_it_is_cut() {
    let mut rig = Rig::new();
    // In two writes, and over the place where a long line is cut.
    let script = "printf \"${TOKEN%3a}\"; sleep 0.1; echo 3a; head -c 65530 /dev/zero | tr '\\0' x; echo $TOKEN; printf \"${TOKEN%a}\"";
    let job = with(shell("cut", script), &[env()]);
    let key = start(&rig, &job, CANARY);
    assert_eq!(rig.ended().await, EXITED);
    let lines = rig.lines(&key);
    let texts = texts(&lines, LogSource::Stdout);
    assert_eq!(texts[0], "***");
    assert_eq!(texts[1], format!("{}***", "x".repeat(65_530)));
    assert_eq!(
        texts[2..],
        [CANARY.strip_suffix('a').unwrap()],
        "the beginning of one is none"
    );
}

#[tokio::test]
async fn a_file_is_in_memory_the_users_own_and_gone_afterwards() {
    let mut rig = Rig::new();
    let path = rig.path("etc/app/token");
    if !rustix::process::geteuid().is_root() {
        let file = SecretTarget::File(path.to_str().unwrap().to_owned());
        start(&rig, &with(shell("file", "true"), &[file]), CANARY);
        let outcome = rig.ended().await;
        assert!(start_failed(&outcome).1.contains("isn't root"), "{outcome:?}");
        eprintln!("skipped: mounts need root");
        return;
    }
    let there = rig.path("there");
    std::fs::write(&there, "the node's own").unwrap();
    let script = format!(
        "f={}; stat -c '%a %u %F' $f; stat -f -c %T $f; tr a-z b-za < $f; echo; tr a-z b-za < {}; echo; cat $f; echo; \
         (echo no > $f) && echo open; echo up; while :; do sleep 0.05; done",
        path.display(),
        there.display()
    );
    let file = |path: &Path| SecretTarget::File(path.to_str().unwrap().to_owned());
    let job = with(shell("file", &script), &[file(&path), file(&there)]);
    let key = start(&rig, &job, CANARY);
    // Another job with a file in the same place, which ends before.
    let other = with(shell("other", "true"), &[file(&path)]);
    rig.started().await;
    rig.said(&key, "up").await;
    assert_eq!(
        rig.path("etc/app/token").metadata().unwrap().len(),
        0,
        "for the job alone"
    );
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "the node's own");
    start(&rig, &other, "another-value");
    assert_eq!(rig.ended().await, EXITED);
    no_traces(&rig);
    let script = format!("tr a-z b-za < {}", path.display());
    assert_eq!(exec(&rig, &key, &script).await, turned(CANARY));
    rig.engine.stop(&key, Span(0));
    assert_eq!(rig.ended().await, Outcome::Signaled { signal: 9 });
    let lines = rig.lines(&key);
    let stdout = texts(&lines, LogSource::Stdout);
    let turned = turned(CANARY);
    assert_eq!(stdout[0], "400 0 regular file");
    assert!(["ramfs", "tmpfs"].contains(&stdout[1]), "{stdout:?}");
    assert_eq!(stdout[2..5], [&*turned, &*turned, "***"]);
    assert_eq!(stdout[5], "up", "nobody writes to it");
    assert!(!path.exists() && !rig.path("etc").exists(), "its place is as it was");
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "the node's own");
    assert_eq!(std::fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o644);
    no_traces(&rig);
}

#[tokio::test]
async fn where_a_file_cant_be_the_job_doesnt_start() {
    let mut rig = Rig::new();
    let folder = rig.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let job = with(
        shell("blocked", "echo never"),
        &[SecretTarget::File(folder.to_str().unwrap().to_owned())],
    );
    start(&rig, &job, CANARY);
    let outcome = rig.ended().await;
    let (code, message, retryable) = start_failed(&outcome);
    assert_eq!((code, retryable), (ErrorCode::InvalidArgument, false));
    assert!(message.contains(folder.to_str().unwrap()), "{message}");

    let mut job = with(shell("hook", "echo never"), &[env()]);
    job.hooks = Some(Hooks {
        pre_start: ["sh", "-c", &format!("exit 3 # {}", turned("hidden"))]
            .map(str::to_owned)
            .to_vec(),
        post_stop: Vec::new(),
    });
    let key = start(&rig, &job, &turned("hidden"));
    let outcome = rig.ended().await;
    assert!(start_failed(&outcome).1.contains("exit 3 # ***"), "{outcome:?}");
    assert!(rig.lines(&key)[0].text.contains("exit 3 # ***"));
}

#[tokio::test]
async fn big_secrets_and_many_jobs_get_their_own() {
    let mut rig = Rig::new();
    let mut wanted = BTreeMap::new();
    for n in 0..12 {
        // More than a pipe holds, but not more than an environment may.
        let value = format!("{n}-").repeat(30_000);
        let job = with(shell(&format!("many{n}"), "echo ${#TOKEN}"), &[env()]);
        wanted.insert(start(&rig, &job, &value), value.len().to_string());
    }
    for _ in 0..wanted.len() {
        assert_eq!(rig.ended().await, EXITED);
    }
    for (job, length) in wanted {
        assert_eq!(texts(&rig.lines(&job), LogSource::Stdout), [length]);
    }
}

/// An engine's life that ended after it had accepted a job, and before the job had a shim.
async fn interrupted(job: &Assignment) -> Rig {
    let folder = Folder::new();
    let helper = folder.path().join("deaf");
    std::fs::write(&helper, "#!/bin/sh\nexec cat\n").unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let rig = Rig::with(folder, |config| config.helper = Some(helper));
    let key = start(&rig, job, CANARY);
    let spec = rig.path(&format!("data/run/{key}.spec"));
    while !spec.exists() {
        tokio::task::yield_now().await;
    }
    no_traces(&rig);
    rig.crash()
}

#[tokio::test]
async fn a_job_that_was_accepted_and_not_begun_waits_for_its_secrets() {
    let job = with(shell("again", "echo $TOKEN up"), &[env()]);
    let key = job.job.clone();
    let mut rig = interrupted(&job).await;
    let (found, _) = rig.engine.adopt().await;
    assert!(found[0].wants_secrets && found[0].ended.is_none(), "{found:?}");
    let answer = secrets(&job, CANARY).unwrap();
    rig.engine.secrets(&key, Ok(Arc::clone(&answer)));
    rig.engine.secrets(&key, Ok(answer));
    rig.started().await;
    assert_eq!(rig.ended().await, EXITED);
    assert_eq!(texts(&rig.lines(&key), LogSource::Stdout), ["*** up"]);
    assert!(rig.events.try_recv().is_err());

    let mut rig = interrupted(&job).await;
    rig.engine.adopt().await;
    rig.engine.secrets(&key, Err(ApiError::not_found("no such secret")));
    let outcome = rig.ended().await;
    assert_eq!(start_failed(&outcome), (ErrorCode::NotFound, "no such secret", false));

    let mut rig = interrupted(&job).await;
    rig.engine.adopt().await;
    rig.engine.stop(&key, Span(0));
    let outcome = rig.ended().await;
    assert_eq!(start_failed(&outcome).1, "stopped before it started");
    // Told too late.
    rig.engine.secrets(&key, Err(ApiError::not_found("no such secret")));
    assert!(rig.events.try_recv().is_err());
}
