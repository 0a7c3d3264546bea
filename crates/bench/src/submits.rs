//! Durable submits, one workload a call, over kept connections.

use std::time::Instant;

use api::op::{Operation, SubmitRequest, WorkloadSubmit};

use crate::{
    Bench,
    figures::Times,
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
        let mut connected = Vec::with_capacity(clients);
        for _ in 0..clients {
            connected.push(world.client().await?);
        }
        let cpu = world.cpu()?;
        let begun = Instant::now();
        let lanes = connected.into_iter().enumerate().map(|(lane, mut client)| async move {
            let mut times = Vec::new();
            for call in (lane..calls).step_by(clients) {
                let request = SubmitRequest {
                    workloads: vec![job(format!("job-{call}"), 1, &["true"])],
                    ..SubmitRequest::default()
                };
                let body = serde_json::to_vec(&request)?;
                let at = Instant::now();
                client.raw(WorkloadSubmit::NAME, body).await?;
                times.push(at.elapsed());
            }
            Ok::<_, anyhow::Error>(times)
        });
        let lanes: Vec<_> = lanes.map(tokio::spawn).collect();
        let mut times = Vec::new();
        for lane in lanes {
            times.extend(lane.await??);
        }
        let rate = calls as f64 / begun.elapsed().as_secs_f64();
        let cpu = world.cpu()?.since(cpu).own.as_secs_f64() * 1000.0 / calls as f64;
        let times = Times::new(times);
        println!(
            "  {clients:7}  {rate:9.0}   {:11.2}   {:6.2}   {:6.2}   {cpu:18.3}   {bare:17.0}",
            rate / bare,
            times.median(),
            times.share(0.99)
        );
    }
    Ok(())
}
