//! Trivial jobs on one real agent, from submission to the last end, every step durable.

use std::time::{Duration, Instant};

use api::op::{WorkloadFilter, WorkloadList};

use crate::{
    Bench,
    placements::sync_span,
    process, reference,
    world::{World, job, submit},
};

/// Measures the rate, and the CPU time of gateway and agent.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    let jobs = bench.size(4000, 50);
    println!(
        "\n{jobs} x /bin/true on one native agent, submitted to all complete (aim: 500/s, gateway 0.5 s CPU/1000)"
    );
    let world = World::start(bench).await?;
    let syncs = reference::syncs(world.folder(), sync_span(bench))?;
    let spawns = reference::spawns(bench.size(500, 20))?;
    let agent = world.native_agent().await?;
    let mut client = world.client().await?;
    let (gateway, node, begun) = (world.cpu()?, process::cpu(agent.pid())?, Instant::now());
    submit(&mut client, jobs, |i| job(format!("true-{i}"), 0, &["/bin/true"])).await?;
    // One small question at a time: what hasn't ended?
    loop {
        let active = client
            .call::<WorkloadList>(&WorkloadFilter {
                sort: Some("phase".to_owned()),
                limit: Some(1),
                ..WorkloadFilter::default()
            })
            .await?;
        if active.iter().all(|w| w.phase.ended()) {
            break;
        }
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(240),
            "not all ended in four minutes"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed().as_secs_f64();
    let gateway = world.cpu()?.since(gateway);
    let node = process::cpu(agent.pid())?.since(node);
    let all = client.call::<WorkloadList>(&WorkloadFilter::default()).await?;
    let good = all.iter().filter(|w| w.exit_code == Some(0)).count();
    anyhow::ensure!(good == jobs, "{good} of {jobs} succeeded");
    let per = |time: Duration| time.as_secs_f64() * 1000.0 / jobs as f64;
    println!("  {:.0} jobs/s", jobs as f64 / took);
    println!(
        "  CPU per 1000: gateway {:.2} s, agent {:.2} s (and {:.2} s in processes that it started and waited for)",
        per(gateway.own),
        per(node.own),
        per(node.children)
    );
    println!(
        "  memory: gateway {:.0} MB, agent {:.0} MB",
        process::memory(world.gateway.pid())?.0,
        process::memory(agent.pid())?.0
    );
    println!(
        "  reference: fork + exec of /bin/true, one at a time {spawns}: {:.0}/s",
        1000.0 / spawns.median()
    );
    println!("  reference: append + fdatasync alone {syncs}");
    Ok(())
}
