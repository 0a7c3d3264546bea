//! The spawner: a small process of one thread beside the agent, which forks a shim for each job.
//!
//! A fork of it costs a tenth of a millisecond; starting the agent's whole binary anew would cost ten times that.
//! The agent sends jobs' names over a socket, each with a number on a line; both come back with the end of the shim. With
//! the name of a job that uses secrets comes a pipe, which is handed to its shim unread.
//! When the agent goes, the spawner goes; the shims stay.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice, IoSliceMut, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use api::workload::JobKey;
use rustix::{
    event::{PollFd, PollFlags, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        recvmsg, sendmsg,
    },
    process::{Pid, Signal, WaitOptions},
};
use serde::{Deserialize, Serialize};

use super::{shim, sys};
use crate::spool::Limits;

/// The hidden argument that makes the binary a spawner.
pub(super) const ARGUMENT: &str = "native-spawner";

/// The word on a job's line that says that a pipe came with it.
const SECRETS: &str = "secrets";

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
    // In the order of the lines that they belong to.
    let mut pipes = VecDeque::new();
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
            let count = match receive(agent.as_fd(), &mut buffer, &mut pipes) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
                Err(error) => return Err(error.into()),
            };
            input.extend_from_slice(&buffer[..count]);
            while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = input.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line[..end]);
                let mut words = line.split(' ');
                let (Some(key), Some(number), more) = (words.next(), words.next(), words.next()) else {
                    continue;
                };
                // Closed here as soon as the shim has it.
                let secrets = if more == Some(SECRETS) { pipes.pop_front() } else { None };
                let job = format!("{key} {number}");
                let Ok(key) = key.parse::<JobKey>() else { continue };
                match sys::fork() {
                    Ok(sys::Forked::Parent(pid)) => {
                        shims.insert(pid, job);
                    }
                    Ok(sys::Forked::Child) => {
                        drop(signals);
                        // Other jobs'.
                        pipes.clear();
                        let code = match shim::run(config, &key, secrets) {
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

/// The agent's side: sends a job's name and number, with a pipe that holds its secrets if it uses any. Gives the rest of
/// the line, which is sent without it.
pub(super) fn send(socket: impl AsFd, job: &JobKey, number: u64, secrets: Option<&OwnedFd>) -> io::Result<Vec<u8>> {
    let line = match secrets {
        Some(_) => format!("{job} {number} {SECRETS}\n"),
        None => format!("{job} {number}\n"),
    };
    let fds = secrets.map(|pipe| [pipe.as_fd()]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if let Some(fds) = &fds {
        // There is room for it.
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(line.as_bytes())],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(line.into_bytes().split_off(sent))
}

/// Reads what the agent says, and takes the pipes that come with it.
fn receive(
    agent: std::os::fd::BorrowedFd<'_>,
    buffer: &mut [u8],
    pipes: &mut VecDeque<OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let count = recvmsg(agent, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            pipes.extend(fds);
        }
    }
    Ok(count)
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
