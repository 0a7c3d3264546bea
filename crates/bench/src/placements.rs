//! Placements, bound and durable, through the API and the store, on simulated agents over real WebSockets.

use std::time::Instant;

use crate::{
    Bench,
    agents::Agents,
    process, reference,
    world::{World, job, submit},
};

/// Measures a full fleet that becomes free at once, and jobs that flow through it.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let nodes = bench.size(1000, 20);
    println!("\nplacements, bound and durable: {nodes} simulated agents with 8 GPUs each (aim: 5000/s)");
    let world = World::start(bench).await?;
    let syncs = reference::syncs(world.folder(), sync_span(bench))?;
    let agents = Agents::start(&world, nodes).await?;
    let tally = &agents.tally;
    let mut client = world.client().await?;
    // Every node is held as a whole, the queue fills behind that, and then the whole fleet becomes free.
    submit(&mut client, nodes, |i| job(format!("hold-{i}"), 8, &["true"])).await?;
    tally.reach(&tally.held, nodes, "nodes held").await?;
    submit(&mut client, nodes * 8, |i| job(format!("keep-{i}"), 1, &["true"])).await?;
    let (cpu, begun) = (world.cpu()?, Instant::now());
    agents.release();
    tally.reach(&tally.kept, nodes * 8, "placements").await?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), world.cpu()?.since(cpu));
    let placed = (nodes * 8) as f64;
    println!("  a fleet of {nodes} nodes becomes free (as many ends are kept), {placed} wait for one GPU each:");
    println!(
        "    {:.0} placements/s until the agents have them; gateway {:.2} s CPU per 1000",
        placed / took,
        cpu.own.as_secs_f64() * 1000.0 / placed
    );
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("    gateway: {resident:.0} MB resident, {most:.0} MB at most");
    drop(agents);
    drop(world);

    let jobs = bench.size(20_000, 400);
    let world = World::start(bench).await?;
    let agents = Agents::start(&world, nodes).await?;
    let tally = &agents.tally;
    let mut client = world.client().await?;
    let (cpu, begun) = (world.cpu()?, Instant::now());
    submit(&mut client, jobs, |i| job(format!("done-{i}"), 1, &["true"])).await?;
    let submitted = begun.elapsed().as_secs_f64();
    tally.reach(&tally.ended, jobs, "ends").await?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), world.cpu()?.since(cpu));
    println!("  {jobs} jobs of one GPU from submission to their end, on agents that end them at once:");
    println!(
        "    {:.0} jobs/s (submitted at {:.0}/s in calls of 2000); gateway {:.2} s CPU per 1000",
        jobs as f64 / took,
        jobs as f64 / submitted,
        cpu.own.as_secs_f64() * 1000.0 / jobs as f64
    );
    println!("  reference: append + fdatasync alone {syncs}");
    Ok(())
}

/// For how long the bare disk is measured.
pub fn sync_span(bench: &Bench) -> std::time::Duration {
    std::time::Duration::from_millis(bench.size(1000, 50) as u64)
}
