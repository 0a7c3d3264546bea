//! A large fleet that measures.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    Bench,
    agents::{self, Agents},
    figures::Times,
    meter::Meter,
    process,
    world::World,
};

/// Agents whose series are some 80,000.
const AGENTS: usize = 313;
/// Six hours of ticks.
const PAST_TICKS: usize = 6 * 360;

/// Measures a gateway that has six hours of 80,000 series: its memory, and its disk.
pub async fn past(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.agents.unwrap_or(bench.size(AGENTS, 20));
    let ticks = bench.ticks.unwrap_or(bench.size(PAST_TICKS, 200));
    println!(
        "\n{nodes} simulated agents with 8 GPUs each, all metrics of {ticks} times 10 s, told as fast as they can"
    );
    let world = World::start(bench).await?;
    let (cpu, begun) = (world.cpu()?, Instant::now());
    let agents = Agents::with_past(&world, nodes, ticks as u64).await?;
    let tally = &agents.tally;
    let series = Meter::new(agents::GPUS).series();
    let wanted = nodes * series * ticks;
    tally
        .reach_within(&tally.samples, wanted, "samples", Duration::from_secs(3_600))
        .await?;
    let took = begun.elapsed().as_secs_f64();
    let busy = world.cpu()?.since(cpu).own.as_secs_f64();
    println!(
        "  taken in after {took:.0} s: {:.0} samples per CPU-second, from JSON to the store",
        wanted as f64 / busy.max(1e-9)
    );
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway: {resident:.0} MB resident, {most:.0} MB at most so far");
    // Alerts are judged a few times, and what is due is merged.
    tokio::time::sleep(Duration::from_secs(bench.size(120, 2) as u64)).await;
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway two minutes later, measuring goes on: {resident:.0} MB resident, {most:.0} MB at most");
    let usage = usage(&world).await?;
    let bytes = usage["diskBytes"].as_f64().unwrap_or(f64::NAN);
    println!(
        "  kept: {} series; of {wanted} samples dropped: {}; {bytes:.0} bytes on disk: {:.2} bytes a sample",
        usage["series"],
        usage["dropped"],
        bytes / wanted as f64
    );
    let (mut client, mut times, cpu) = (world.client().await?, Vec::new(), world.cpu()?);
    let count = bench.size(11, 2);
    for _ in 0..count {
        let at = Instant::now();
        client.raw("fleet.health", b"{}".to_vec()).await?;
        times.push(at.elapsed());
    }
    let busy = world.cpu()?.since(cpu).own.as_secs_f64() * 1000.0 / count as f64;
    println!(
        "  health of the fleet: {}, at most {busy:.0} ms of CPU each",
        Times::new(times)
    );
    let broken = tally.broken.load(Ordering::Relaxed);
    anyhow::ensure!(broken == 0, "{broken} sessions broke");
    Ok(())
}

async fn usage(world: &World) -> anyhow::Result<serde_json::Value> {
    let answer = world.client().await?.raw("metrics.usage", b"{}".to_vec()).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Measures what it costs to take in the metrics of 10,000 agents, and to ask for some.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.agents.unwrap_or(bench.size(10_000, 20));
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
    let usage = usage(&world).await?;
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
