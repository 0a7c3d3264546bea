//! A large fleet that only lives.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{Bench, agents::Agents, figures::Times, process, reference, world::World};

/// Measures what it costs to keep 5,000 agents connected, and to list them.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.size(5000, 20);
    println!("\n{nodes} simulated agents with 8 GPUs each, a heartbeat every 10 s");
    let world = World::start(bench).await?;
    let begun = Instant::now();
    let cpu = world.cpu()?;
    let agents = Agents::start(&world, nodes).await?;
    println!(
        "  joined and online after {:.1} s, {:.1} s of gateway CPU",
        begun.elapsed().as_secs_f64(),
        world.cpu()?.since(cpu).own.as_secs_f64()
    );
    let tally = &agents.tally;
    let span = Duration::from_secs(bench.size(20, 2) as u64);
    let (cpu, beats, begun) = (world.cpu()?, tally.beats.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(span).await;
    let took = begun.elapsed().as_secs_f64();
    let busy = world.cpu()?.since(cpu).own.as_secs_f64() / took * 100.0;
    let beats = (tally.beats.load(Ordering::Relaxed) - beats) as f64 / took;
    println!("  gateway: {busy:.1} % of a core at {beats:.0} heartbeats/s");
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway: {resident:.0} MB resident, {most:.0} MB at most");
    let mut client = world.client().await?;
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..bench.size(20, 2) {
        let at = Instant::now();
        bytes = client.raw("node.list", b"{}".to_vec()).await?.len();
        times.push(at.elapsed());
    }
    println!("  node.list, {:.1} MB: {}", bytes as f64 / 1e6, Times::new(times));
    let count = bench.size(10, 1);
    let bare = reference::spawns(count)?;
    let mut times = Vec::new();
    for _ in 0..count {
        let at = Instant::now();
        let status = world.command(&["node", "list", "--json"]).status()?;
        times.push(at.elapsed());
        anyhow::ensure!(status.success(), "`node list` failed");
    }
    println!(
        "  `clawbernetes node list --json`: {}  (aim: 1000 ms); /bin/true p50 {:.2} ms",
        Times::new(times),
        bare.median()
    );
    let broken = tally.broken.load(Ordering::Relaxed);
    anyhow::ensure!(broken == 0, "{broken} sessions broke");
    Ok(())
}
