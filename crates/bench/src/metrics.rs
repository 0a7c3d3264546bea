//! A large fleet that measures.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{Bench, agents::Agents, figures::Times, process, world::World};

/// Measures what it costs to take in the metrics of 10,000 agents, and to ask for some.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.size(10_000, 20);
    println!("\n{nodes} simulated agents with 8 GPUs each, all metrics every 10 s");
    let world = World::start(bench).await?;
    let agents = Agents::measuring(&world, nodes).await?;
    let tally = &agents.tally;
    // All series are known once each agent has sent its first batch.
    tally.reach(&tally.beats, nodes, "first heartbeats").await?;
    let span = Duration::from_secs(bench.size(60, 12) as u64);
    let (cpu, samples, begun) = (world.cpu()?, tally.samples.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(span).await;
    let took = begun.elapsed().as_secs_f64();
    let busy = world.cpu()?.since(cpu).own.as_secs_f64();
    let samples = (tally.samples.load(Ordering::Relaxed) - samples) as f64;
    println!(
        "  gateway: {:.1} % of a core at {:.0} samples/s: {:.0} samples per CPU-second, from JSON to the store",
        busy / took * 100.0,
        samples / took,
        samples / busy.max(1e-9)
    );
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway: {resident:.0} MB resident, {most:.0} MB at most");
    let mut client = world.client().await?;
    let usage: serde_json::Value = serde_json::from_slice(&client.raw("metrics.usage", b"{}".to_vec()).await?)?;
    println!(
        "  kept: {} series, {} bytes on disk so far",
        usage["series"], usage["diskBytes"]
    );
    let count = bench.size(20, 2);
    for (what, request) in [
        (
            "one node's GPU temperatures, 1 h",
            r#"{"name":"gpu.temperature","node":"sim-00007"}"#,
        ),
        (
            "the 12 hottest GPUs of all, 1 h",
            r#"{"name":"gpu.temperature","limit":12}"#,
        ),
    ] {
        let mut times = Vec::new();
        for _ in 0..count {
            let at = Instant::now();
            client.raw("metrics.query", request.as_bytes().to_vec()).await?;
            times.push(at.elapsed());
        }
        println!("  {what}: {}", Times::new(times));
    }
    let broken = tally.broken.load(Ordering::Relaxed);
    anyhow::ensure!(broken == 0, "{broken} sessions broke");
    Ok(())
}
