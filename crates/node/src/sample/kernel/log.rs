//! `/dev/kmsg`: what the kernel still has of its log, then each new record.

use std::{io, os::fd::OwnedFd, time::Duration};

use api::{Timestamp, wire::FACT_LINE_MAX_BYTES};
use rustix::{
    fs::{Mode, OFlags, open},
    io::Errno,
    time::{ClockId, clock_gettime},
};

/// The kernel's longest record (`PRINTKRB_RECORD_MAX`, older kernels: `CONSOLE_EXT_LOG_MAX`, 8 KiB).
const RECORD_MAX_BYTES: usize = 8 << 10;

/// How often new records are looked for: a read that finds none costs a system call.
const EVERY: Duration = Duration::from_secs(1);

/// A record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Counts the records of this boot.
    pub(crate) sequence: u64,
    /// Since the boot, by the monotonic clock.
    pub(crate) at_us: u64,
    pub(crate) text: String,
}

/// The kernel's log, from its oldest record on.
pub(crate) struct KernelLog {
    file: OwnedFd,
}

impl KernelLog {
    /// Opens it.
    ///
    /// # Errors
    /// There is none, or it may not be read: it takes root, and in a container the device.
    pub(crate) fn open(path: &std::path::Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self {
            file: open(path, flags, Mode::empty())?,
        })
    }

    /// The next record. Those that the kernel overwrote before they were read are skipped, and so is what is no record.
    ///
    /// # Errors
    /// It can't be read any more.
    pub(crate) async fn next(&mut self) -> io::Result<Record> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        loop {
            match rustix::io::read(&self.file, &mut buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    if let Some(record) = parse(&String::from_utf8_lossy(&buffer[..length])) {
                        return Ok(record);
                    }
                }
                Err(Errno::AGAIN) => tokio::time::sleep(EVERY).await,
                // Overwritten; too long for the buffer; interrupted.
                Err(Errno::PIPE | Errno::INVAL | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// `6,339,5140900,-;NET: Registered PF_INET`: priority and facility, number, microseconds, flags; then the text, whose
/// further lines are fields. Lines of programs (a facility other than the kernel's) are nobody's word.
fn parse(record: &str) -> Option<Record> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let at_us = fields.next()?.parse().ok()?;
    let text = text.lines().next()?;
    (priority < 8).then(|| Record {
        sequence,
        at_us,
        text: cut(text).to_owned(),
    })
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(FACT_LINE_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The wall clock's time of a record: now, less the time since.
pub(crate) fn wall(at_us: u64) -> Timestamp {
    let now = clock_gettime(ClockId::Monotonic);
    let now_us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    let ago_ms = u64::try_from((now_us - i128::from(at_us)) / 1000).unwrap_or(0);
    api::time::before(Timestamp::now(), api::Span(ago_ms))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn records_are_read() {
        let record =
            "4,5699,8655867211,-;NVRM: Xid (PCI:0000:3b:00): 79, GPU\n SUBSYSTEM=pci\n DEVICE=+pci:0000:3b:00.0\n";
        let wanted = Record {
            sequence: 5699,
            at_us: 8_655_867_211,
            text: "NVRM: Xid (PCI:0000:3b:00): 79, GPU".to_owned(),
        };
        assert_eq!(parse(record), Some(wanted));
        assert_eq!(parse("12,5,6,-;systemd[1]: NVRM: Xid"), None, "a program wrote that");
        for bad in ["", ";", "6;x", "6,1;x", "a,1,2,-;x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn records_come_one_by_one() {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (writer, reader) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let mut log = KernelLog { file: reader };
        let mut writer = std::fs::File::from(writer);
        for record in ["6,1,10,-;one\n", "nonsense", "6,2,20,c;two\n"] {
            writer.write_all(record.as_bytes()).unwrap();
        }
        assert_eq!(log.next().await.unwrap().text, "one");
        assert_eq!(log.next().await.unwrap().sequence, 2);
        drop(writer);
        assert!(log.next().await.is_err());
    }

    /// Where it may be read.
    #[tokio::test]
    async fn this_machine_has_a_log() {
        let Ok(mut log) = KernelLog::open(std::path::Path::new("/dev/kmsg")) else {
            return;
        };
        let first = log.next().await.unwrap();
        let second = log.next().await.unwrap();
        assert!(second.sequence > first.sequence);
        assert!(wall(first.at_us) <= Timestamp::now());
    }
}
