//! Many deployments at once: what they cost while they are carried out, and while they wait to be judged.

use std::time::{Duration, Instant};

use api::{
    deploy::Phase,
    op::{ApplyRequest, DeployApply, DeployFilter, DeployList, DeployPromote, PlanRequest, PromoteRequest},
    workload::WorkloadSpec,
};

use crate::{
    Bench,
    agents::Agents,
    load::{self, Load},
    process,
    world::World,
};

/// Clients that ask for deployments at once.
const CLIENTS: usize = 16;
/// Replicas of each service.
const REPLICAS: usize = 2;
/// How often it is looked whether all have come where they should.
const LOOK: Duration = Duration::from_millis(250);
/// A phase that isn't reached by then never will be.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures so many services: made, a canary of each held under judgement, and all promoted.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let services = bench.size(1000, 10);
    let nodes = bench.size(100, 4);
    println!("\n{services} services of {REPLICAS} replicas on {nodes} simulated agents, a deployment of each at once");
    let world = World::start(bench).await?;
    let agents = Agents::start(&world, nodes).await?;
    let made = step(&world, services, Phase::Complete, |n| ApplyRequest {
        request: PlanRequest {
            // The simulated agents run on what is called so.
            intent: format!("deploy keep-{n} v1 with {REPLICAS} replicas"),
            template: Some(WorkloadSpec {
                image: "host".to_owned(),
                command: vec!["serve".to_owned()],
                ..WorkloadSpec::default()
            }),
            ..PlanRequest::default()
        },
        ..ApplyRequest::default()
    });
    println!("  first deployments:  {}", made.await?);
    let canaries = step(&world, services, Phase::Canary, |n| ApplyRequest {
        request: PlanRequest {
            intent: format!("update keep-{n} to v2, canary 50%, rollback if restarts > 3"),
            ..PlanRequest::default()
        },
        ..ApplyRequest::default()
    });
    println!("  canaries begun:     {}", canaries.await?);
    let span = Duration::from_secs(bench.size(30, 2) as u64);
    let (cpu, begun) = (world.cpu()?, Instant::now());
    tokio::time::sleep(span).await;
    let busy = world.cpu()?.since(cpu).own.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    println!("  {services} canaries in their first minute, each judged every 2 s: gateway {busy:.1} % of a core");
    let (cpu, begun) = (world.cpu()?, Instant::now());
    load::calls::<DeployPromote>(&world, CLIENTS, services, |n| PromoteRequest {
        id: format!("keep-{n}"),
        force: true,
        ..PromoteRequest::default()
    })
    .await?;
    reach(&world, services * 2, Phase::Promoting, true).await?;
    let took = begun.elapsed().as_secs_f64();
    let cpu = world.cpu()?.since(cpu).own.as_secs_f64();
    println!(
        "  all promoted:       {took:.1} s until every one takes over, {:.2} s of gateway CPU per 1000",
        cpu * 1000.0 / services as f64
    );
    let (resident, most) = process::memory(world.gateway.pid())?;
    println!("  gateway: {resident:.0} MB resident, {most:.0} MB at most");
    drop(agents);
    Ok(())
}

/// Asks for a deployment of each service, and waits until all are in a phase.
async fn step(
    world: &World,
    services: usize,
    phase: Phase,
    request: impl Fn(usize) -> ApplyRequest + Copy + Send + 'static,
) -> anyhow::Result<String> {
    let (cpu, begun) = (world.cpu()?, Instant::now());
    let Load { rate, times, .. } = load::calls::<DeployApply>(world, CLIENTS, services, request).await?;
    reach(world, services, phase, false).await?;
    let took = begun.elapsed().as_secs_f64();
    let cpu = world.cpu()?.since(cpu).own.as_secs_f64();
    Ok(format!(
        "{rate:.0} asked for a second (each {times}); all {phase} after {took:.1} s, {:.2} s of gateway CPU per 1000",
        cpu * 1000.0 / services as f64
    ))
}

/// Waits until so many deployments are in a phase, or past it.
async fn reach(world: &World, count: usize, phase: Phase, or_past: bool) -> anyhow::Result<()> {
    // The gateway hangs up on those who say nothing for a while.
    let mut client = world.client().await?;
    let begun = Instant::now();
    loop {
        let all = client.call::<DeployList>(&DeployFilter::default()).await?;
        let there = |now: Phase| now == phase || (or_past && now == Phase::Complete);
        if let Some(bad) = all
            .iter()
            .find(|d| matches!(d.phase, Phase::Failed | Phase::RolledBack))
        {
            anyhow::bail!("{} of {} is {}", bad.id, bad.workload, bad.phase);
        }
        let reached = all.iter().filter(|d| there(d.phase)).count();
        if reached >= count {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < PATIENCE, "{reached} of {count} are {phase}");
        tokio::time::sleep(LOOK).await;
    }
}
