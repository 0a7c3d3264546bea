//! A job's secrets on their way from the agent to its shim: through a pipe of their own, so that no disk, no command
//! line and no other process sees them.
//!
//! Entries follow each other: a byte that says what it is, then a name and a value, each with its length before it (four
//! bytes, little-endian). A last byte says that all of them are there.

use std::{fs::File, io, io::Read, os::fd::OwnedFd};

use api::secret::SecretValue;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncWriteExt, net::unix::pipe::Sender};
use zeroize::Zeroizing;

use crate::secret::Secrets;

const ENV: u8 = b'e';
const FILE: u8 = b'f';
const MASK: u8 = b'm';
const END: u8 = b'.';

/// A pipe, and what is to be written to it.
pub(super) struct Pipe {
    /// For the shim.
    pub(super) reader: OwnedFd,
    writer: Sender,
    bytes: Zeroizing<Vec<u8>>,
}

impl Pipe {
    pub(super) fn new(secrets: &Secrets) -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Self {
            reader,
            writer: Sender::from_owned_fd(writer)?,
            bytes: write(secrets),
        })
    }

    /// Writes to it beside; the shim is on its way. What it doesn't read any more is dropped.
    pub(super) fn fill(self) {
        let Self { mut writer, bytes, .. } = self;
        tokio::spawn(async move { writer.write_all(&bytes).await });
    }
}

fn write(secrets: &Secrets) -> Zeroizing<Vec<u8>> {
    let env = secrets.env().iter().map(|(name, value)| (ENV, name.as_str(), value));
    let files = secrets.files().iter().map(|(path, value)| (FILE, path.as_str(), value));
    let mask = secrets.mask().iter().map(|value| (MASK, "", value));
    let all: Vec<(u8, &str, &SecretValue)> = env.chain(files).chain(mask).collect();
    let bytes: usize = all
        .iter()
        .map(|(_, name, value)| 9 + name.len() + value.expose().len())
        .sum();
    // Room for all of it: growing would leave copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes + 1));
    for (kind, name, value) in &all {
        out.push(*kind);
        for part in [name.as_bytes(), value.expose()] {
            // Names and values are far shorter than that.
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out.push(END);
    out
}

/// Waits until all of it has come.
///
/// # Errors
/// The writer went away before.
pub(super) fn read(from: OwnedFd) -> io::Result<Secrets> {
    let mut from = File::from(from);
    let (mut env, mut files, mut mask) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let mut kind = [0];
        from.read_exact(&mut kind)?;
        let [kind] = kind;
        if kind == END {
            return Ok(Secrets::of_parts(env, files, mask));
        }
        let name = String::from_utf8(part(&mut from)?).map_err(|_| io::ErrorKind::InvalidData)?;
        let value = SecretValue::from(part(&mut from)?);
        match kind {
            ENV => env.push((name, value)),
            FILE => files.push((name, value)),
            MASK => mask.push(value),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn part(from: &mut File) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn through(bytes: &[u8]) -> io::Result<Secrets> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        File::from(writer).write_all(bytes)?;
        read(reader)
    }

    #[test]
    fn all_comes_through_or_nothing() {
        let named = |name: &str, value: &[u8]| (name.to_owned(), SecretValue::from(value.to_vec()));
        let secrets = Secrets::of_parts(
            vec![named("A", b"one"), named("B", b"")],
            vec![named("/run/x", b"\0\xff\n")],
            vec![SecretValue::from(b"one".to_vec())],
        );
        let bytes = write(&secrets);
        assert_eq!(bytes.capacity(), bytes.len());
        assert_eq!(through(&bytes).unwrap(), secrets);
        for cut in 0..bytes.len() {
            assert!(through(&bytes[..cut]).is_err(), "{cut}");
        }
    }
}
