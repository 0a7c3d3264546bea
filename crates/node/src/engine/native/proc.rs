//! What `/proc` says about processes.

use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that can be told from a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Proc {
    pub(super) pid: i32,
    /// Start time in clock ticks since the boot.
    pub(super) start: u64,
}

/// Some fields of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) state: char,
    pub(super) parent: i32,
    pub(super) group: i32,
    /// CPU time of it and the children that it waited for, in clock ticks.
    pub(super) cpu_ticks: u64,
    pub(super) start: u64,
    pub(super) resident_pages: u64,
}

impl Stat {
    /// Reads the text of a stat file. The command's name may hold anything, parentheses and newlines included.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
        Some(Self {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            cpu_ticks: number(11)? + number(12)? + number(13)? + number(14)?,
            start: number(19)?,
            resident_pages: number(21)?,
        })
    }

    /// Of a process. `None`: there is none of this number.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }
}

impl Proc {
    /// The process of this number. `None`: there is none.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let start = Stat::of(pid)?.start;
        Some(Self { pid, start })
    }

    /// This process.
    pub(super) fn own() -> Option<Self> {
        Self::of(rustix::process::getpid().as_raw_pid())
    }

    /// A handle on it that no later process can stand behind. `None`: it has gone, or is dead and not yet buried.
    pub(super) fn open(self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number was the process's own when the handle was made, or the start time differs.
        let same = Stat::of(self.pid).is_some_and(|stat| stat.start == self.start && !matches!(stat.state, 'Z' | 'X'));
        Ok(same.then_some(fd))
    }

    /// Sends it a signal, if it is still there.
    pub(super) fn signal(self, signal: Signal) -> io::Result<bool> {
        match self.open()? {
            None => Ok(false),
            Some(fd) => match pidfd_send_signal(&fd, signal) {
                Ok(()) => Ok(true),
                Err(rustix::io::Errno::SRCH) => Ok(false),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// The children of a process, as far as the kernel lists them.
pub(super) fn children(pid: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for task in tasks.flatten() {
        if let Ok(text) = fs::read_to_string(task.path().join("children")) {
            found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found
}

/// The children of a process, their children, and so on.
pub(super) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut at = 0;
    while let Some(next) = found.get(at).copied() {
        found.extend(children(next));
        at += 1;
    }
    found
}

/// What a process has read from and written to disks, with its children that have ended and were waited for. `None`:
/// the kernel doesn't say, or not to us.
pub(super) fn io_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let number = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok())
    };
    Some(number("read_bytes:")?.saturating_add(number("write_bytes:")?))
}

/// All processes.
pub(super) fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Identifies this boot of the machine; empty where the kernel doesn't say.
pub(in crate::engine) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Nanoseconds since the boot, sleep included.
pub(in crate::engine) fn boottime_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let text =
            "12 (a) b (c)) S 1 77 77 0 -1 4194560 100 0 0 0 5 6 7 8 20 0 1 0 424242 1000 25 18446744073709551615";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                state: 'S',
                parent: 1,
                group: 77,
                cpu_ticks: 26,
                start: 424_242,
                resident_pages: 25
            }
        );
        assert_eq!(Stat::parse("12 (a"), None);
    }

    #[test]
    fn a_number_with_another_start_time_is_another_process() {
        let own = Proc::own().unwrap();
        assert!(own.open().unwrap().is_some());
        let other = Proc {
            start: own.start + 1,
            ..own
        };
        assert!(other.open().unwrap().is_none());
    }
}
