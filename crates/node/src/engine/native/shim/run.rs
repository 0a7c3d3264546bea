//! One command of a job, from its start until nothing of it is left.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::SystemTime,
};

use api::{
    secret::SecretValue,
    workload::{LogSource, Outcome},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, WaitId, WaitIdOptions},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec},
};

use super::StartError;
use crate::{
    engine::native::{
        environment,
        lease::Lease,
        lines::Lines,
        proc::{self, Proc},
        record::{Records, Spec},
        sys,
    },
    mask::{Mask, Masker},
    spool::Writer,
};

/// Bytes that a signal file gives for each signal.
const SIGNAL: usize = size_of::<libc::signalfd_siginfo>();

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) cause: Cause,
}

/// What had been done to a command when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing.
    Itself,
    /// It was sent SIGTERM.
    Asked,
    /// It was sent SIGKILL.
    Killed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (_, Some(signal)) => write!(f, "signal {signal}"),
            _ => f.write_str("unknown end"),
        }
    }
}

/// A command under way.
struct Running {
    /// Leader of its process group. Not waited for before the group is dead, so that its number stays its own.
    main: Pid,
    end: Option<End>,
    cause: Cause,
    pipes: [Option<Pipe>; 2],
}

/// One of its output streams.
struct Pipe {
    fd: OwnedFd,
    source: LogSource,
    /// `None`: nothing must be hidden.
    masker: Option<Masker>,
    lines: Lines,
}

