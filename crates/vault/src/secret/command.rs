//! A master key from another program: a key management service's client, a hardware token's, a script.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use zeroize::Zeroizing;

use super::MasterKey;
use super::key_text::{self, KeyTextError};

/// Longest time that a command may take, whatever it is given.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// Most bytes of a command's standard error that are told.
const ERRORS_MAX_BYTES: usize = 1024;

/// A program that prints a master key: in a key file's form, or 32 bytes in hex or base64.
///
/// It is started directly, by no shell, with nothing on its standard input, in a process group of its own that is
/// killed if it takes too long.
#[derive(Debug, Clone)]
pub struct KeyCommand {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// How long it may take; more than a day counts as a day.
    pub timeout: Duration,
}

/// A key command gave no key. What it printed on its standard output is never told.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It couldn't be started.
    #[error("the key command {program:?} couldn't be started")]
    Start {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// It wasn't done in time, and was killed.
    #[error("the key command {program:?} wasn't done within {timeout:?}")]
    Timeout {
        /// The program.
        program: OsString,
        /// How long it had.
        timeout: Duration,
    },
    /// It couldn't be watched or read from.
    #[error("the key command {program:?} couldn't be read from")]
    Io {
        /// The program.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// It failed.
    #[error("the key command {program:?} failed ({status}): {errors}")]
    Failed {
        /// The program.
        program: OsString,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it printed on its standard error, in one line; empty if nothing.
        errors: String,
    },
    /// It succeeded, and printed no key.
    #[error("the key command {program:?} printed no key")]
    Text {
        /// The program.
        program: OsString,
        /// What is wrong with its output.
        source: KeyTextError,
    },
}

impl KeyCommand {
    /// Runs the program and takes its key. Blocks until it has ended: off the threads of a runtime.
    ///
    /// # Errors
    /// It can't be started, takes too long, fails, or prints no key.
    pub fn run(&self) -> Result<MasterKey, CommandError> {
        let program = || self.program.clone();
        let deadline = Instant::now() + self.timeout.min(TIMEOUT_MAX);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| CommandError::Start {
                program: program(),
                source,
            })?;
        let output = child
            .stdout
            .take()
            .map(|pipe| read_start(pipe, key_text::MAX_BYTES + 1));
        let errors = child.stderr.take().map(|pipe| read_end(pipe, ERRORS_MAX_BYTES));
        let ended = outcome(&mut child, output, errors, deadline);
        if !matches!(ended, Ok(Some(_))) {
            kill(&mut child);
        }
        let (status, output, errors) = ended
            .map_err(|source| CommandError::Io {
                program: program(),
                source,
            })?
            .ok_or_else(|| CommandError::Timeout {
                program: program(),
                timeout: self.timeout,
            })?;
        if !status.success() {
            return Err(CommandError::Failed {
                program: program(),
                status,
                errors: one_line(&errors),
            });
        }
        key_text::read_any(&output).map_err(|source| CommandError::Text {
            program: program(),
            source,
        })
    }
}

type Bytes = Zeroizing<Vec<u8>>;

