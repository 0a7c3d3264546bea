//! Commands inside a running container.

use std::{future::pending, pin::Pin, time::Duration};

use api::{ApiError, ErrorCode, wire::ExecEvent, workload::LogSource};
use bollard::{
    container::LogOutput,
    errors::Error,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::daemon::{BackOff, Daemon, Kind, kind, words};
use crate::engine::Exec;

/// Messages that wait for a slow reader before the command's output is held up.
const QUEUE: usize = 64;

/// How long a command that is to be killed may take to show up.
const KILL_WITHIN: Duration = Duration::from_secs(10);

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Starts a command in a container.
pub(super) async fn start(daemon: &Daemon, container: &str, command: Vec<String>) -> Result<Exec, ApiError> {
    let refuse = |error: Error| match kind(&error) {
        Kind::Missing => ApiError::not_found("the job's container is gone"),
        Kind::Conflict => ApiError::conflict("the job doesn't run").cause(words(&error)),
        Kind::Refused => ApiError::invalid("command", words(&error)),
        Kind::Away => ApiError::new(ErrorCode::TimedOut, "the container engine doesn't answer").cause(words(&error)),
        Kind::Failed => ApiError::internal(words(&error)),
    };
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(command),
        ..Default::default()
    };
    let made = daemon.call(daemon.api().create_exec(container, options)).await;
    let id = made.map_err(refuse)?.id;
    let started = daemon
        .call(daemon.api().start_exec(&id, None::<StartExecOptions>))
        .await;
    let StartExecResults::Attached { output, input } = started.map_err(refuse)? else {
        return Err(ApiError::internal("the container engine didn't attach to the command"));
    };
    let (input_sender, input_receiver) = mpsc::channel(QUEUE);
    let (event_sender, event_receiver) = mpsc::channel(QUEUE);
    tokio::spawn(carry(daemon.clone(), id, (output, input), input_receiver, event_sender));
    Ok(Exec {
        input: input_sender,
        events: event_receiver,
    })
}

async fn carry(
    daemon: Daemon,
    id: String,
    (output, input): (Output, Input),
    commands: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<ExecEvent>,
) {
    let last = tokio::select! {
        // Who asked for it has gone.
        () = events.closed() => {
            kill(&daemon, &id).await;
            return;
        }
        () = feed(input, commands) => pending().await,
        code = finish(&daemon, &id, output, &events) => match code {
            Ok(code) => ExecEvent::Exited { code },
            Err(error) => ExecEvent::Failed {
                error: ApiError::internal("the container engine lost the command").cause(words(&error)),
            },
        },
    };
    let _ = events.send(last).await;
}

/// Hands input on to its end. Never returns.
async fn feed(mut input: Input, mut commands: mpsc::Receiver<Bytes>) {
    while let Some(data) = commands.recv().await {
        if data.is_empty() || input.write_all(&data).await.is_err() {
            break;
        }
    }
    let _ = input.shutdown().await;
    // The connection must stay open for the output.
    pending().await
}

/// Hands output on to its end, then learns the exit code.
async fn finish(daemon: &Daemon, id: &str, mut output: Output, events: &mpsc::Sender<ExecEvent>) -> Result<i32, Error> {
    while let Some(chunk) = output.next().await {
        let (source, message) = match chunk? {
            LogOutput::StdErr { message } => (LogSource::Stderr, message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => (LogSource::Stdout, message),
            LogOutput::StdIn { .. } => continue,
        };
        let data = message.to_vec();
        // A reader that has gone is noticed by the caller.
        let _ = events.send(ExecEvent::Output { source, data }).await;
    }
    let mut back_off = BackOff::new();
    loop {
        let inspect = daemon.call(daemon.api().inspect_exec(id)).await?;
        if inspect.running != Some(true)
            && let Some(code) = inspect.exit_code
        {
            return Ok(i32::try_from(code).unwrap_or(-1));
        }
        back_off.wait().await;
    }
}

/// Kills a command with its process group. Docker's API has no verb for it, so it is done from outside: possible
/// where the daemon's processes are visible to the agent and the agent may kill them.
async fn kill(daemon: &Daemon, id: &str) {
    let search = async {
        let mut back_off = BackOff::new();
        loop {
            match daemon.call(daemon.api().inspect_exec(id)).await {
                Ok(inspect) if inspect.running == Some(true) => {
                    let pid = inspect.pid.and_then(|pid| i32::try_from(pid).ok());
                    if let (Some(pid @ 1..), Some(container)) = (pid, inspect.container_id) {
                        kill_process_of(pid, &container);
                    }
                }
                // It hasn't begun, or it has ended: an exit code tells.
                Ok(inspect) if inspect.exit_code.is_some() => return,
                Ok(_) => {}
                Err(error) if kind(&error) == Kind::Missing => return,
                Err(_) => {}
            }
            back_off.wait().await;
        }
    };
    if tokio::time::timeout(KILL_WITHIN, search).await.is_err() {
        tracing::warn!(
            exec = id,
            "a command in a container couldn't be killed; it ends with its container"
        );
    }
}

/// Kills a process and its group if it belongs to the container: its number could mean another process here, where
/// the daemon lives in a machine of its own.
fn kill_process_of(pid: i32, container: &str) {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let Some(pid) = Pid::from_raw(pid).filter(|_| cgroup.contains(container)) else {
        return;
    };
    let killed = match getpgid(Some(pid)) {
        Ok(group) if group == pid => kill_process_group(pid, Signal::KILL),
        _ => kill_process(pid, Signal::KILL),
    };
    if let Err(error) = killed {
        tracing::debug!(pid = pid.as_raw_nonzero(), %error, "a command in a container can't be killed");
    }
}