/// Runs a job's commands, one after the other.
pub(super) struct Runner<'a> {
    spec: &'a Spec,
    writer: Writer,
    signals: OwnedFd,
    timer: OwnedFd,
    records: Records,
    lease: Lease,
    /// When what runs is killed, in nanoseconds since the boot. `None`: nobody wants it to stop.
    kill_at_ns: Option<u64>,
    fenced: bool,
    /// Orders don't count any more: the last hook runs.
    after: bool,
    buffer: Vec<u8>,
    /// Variables that no file holds.
    secrets: Vec<(String, SecretValue)>,
    mask: Option<Arc<Mask>>,
    /// What came out of a masker.
    masked: Vec<u8>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        spec: &'a Spec,
        writer: Writer,
        signals: OwnedFd,
        records: Records,
        lease: Lease,
    ) -> io::Result<Self> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self {
            spec,
            writer,
            signals,
            timer,
            records,
            lease,
            kill_at_ns: None,
            fenced: false,
            after: false,
            buffer: vec![0; 64 << 10],
            secrets: Vec::new(),
            mask: None,
            masked: Vec::new(),
        })
    }

    /// Variables for all commands, and what must not be readable in their output.
    pub(super) fn keep_secret(&mut self, env: &[(String, SecretValue)], mask: Option<Arc<Mask>>) {
        let given = env.iter().filter(|(name, _)| !environment::is_own(name));
        self.secrets = given.cloned().collect();
        self.mask = mask;
    }

    /// Whether the lease ran out before the command ended.
    pub(super) fn fenced(&self) -> bool {
        self.fenced
    }

    /// Whether somebody or the lease wants it to stop.
    pub(super) fn stopping(&self) -> bool {
        self.kill_at_ns.is_some()
    }

    /// From here on only this limit counts, in nanoseconds from now.
    pub(super) fn begin_after(&mut self, limit_ns: u64) {
        self.after = true;
        self.kill_at_ns = Some(proc::boottime_ns().saturating_add(limit_ns));
        self.arm(self.kill_at_ns);
    }

    /// An outcome without what must not be readable.
    pub(super) fn hide(&self, outcome: Outcome) -> Outcome {
        match &self.mask {
            Some(mask) => mask.hide_in(outcome),
            None => outcome,
        }
    }

    /// Keeps a line of our own.
    pub(super) fn system(&mut self, text: &str) {
        let hidden = self.mask.as_ref().map(|mask| mask.hide(text));
        let text = hidden.as_deref().unwrap_or(text);
        // A full disk: the line's number stays taken, so that the hole is seen.
        let _ = self.writer.push(LogSource::System, now_ns(), text.as_bytes(), false);
    }

    /// Has all lines on disk.
    pub(super) fn flush(&mut self) {
        let _ = self.writer.flush();
    }

    /// Reads remarks, orders and lease, and sets the timer to what comes first.
    pub(super) fn look(&mut self) {
        if let Some(remark) = self.records.take_remark(&self.spec.job.job) {
            self.system(&remark);
        }
        if self.after {
            return;
        }
        if let Ok(Some(order)) = self.records.stop(&self.spec.job.job) {
            self.kill_at_ns = Some(self.kill_at_ns.map_or(order.kill_at_ns, |at| at.min(order.kill_at_ns)));
        }
        let mut next = self.kill_at_ns;
        if self.kill_at_ns.is_none()
            && let Some(deadline) = self.lease.read()
        {
            let now = proc::boottime_ns();
            if now >= deadline {
                self.fenced = true;
                self.kill_at_ns = Some(now.saturating_add(self.spec.job.grace.millis().saturating_mul(1_000_000)));
                next = self.kill_at_ns;
                self.system("stopped by the node itself: no word from the gateway for its whole grace period");
            } else {
                next = Some(deadline);
            }
        }
        self.arm(next);
    }

    fn arm(&self, at_ns: Option<u64>) {
        // Zero would switch it off, and a moment that has passed fires at once.
        let at = at_ns.map_or(0, |at| at.max(1));
        let time = Timespec {
            tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at % 1_000_000_000) as _,
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: time,
        };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec);
    }

    /// Runs a command until nothing of it is left.
    pub(super) fn run(
        &mut self,
        command: &[String],
        started: impl FnOnce(Proc) -> io::Result<()>,
    ) -> Result<End, StartError> {
        let mut running = self.spawn(command)?;
        let main = Proc::of(running.main.as_raw_pid()).unwrap_or(Proc {
            pid: running.main.as_raw_pid(),
            start: 0,
        });
        if let Err(error) = started(main) {
            self.system(&format!("the job's start couldn't be recorded: {error}"));
        }
        self.obey(&mut running);
        let end = loop {
            self.wait(&running);
            for i in 0..2 {
                self.pump(&mut running, i, false);
            }
            self.flush();
            self.obey(&mut running);
            if let Some(end) = self.bury(&mut running) {
                break end;
            }
        };
        for i in 0..2 {
            self.pump(&mut running, i, true);
        }
        self.flush();
        Ok(end)
    }

    fn spawn(&self, command: &[String]) -> Result<Running, StartError> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(StartError::invalid(
                "the native engine needs a command: the image 'host' has none of its own",
            ));
        };
        let program = find(name, &self.spec.env, &self.spec.workdir)?;
        let mut process = Command::new(&program);
        process
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(self.spec.env.iter().map(|(name, value)| (name, value)))
            .envs(
                self.secrets
                    .iter()
                    .map(|(name, value)| (name, OsStr::from_bytes(value.expose()))),
            )
            .current_dir(&self.spec.workdir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(cgroup) = &self.spec.cgroup {
            let doors = cgroup
                .doors()
                .map_err(|error| StartError::machine(format!("the job's cgroup can't be entered: {error}")))?;
            sys::enter_before_exec(&mut process, doors, None);
        }
        let mut child = process.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => {
                StartError::invalid(format!("'{name}' can't be run: {error}"))
            }
            _ if matches!(
                error.raw_os_error(),
                Some(libc::ENOEXEC | libc::E2BIG | libc::ENOTDIR | libc::ELOOP)
            ) =>
            {
                StartError::invalid(format!("'{name}' can't be run: {error}"))
            }
            _ => StartError::machine(format!("'{name}' can't be run: {error}")),
        })?;
        let pipe = |fd: Option<OwnedFd>, source| {
            let fd = fd?;
            rustix::io::ioctl_fionbio(&fd, true).ok()?;
            Some(Pipe {
                fd,
                source,
                masker: self.mask.clone().map(Masker::new),
                lines: Lines::default(),
            })
        };
        let pipes = [
            pipe(child.stdout.take().map(Into::into), LogSource::Stdout),
            pipe(child.stderr.take().map(Into::into), LogSource::Stderr),
        ];
        let main = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| StartError::machine("the kernel gave a process without a number"))?;
        Ok(Running {
            main,
            end: None,
            cause: Cause::Itself,
            pipes,
        })
    }

    /// Waits for output, a signal or the timer.
    fn wait(&mut self, running: &Running) {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
        ];
        for pipe in running.pipes.iter().flatten() {
            fds.push(PollFd::new(&pipe.fd, PollFlags::IN));
        }
        let _ = poll(&mut fds, None);
        let (signal, timer) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        drop(fds);
        let mut buffer = [0; SIGNAL * 8];
        let mut told = timer;
        if signal && let Ok(count) = rustix::io::read(&self.signals, &mut buffer) {
            // The signal's number comes first.
            let numbers = buffer[..count]
                .chunks_exact(SIGNAL)
                .filter_map(|info| info.first_chunk());
            told |= numbers
                .map(|n| u32::from_ne_bytes(*n))
                .any(|n| i64::from(n) == i64::from(Signal::USR1.as_raw()));
        }
        if timer {
            let _ = rustix::io::read(&self.timer, &mut buffer);
        }
        if told {
            self.look();
        }
    }

    /// Takes what a stream holds: one helping, or all of it at the end.
    fn pump(&mut self, running: &mut Running, i: usize, to_the_end: bool) {
        let Some(pipe) = &mut running.pipes[i] else { return };
        let (writer, source, masked) = (&mut self.writer, pipe.source, &mut self.masked);
        loop {
            let mut over = false;
            match rustix::io::read(pipe.fd.as_fd(), &mut self.buffer[..]) {
                Ok(0) => over = true,
                Ok(count) => {
                    let at = now_ns();
                    let bytes = match &mut pipe.masker {
                        None => &self.buffer[..count],
                        Some(masker) => {
                            masked.clear();
                            masker.push(&self.buffer[..count], masked);
                            &masked[..]
                        }
                    };
                    pipe.lines.push(bytes, |text, partial| {
                        // A full disk: the line's number stays taken, so that the hole is seen.
                        let _ = writer.push(source, at, text, partial);
                    });
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) if !to_the_end => return,
                Err(_) => over = true,
            }
            if over {
                if let Some(masker) = &mut pipe.masker {
                    masked.clear();
                    masker.finish(masked);
                    pipe.lines.push(masked, |text, partial| {
                        let _ = writer.push(source, now_ns(), text, partial);
                    });
                }
                pipe.lines.finish(|text, partial| {
                    let _ = writer.push(source, now_ns(), text, partial);
                });
                running.pipes[i] = None;
                return;
            }
            if !to_the_end {
                return;
            }
        }
    }

    /// Asks it to end or kills it, as orders and lease want it.
    fn obey(&mut self, running: &mut Running) {
        let Some(kill_at) = self.kill_at_ns else { return };
        if running.end.is_some() || running.cause == Cause::Killed {
            return;
        }
        if proc::boottime_ns() >= kill_at {
            running.cause = Cause::Killed;
            let _ = rustix::process::kill_process_group(running.main, Signal::KILL);
            if let Some(cgroup) = &self.spec.cgroup {
                cgroup.kill();
            }
        } else if running.cause == Cause::Itself && !self.after {
            running.cause = Cause::Asked;
            let _ = rustix::process::kill_process_group(running.main, Signal::TERM);
        }
    }

    /// Waits for children that have died. Once the command itself has, kills all that it left behind. Gives its end
    /// when nothing is left.
    fn bury(&mut self, running: &mut Running) -> Option<End> {
        loop {
            let pid = match sys::dead_child() {
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    let end = running.end?;
                    return self.cgroup_is_empty().then_some(end);
                }
                dead => dead.unwrap_or(None),
            };
            let Some(pid) = pid else { break };
            if pid == running.main {
                // Its number, and with it the group's, is its own until it is waited for.
                let _ = rustix::process::kill_process_group(running.main, Signal::KILL);
            }
            if let Ok(Some(status)) =
                rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
                && pid == running.main
            {
                running.end = Some(End {
                    code: status.exit_status(),
                    signal: status.terminating_signal(),
                    cause: running.cause,
                });
            }
        }
        running.end?;
        // Children that haven't been waited for keep their numbers; what they leave behind becomes our child.
        for child in proc::children(rustix::process::getpid().as_raw_pid()) {
            if let Some(pid) = Pid::from_raw(child) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        None
    }

    /// Kills those in the cgroup that aren't our children, and waits until they are gone.
    fn cgroup_is_empty(&self) -> bool {
        let Some(cgroup) = &self.spec.cgroup else { return true };
        loop {
            let handles = cgroup.kill();
            if handles.is_empty() && cgroup.processes().is_empty() {
                return true;
            }
            for handle in &handles {
                let _ = poll(&mut [PollFd::new(handle, PollFlags::IN)], None);
            }
        }
    }
}

fn now_ns() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The file that a command means, as a shell would find it.
pub(in crate::engine::native) fn find(
    name: &str,
    env: &[(String, String)],
    workdir: &Path,
) -> Result<PathBuf, StartError> {
    let path = env
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value);
    let executable =
        |file: &Path| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        let file = workdir.join(name);
        return match fs::metadata(&file) {
            Ok(_) if executable(&file) => Ok(file),
            Ok(_) => Err(StartError::invalid(format!(
                "'{name}' can't be run: it is no executable file"
            ))),
            Err(error) => Err(StartError::invalid(format!("command not found: '{name}' ({error})"))),
        };
    }
    path.split(':')
        .map(|folder| workdir.join(folder).join(name))
        .find(|file| executable(file))
        .ok_or_else(|| StartError::invalid(format!("command not found: '{name}' isn't in PATH ({path})")))
}