/// How a child ended and what it printed. `None`: not by the deadline.
fn outcome(
    child: &mut Child,
    output: Option<Receiver<io::Result<Bytes>>>,
    errors: Option<Receiver<io::Result<Bytes>>>,
    deadline: Instant,
) -> io::Result<Option<(ExitStatus, Bytes, Bytes)>> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let printed = |pipe: Option<Receiver<io::Result<Bytes>>>| match pipe.map(|p| p.recv_timeout(left())) {
        Some(Ok(bytes)) => bytes.map(Some),
        Some(Err(RecvTimeoutError::Timeout)) => Ok(None),
        Some(Err(RecvTimeoutError::Disconnected)) | None => Err(io::Error::other("its pipe is gone")),
    };
    let Some(output) = printed(output)? else {
        return Ok(None);
    };
    let Some(errors) = printed(errors)? else {
        return Ok(None);
    };
    // What has closed its pipes may still run.
    let pid = Pid::from_child(child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some((status, output, errors)));
        }
        let left = left();
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Ends a child and what it started.
fn kill(child: &mut Child) {
    // Not waited for yet, so that its id can't be another's. What fails here is dead.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}

/// Reads a pipe to its end on a thread, and keeps the first bytes.
fn read_start(mut pipe: impl Read + Send + 'static, most: usize) -> Receiver<io::Result<Bytes>> {
    collect(move |keep| {
        // Room for all of it at once: a buffer that grows leaves copies behind.
        keep.resize(most, 0);
        let mut length = 0;
        let mut rest = Zeroizing::new([0; 512]);
        loop {
            let into = if length < most {
                &mut keep[length..]
            } else {
                &mut rest[..]
            };
            match pipe.read(into) {
                Ok(0) => break,
                Ok(read) => length = (length + read).min(most),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        keep.truncate(length);
        Ok(())
    })
}

/// Reads a pipe to its end on a thread, and keeps the last bytes.
fn read_end(mut pipe: impl Read + Send + 'static, most: usize) -> Receiver<io::Result<Bytes>> {
    collect(move |keep| {
        let mut buffer = [0; 512];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    keep.extend_from_slice(&buffer[..read]);
                    let surplus = keep.len().saturating_sub(most);
                    keep.drain(..surplus);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    })
}

fn collect(read: impl FnOnce(&mut Vec<u8>) -> io::Result<()> + Send + 'static) -> Receiver<io::Result<Bytes>> {
    let (done, result) = mpsc::channel();
    // Ends with the pipe. Whoever keeps a pipe open past the deadline keeps only this thread.
    thread::spawn(move || {
        let mut keep = Zeroizing::new(Vec::new());
        let read = read(&mut keep);
        // Nobody waits any more after the deadline.
        let _ = done.send(read.map(|()| keep));
    });
    result
}

/// Text of a stranger's in one line, without control characters.
fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let words: Vec<&str> = text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    use super::*;

    fn shell(script: &str, timeout: Duration) -> KeyCommand {
        KeyCommand {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            timeout,
        }
    }

    /// Longer than any of these programs takes on the slowest machine.
    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn a_printed_key_is_taken() {
        let line = key_text::write(&MasterKey::of(7));
        for printed in [line.trim_end().to_owned(), "07".repeat(32)] {
            let key = shell(&format!("echo {printed}; echo fine >&2"), LONG).run().unwrap();
            assert_eq!(key.id(), MasterKey::of(7).id());
        }
    }

    #[test]
    fn failures_tell_standard_error_and_never_standard_output() {
        let hex = "07".repeat(32);
        let error = shell(
            &format!("echo {hex}; printf 'no\\n\\033[31m token\\n' >&2; exit 3"),
            LONG,
        )
        .run()
        .unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(
            matches!(error, CommandError::Failed { status, ref errors, .. }
            if status.code() == Some(3) && errors == "no [31m token"),
            "{text}"
        );
        for script in ["echo 0707-top-secret", "", "yes 0707 | head -c 100000"] {
            let error = shell(script, LONG).run().unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(matches!(error, CommandError::Text { .. }), "{text}");
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(!source.contains("0707"), "{source}");
        }
        let error = shell("kill -9 $$", LONG).run().unwrap_err();
        assert!(error.to_string().contains("signal"), "{error}");
    }

    #[test]
    fn the_last_of_a_long_standard_error_is_told() {
        let error = shell("seq 1 100000 >&2; exit 1", LONG).run().unwrap_err();
        let CommandError::Failed { errors, .. } = error else {
            panic!("{error}")
        };
        assert!(errors.ends_with("99999 100000"), "{errors}");
        assert!(errors.len() <= ERRORS_MAX_BYTES);
    }

    #[test]
    fn what_takes_too_long_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
        let held = OpenOptions::new().read(true).custom_flags(flags).open(&pipe).unwrap();
        // The grandchild holds the pipe open for writing, until it dies.
        let script = format!("sleep 1000 >{} & sleep 1000", pipe.display());
        let error = shell(&script, Duration::from_secs(1)).run().unwrap_err();
        assert!(matches!(error, CommandError::Timeout { .. }), "{error}");
        let mut ends = [PollFd::new(&held, PollFlags::IN)];
        let most = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut ends, Some(&most)).unwrap(), 1, "the grandchild lives");
        assert!(ends[0].revents().contains(PollFlags::HUP));
        // Closed pipes alone are no end.
        let error = shell("exec >&- 2>&-; sleep 1000", Duration::from_millis(100))
            .run()
            .unwrap_err();
        assert!(matches!(error, CommandError::Timeout { .. }), "{error}");
    }

    #[test]
    fn what_isnt_there_is_named() {
        let command = KeyCommand {
            program: "/no/such/program".into(),
            arguments: Vec::new(),
            timeout: LONG,
        };
        let error = command.run().unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
