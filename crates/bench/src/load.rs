//! Many calls of one operation by some clients at once.

use std::time::Instant;

use api::op::Operation;

use crate::{figures::Times, world::World};

/// What such calls took.
pub struct Load {
    /// Calls a second.
    pub rate: f64,
    /// From a call to its answer.
    pub times: Times,
    /// The gateway's CPU time for 1,000 calls, in seconds.
    pub cpu_per_1000: f64,
}

/// Makes so many calls, each client on a connection of its own that is kept, one at a time. `request`: by a call's
/// number.
pub async fn calls<O: Operation + 'static>(
    world: &World,
    clients: usize,
    calls: usize,
    request: impl Fn(usize) -> O::Request + Copy + Send + 'static,
) -> anyhow::Result<Load> {
    let mut connected = Vec::with_capacity(clients);
    for _ in 0..clients {
        connected.push(world.client().await?);
    }
    let cpu = world.cpu()?;
    let begun = Instant::now();
    let lanes = connected.into_iter().enumerate().map(|(lane, mut client)| async move {
        let mut times = Vec::new();
        for call in (lane..calls).step_by(clients) {
            let body = serde_json::to_vec(&request(call))?;
            let at = Instant::now();
            client.raw(O::NAME, body).await?;
            times.push(at.elapsed());
        }
        Ok::<_, anyhow::Error>(times)
    });
    let lanes: Vec<_> = lanes.map(tokio::spawn).collect();
    let mut times = Vec::new();
    for lane in lanes {
        times.extend(lane.await??);
    }
    Ok(Load {
        rate: calls as f64 / begun.elapsed().as_secs_f64(),
        times: Times::new(times),
        cpu_per_1000: world.cpu()?.since(cpu).own.as_secs_f64() * 1000.0 / calls as f64,
    })
}
