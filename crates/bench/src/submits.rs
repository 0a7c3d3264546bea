//! Durable submits, one workload a call, over kept connections.

use api::op::{SubmitRequest, WorkloadSubmit};

use crate::{
    Bench, load,
    placements::sync_span,
    reference,
    world::{World, job},
};

/// Measures 1, 32 and 256 clients, each count with a gateway of its own.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    println!("\ndurable submits of one workload a call, each client on its own connection, no nodes");
    println!("  clients  submits/s   x fdatasync   p50 ms   p99 ms   gateway s CPU/1000   fdatasync/s alone");
    for (clients, calls) in [
        (1, bench.size(3000, 20)),
        (32, bench.size(20_000, 64)),
        (256, bench.size(30_000, 256)),
    ] {
        let world = World::start(bench).await?;
        let bare = 1000.0 / reference::syncs(world.folder(), sync_span(bench))?.median();
        let load = load::calls::<WorkloadSubmit>(&world, clients, calls, |call| SubmitRequest {
            workloads: vec![job(format!("job-{call}"), 1, &["true"])],
            ..SubmitRequest::default()
        })
        .await?;
        println!(
            "  {clients:7}  {:9.0}   {:11.2}   {:6.2}   {:6.2}   {:18.3}   {bare:17.0}",
            load.rate,
            load.rate / bare,
            load.times.median(),
            load.times.share(0.99),
            load.cpu_per_1000
        );
    }
    Ok(())
}
