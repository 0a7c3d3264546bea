//! The shim: a small process beside each job that outlives the agent. It starts the job's command, keeps its
//! output, stops it when told or when the lease runs out, kills what it leaves behind, and writes down how it ended.

mod run;

use std::{fs, io, os::fd::OwnedFd, sync::Arc, time::Duration};

use api::{
    ErrorCode, Size, Timestamp,
    workload::{JobKey, Outcome, Usage},
};
use rustix::process::Signal;

pub(super) use self::run::find;
use self::run::{Cause, End, Runner};
use super::{
    delivery, files,
    lease::Lease,
    proc::Proc,
    record::{Records, Spec, Step},
    spawner::Config,
    sys, volumes,
};
use crate::{mask::Mask, secret::Secrets, spool::Writer};

/// Longest run of a `postStop` hook, in nanoseconds: it holds the job's GPUs.
const POST_STOP_MAX_NS: u64 = 30_000_000_000;

/// How often, and how far apart, a shim tries to write down the end of its job.
const END_TRIES: u32 = 600;
const END_PAUSE: Duration = Duration::from_secs(1);

/// Carries a job out, in a process of its own. `secrets` is a pipe that holds what it gets of them.
pub(super) fn run(config: &Config, job: &JobKey, secrets: Option<OwnedFd>) -> io::Result<()> {
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    close_stdio()?;
    let signals = sys::signal_file(&[Signal::CHILD, Signal::USR1, Signal::INT, Signal::HUP])?;
    let records = Records::open(config.run.clone())?;
    let spec = records.spec(job)?;
    let own = Proc::own().ok_or(io::ErrorKind::NotFound)?;
    let Some(mut state) = records.claim_to_run(job, &Step::Shim(own))? else {
        return Ok(());
    };
    let writer = Writer::fresh(&config.spool, config.limits, job);
    // An agent that died before all of it was written leaves nothing; that is said below.
    let secrets = secrets.and_then(|pipe| delivery::read(pipe).ok());
    let mut runner = Runner::new(&spec, writer, signals, records, Lease::at(config.lease.clone()))?;
    let outcome = match admit(&mut runner, &spec, secrets) {
        Ok(files) => {
            let outcome = carry_out(&mut runner, &spec, |step| state.push(step));
            files.remove();
            runner.hide(outcome)
        }
        Err(error) => error.into_outcome(),
    };
    runner.flush();
    let usage = usage(&spec);
    if let Some(cgroup) = &spec.cgroup {
        cgroup.remove();
    }
    let end = Step::Ended {
        at: Timestamp::now(),
        outcome,
        usage,
        fenced: runner.fenced(),
    };
    // A full disk may have room again in a while, and nobody else knows how the job ended.
    let mut result = state.push(&end);
    for _ in 0..END_TRIES {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(END_PAUSE);
        result = state.push(&end);
    }
    result
}

/// Records that a shim failed before it could claim its job, as far as that is still possible.
pub(super) fn give_up(config: &Config, job: &JobKey, error: &io::Error) -> i32 {
    let step = Step::Ended {
        at: Timestamp::now(),
        outcome: start_failed(ErrorCode::Internal, format!("the job's shim failed: {error}"), true),
        usage: Usage::default(),
        fenced: false,
    };
    // Claimed already: then the agent finds it unfinished.
    let _ = Records::open(config.run.clone()).and_then(|records| records.claim(job, &step));
    1
}

