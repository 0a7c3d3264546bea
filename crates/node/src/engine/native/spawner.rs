//! The spawner: a small process of one thread beside the agent, which forks a shim for each job.
//!
//! A fork of it costs a tenth of a millisecond; starting the agent's whole binary anew would cost ten times that.
//! The agent sends jobs' names over a socket, each with a number on a line; both come back with the end of the shim.
//! When the agent goes, the spawner goes; the shims stay.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::PathBuf,
};

use api::workload::JobKey;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, Signal, WaitOptions},
};
use serde::{Deserialize, Serialize};

use super::{shim, sys};
use crate::spool::Limits;

/// The hidden argument that makes the binary a spawner.
pub(super) const ARGUMENT: &str = "native-spawner";

/// What every shim has to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) run: PathBuf,
    pub(super) lease: PathBuf,
    pub(super) spool: PathBuf,
    pub(super) limits: Limits,
}

/// Serves the agent on standard input until it goes.
pub(super) fn serve(config: &Config) -> io::Result<()> {
    sys::close_inherited();
    // Out of the reach of the terminal's signals to the agent.
    let _ = rustix::process::setsid();
    let signals = sys::signal_file(&[Signal::CHILD, Signal::INT, Signal::TERM, Signal::HUP])?;
    let agent = io::stdin();
    let mut shims: HashMap<Pid, String> = HashMap::new();
    let mut input = Vec::new();
    loop {
        let mut fds = [PollFd::new(&agent, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let (asked, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if ended {
            let mut buffer = [0; 1024];
            let _ = rustix::io::read(&signals, &mut buffer);
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                let Some(job) = shims.remove(&pid) else { continue };
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => format!("signal {signal}"),
                    _ => "an unknown end".to_owned(),
                };
                say(&format!("{job} {how}\n"))?;
            }
        }
        if asked {
            let mut buffer = [0; 16 << 10];
            let count = match rustix::io::read(&agent, &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            input.extend_from_slice(&buffer[..count]);
            while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = input.drain(..=end).collect();
                let job = String::from_utf8_lossy(&line[..end]).into_owned();
                let key = job.split_once(' ').and_then(|(key, _)| key.parse::<JobKey>().ok());
                let Some(key) = key else { continue };
                match sys::fork() {
                    Ok(sys::Forked::Parent(pid)) => {
                        shims.insert(pid, job);
                    }
                    Ok(sys::Forked::Child) => {
                        drop(signals);
                        let code = match shim::run(config, &key) {
                            Ok(()) => 0,
                            Err(error) => shim::give_up(config, &key, &error),
                        };
                        sys::exit_now(code)
                    }
                    Err(error) => say(&format!("{job} no fork: {error}\n"))?,
                }
            }
        }
    }
}

/// Answers the agent: standard input is the socket.
fn say(line: &str) -> io::Result<()> {
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(io::stdin(), rest) {
            Ok(count) => rest = &rest[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    io::stdout().flush()
}
