//! What the machine does alone: the disk's `fdatasync`, and starting a process.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::figures::Times;

/// Appends of 1 KiB, each followed by `fdatasync`, for this long, on the disk of this folder.
pub fn syncs(dir: &Path, span: Duration) -> anyhow::Result<Times> {
    let path = dir.join("bare");
    let mut file = File::create(&path).context("no file to sync")?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while begun.elapsed() < span {
        let at = Instant::now();
        file.write_all(&[7; 1024])?;
        file.sync_data()?;
        times.push(at.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(Times::new(times))
}

/// Starting `/bin/true` and waiting for its end, so many times.
pub fn spawns(count: usize) -> anyhow::Result<Times> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let at = Instant::now();
        Command::new("/bin/true")
            .stdin(Stdio::null())
            .status()
            .context("/bin/true")?;
        times.push(at.elapsed());
    }
    Ok(Times::new(times))
}
