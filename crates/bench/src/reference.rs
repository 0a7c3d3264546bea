//! What stands alone: the disk's `fdatasync`, the store without a gateway, and starting a process.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use store::{Store, Txn, embedded::Options};

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

/// Commits a second of one record of 1 KiB, by so many callers at once for this long, in a new store in this folder.
pub async fn commits(dir: &Path, callers: usize, span: Duration) -> anyhow::Result<f64> {
    let store = Store::open(dir.join("bare.store"), Options::default())?;
    let value = Bytes::from(vec![7; 1024]);
    let begun = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, value) = (store.clone(), value.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed() < span {
                    // New records, as those of secrets are.
                    let key = format!("/bare/{caller:04}/{count:08}");
                    let outcome = store.txn(Txn::new().put(key, value.clone())).await?;
                    outcome
                        .committed()
                        .context("a commit without a condition was refused")?;
                    count += 1;
                }
                Ok::<u32, anyhow::Error>(count)
            })
        })
        .collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await??;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
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