/// Standard input, output and error lead nowhere: the socket of the spawner and the agent's terminal stay theirs.
fn close_stdio() -> io::Result<()> {
    let null: OwnedFd = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?.into();
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Makes the job's place, with its volumes and secrets.
fn admit(runner: &mut Runner<'_>, spec: &Spec, secrets: Option<Secrets>) -> Result<files::Placed, StartError> {
    let secrets = match secrets {
        Some(secrets) => {
            // Nobody else reads this process's memory, and no core file holds it.
            let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
            secrets
        }
        None if spec.job.secrets.is_empty() => Secrets::default(),
        None => {
            runner.look();
            return Err(if runner.stopping() {
                stopped_early()
            } else {
                StartError::machine("its secrets didn't reach it: the agent ended while it was started")
            });
        }
    };
    prepare(spec).map_err(|error| StartError::machine(format!("the job's place couldn't be made: {error}")))?;
    volumes::mount_all(&spec.job.volumes, &spec.workdir)?;
    let mask = Mask::new(secrets.mask())
        .map_err(|error| StartError::machine(format!("its secrets can't be kept out of its output: {error}")))?;
    let files = files::place(secrets.files(), &spec.workdir)?;
    runner.keep_secret(secrets.env(), mask.map(Arc::new));
    Ok(files)
}

fn carry_out(runner: &mut Runner<'_>, spec: &Spec, mut tell: impl FnMut(&Step) -> io::Result<()>) -> Outcome {
    let hooks = spec.job.hooks.clone().unwrap_or_default();
    runner.look();
    if !hooks.pre_start.is_empty() && !runner.stopping() {
        let end = runner.run(&hooks.pre_start, |_| Ok(()));
        match end {
            Ok(End { code: Some(0), .. }) => {}
            _ if runner.stopping() => {}
            Ok(end) => {
                let message = format!("the preStart hook '{}' failed: {end}", hooks.pre_start.join(" "));
                runner.system(&message);
                return start_failed(ErrorCode::InvalidArgument, message, false);
            }
            Err(error) => {
                let message = format!("the preStart hook can't be run: {}", error.message);
                return start_failed(error.code, message, error.retryable);
            }
        }
    }
    if runner.stopping() {
        return stopped_early().into_outcome();
    }
    let end = match runner.run(&spec.job.command, |main| {
        tell(&Step::Started {
            at: Timestamp::now(),
            main,
        })
    }) {
        Ok(end) => end,
        Err(error) => return error.into_outcome(),
    };
    let outcome = judge(runner, spec, end);
    if !hooks.post_stop.is_empty() {
        runner.begin_after(POST_STOP_MAX_NS);
        match runner.run(&hooks.post_stop, |_| Ok(())) {
            Ok(End { code: Some(0), .. }) => {}
            Ok(end) => runner.system(&format!("the postStop hook failed: {end}")),
            Err(error) => runner.system(&format!("the postStop hook can't be run: {}", error.message)),
        }
    }
    outcome
}

fn prepare(spec: &Spec) -> io::Result<()> {
    fs::create_dir_all(&spec.workdir)?;
    match &spec.cgroup {
        Some(cgroup) => cgroup.create(spec.job.memory, spec.job.cpu),
        None => Ok(()),
    }
}

/// Only the kernel's own count makes it out-of-memory, and only if the command itself fell to a SIGKILL that isn't
/// ours; where just a part of it did, a line in the log says so.
fn judge(runner: &mut Runner<'_>, spec: &Spec, end: End) -> Outcome {
    let kills = spec.cgroup.as_ref().map_or(0, super::cgroup::Cgroup::oom_kills);
    let killed = end.signal == Some(9) || end.code == Some(137);
    if kills > 0 && killed && end.cause != Cause::Killed {
        return Outcome::OomKilled {
            limit_bytes: spec.job.memory,
            peak_bytes: usage(spec).memory_peak_bytes,
        };
    }
    if kills > 0 {
        let limit = spec
            .job
            .memory
            .map_or(String::new(), |limit| format!(" (limit {limit})"));
        runner.system(&format!(
            "the kernel killed {kills} of its processes for want of memory{limit}"
        ));
    }
    match (end.code, end.signal) {
        (Some(code), _) => Outcome::Exited { code },
        (None, Some(signal)) => Outcome::Signaled { signal },
        (None, None) => Outcome::Unknown {
            why: "the kernel gave neither exit code nor signal".to_owned(),
        },
    }
}

fn usage(spec: &Spec) -> Usage {
    let (cpu_ms, resident_bytes) = sys::children_usage();
    let cgroup = spec.cgroup.as_ref();
    Usage {
        cpu_ms: Some(cgroup.and_then(super::cgroup::Cgroup::cpu_ms).unwrap_or(cpu_ms)),
        memory_peak_bytes: Some(Size(
            cgroup
                .and_then(super::cgroup::Cgroup::memory_peak_bytes)
                .unwrap_or(resident_bytes),
        )),
    }
}

/// Why something couldn't be started.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    pub(super) retryable: bool,
}

impl StartError {
    /// What was asked for can't be.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::InvalidArgument,
            message: message.into(),
            retryable: false,
        }
    }

    /// The machine failed; another try may help.
    pub(super) fn machine(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Internal,
            message: message.into(),
            retryable: true,
        }
    }

    pub(super) fn into_outcome(self) -> Outcome {
        start_failed(self.code, self.message, self.retryable)
    }
}

fn stopped_early() -> StartError {
    StartError {
        code: ErrorCode::Conflict,
        message: "stopped before it started".to_owned(),
        retryable: false,
    }
}

fn start_failed(code: ErrorCode, message: String, retryable: bool) -> Outcome {
    Outcome::StartFailed {
        code,
        message,
        retryable,
    }
}
