//! Reading a large fleet: lists, memory, and the command line, with 10,000 queued.

use std::time::{Duration, Instant};

use crate::{
    Bench,
    agents::Agents,
    client::Client,
    figures::Times,
    process, reference,
    world::{World, job, submit},
};

/// Measures lists of a long queue, idle and while it is scheduled, and the gateway's memory.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.size(1000, 20);
    let queued = bench.size(10_000, 200);
    println!("\nreading a fleet of {nodes} nodes with {queued} queued");
    let world = World::start(bench).await?;
    status(bench, &world, "an empty fleet (aim: 20 ms)")?;
    println!(
        "  gateway alone: {:.0} MB resident",
        process::memory(world.gateway.pid())?.0
    );
    let agents = Agents::start(&world, nodes).await?;
    println!(
        "  gateway with {nodes} nodes: {:.0} MB resident",
        process::memory(world.gateway.pid())?.0
    );
    let tally = &agents.tally;
    let mut client = world.client().await?;
    submit(&mut client, nodes, |i| job(format!("hold-{i}"), 8, &["true"])).await?;
    tally.reach(&tally.held, nodes, "nodes held").await?;
    submit(&mut client, queued, |i| job(format!("done-{i}"), 1, &["true"])).await?;
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway: {resident:.0} MB resident, {most:.0} MB at most (aim: 130 MB)");
    let count = bench.size(50, 5);
    println!(
        "  list of pending, idle:      {}  (aim: 100 ms)",
        list(&mut client, count).await?
    );
    status(bench, &world, "this fleet")?;

    // The gateway hangs up on callers that have been silent for a while.
    let mut client = world.client().await?;
    let mut times = Vec::new();
    let begun = Instant::now();
    agents.release();
    // Lists all the while, until the last has ended.
    loop {
        let at = Instant::now();
        client.raw("workload.list", b"{}".to_vec()).await?;
        times.push(at.elapsed());
        let ended = tally.ended.load(std::sync::atomic::Ordering::Relaxed);
        if ended >= nodes + queued {
            break;
        }
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(120),
            "{ended} of {} ended",
            nodes + queued
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("  list of all, scheduling:    {}  (aim: 100 ms)", Times::new(times));
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway after that: {resident:.0} MB resident, {most:.0} MB at most");
    Ok(())
}

async fn list(client: &mut Client, count: usize) -> anyhow::Result<Times> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let at = Instant::now();
        client.raw("workload.list", br#"{"pending":true}"#.to_vec()).await?;
        times.push(at.elapsed());
    }
    Ok(Times::new(times))
}

/// `clawbernetes status` as a process, beside `/bin/true`.
fn status(bench: &Bench, world: &World, what: &str) -> anyhow::Result<()> {
    let count = bench.size(30, 3);
    let bare = reference::spawns(count)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let at = Instant::now();
        let status = world.command(&["status"]).status()?;
        times.push(at.elapsed());
        anyhow::ensure!(status.success(), "`status` failed");
    }
    println!(
        "  `clawbernetes status`, {what}: {}; /bin/true p50 {:.2} ms",
        Times::new(times),
        bare.median()
    );
    Ok(())
}
