//! Commands that people run inside a job.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    process::Stdio,
};

use api::{
    ApiError, ErrorCode,
    secret::{SecretTarget, SecretValue},
    wire::ExecEvent,
    workload::LogSource,
};
use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{environment, proc::Proc, record::Spec, shim, sys};
use crate::engine::Exec;

/// Messages in flight in each direction before the other side has to wait.
const QUEUE: usize = 16;
/// Bytes of output in one message at most.
const CHUNK: usize = 32 << 10;

/// The commands that run in one job.
#[derive(Debug, Clone, Default)]
pub(super) struct Execs {
    end: CancellationToken,
    tasks: TaskTracker,
}

impl Execs {
    /// Whether any runs.
    pub(super) fn any(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Kills them all and waits until they are gone.
    pub(super) async fn kill(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Starts a command with the job's environment, folder, cgroup and mounts. `main` is the job's own process.
    pub(super) fn begin(&self, spec: &Spec, main: Proc, command: &[String]) -> Result<Exec, ApiError> {
        let child = spawn(spec, main, command)?;
        let (input, stdin) = mpsc::channel(QUEUE);
        let (sender, events) = mpsc::channel(QUEUE);
        let end = self.end.clone();
        self.tasks.spawn(serve(child, stdin, sender, end));
        Ok(Exec { input, events })
    }
}

fn spawn(spec: &Spec, main: Proc, command: &[String]) -> Result<Child, ApiError> {
    let (name, arguments) = command
        .split_first()
        .ok_or_else(|| ApiError::invalid("command", "there is no command to run"))?;
    let failed = |what: &str, error: io::Error| ApiError::internal(what.to_owned()).cause(error.to_string());
    let program =
        shim::find(name, &spec.env, &spec.workdir).map_err(|error| ApiError::new(error.code, error.message))?;
    let secrets = secrets(spec, main).map_err(|error| failed("the job's environment can't be read", error))?;
    let mut process = std::process::Command::new(&program);
    process
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .envs(
            secrets
                .iter()
                .map(|(name, value)| (name, OsStr::from_bytes(value.expose()))),
        )
        .current_dir(&spec.workdir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let doors = match &spec.cgroup {
        Some(cgroup) => cgroup
            .doors()
            .map_err(|error| failed("the job's cgroup can't be entered", error))?,
        None => Vec::new(),
    };
    let inside = mounts(main).map_err(|error| failed("the job's mounts can't be entered", error))?;
    let workdir = CString::new(spec.workdir.as_os_str().as_bytes()).unwrap_or_default();
    if !doors.is_empty() || inside.is_some() {
        sys::enter_before_exec(&mut process, doors, inside.map(|namespace| (namespace, workdir)));
    }
    Command::from(process).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
            ApiError::new(ErrorCode::InvalidArgument, format!("'{name}' can't be run: {error}"))
        }
        _ => failed(&format!("'{name}' can't be run"), error),
    })
}

/// The variables with secrets that a job began with: of its own process alone, since nobody else has kept them. Those
/// that it has overwritten are missing.
fn secrets(spec: &Spec, main: Proc) -> io::Result<Vec<(String, SecretValue)>> {
    let mut names = spec.job.secrets.iter().filter_map(|entry| match &entry.to {
        SecretTarget::Env(name) if !environment::is_own(name) => Some(name),
        SecretTarget::Env(_) | SecretTarget::File(_) => None,
    });
    let Some(first) = names.next() else {
        return Ok(Vec::new());
    };
    let environ = SecretValue::from(std::fs::read(format!("/proc/{}/environ", main.pid))?);
    // Read by number: it must have been the job's own process that had it.
    if Proc::of(main.pid) != Some(main) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let value = |name: &String| {
        let mut all = environ.expose().split(|byte| *byte == 0);
        let value = all.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some((name.clone(), SecretValue::from(value.to_vec())))
    };
    Ok(std::iter::once(first).chain(names).filter_map(value).collect())
}

/// The mount namespace of a job that has one of its own.
fn mounts(main: Proc) -> io::Result<Option<OwnedFd>> {
    let theirs = File::open(format!("/proc/{}/ns/mnt", main.pid))?;
    // Opened by number: it must have been the job's own process that had it.
    if Proc::of(main.pid) != Some(main) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let own = std::fs::metadata("/proc/self/ns/mnt")?;
    Ok((theirs.metadata()?.ino() != own.ino()).then(|| theirs.into()))
}

/// Moves bytes until the command has ended, or nobody wants it any more.
async fn serve(
    mut child: Child,
    mut input: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<ExecEvent>,
    end: CancellationToken,
) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut stdin = child.stdin.take();
    let feed = async move {
        while let Some(data) = input.recv().await {
            let Some(pipe) = stdin.as_mut().filter(|_| !data.is_empty()) else {
                break;
            };
            if pipe.write_all(&data).await.is_err() {
                break;
            }
        }
        drop(stdin);
        std::future::pending::<()>().await;
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let copy = async {
        tokio::join!(
            forward(stdout, LogSource::Stdout, &events),
            forward(stderr, LogSource::Stderr, &events)
        )
    };
    tokio::pin!(feed, copy);
    let mut copied = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break Some(status),
            _ = &mut copy, if !copied => copied = true,
            () = &mut feed => {}
            () = events.closed() => break None,
            () = end.cancelled() => break None,
        }
    };
    let status = match status {
        Some(status) => status,
        None => {
            // Not waited for yet, so that the number is its own.
            if let Some(group) = group {
                let _ = kill_process_group(group, Signal::KILL);
            }
            child.wait().await
        }
    };
    if !copied {
        // What the command left running in the background may hold the pipes for ever: what is there now is enough
        // once nobody can be killed any more, and a reader that has gone ends it too.
        tokio::select! {
            _ = &mut copy => {}
            () = events.closed() => {}
            () = end.cancelled() => {}
        }
    }
    let event = match status {
        Ok(status) => {
            let signal = std::os::unix::process::ExitStatusExt::signal(&status);
            let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(-1);
            ExecEvent::Exited { code }
        }
        Err(error) => ExecEvent::Failed {
            error: ApiError::internal("its end can't be learnt").cause(error.to_string()),
        },
    };
    // Nobody listens any more: then nobody needs to know.
    let _ = events.send(event).await;
}

async fn forward(stream: Option<impl AsyncRead + Unpin>, source: LogSource, events: &mpsc::Sender<ExecEvent>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let data = buffer[..count].to_vec();
        if events.send(ExecEvent::Output { source, data }).await.is_err() {
            return;
        }
    }
}
