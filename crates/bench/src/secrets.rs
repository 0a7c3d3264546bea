//! Secrets, set and read one a call: each call is in the audit log on the disk before it is answered.

use api::{
    op::{AuditVerify, Empty, SecretGet, SecretGetRequest, SecretSet, SecretSetRequest},
    secret::SecretValue,
};

use crate::{
    Bench,
    load::{self, Load},
    placements::sync_span,
    reference,
    world::World,
};

/// Bytes of a value: as many as a key has.
const VALUE_BYTES: usize = 32;

/// Measures 1 and 32 clients, each count with a gateway of its own.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    println!(
        "\nsecrets of {VALUE_BYTES} bytes: new ones set, then each read; with the audit log, each client on its own connection"
    );
    println!("  clients  call   calls/s   x store   x fdatasync   p50 ms   p99 ms   gateway s CPU/1000");
    for (clients, calls) in [(1, bench.size(3000, 20)), (32, bench.size(10_000, 64))] {
        let world = World::start(bench).await?;
        let syncs = 1000.0 / reference::syncs(world.folder(), sync_span(bench))?.median();
        let commits = reference::commits(world.folder(), clients, sync_span(bench)).await?;
        let set = load::calls::<SecretSet>(&world, clients, calls, |call| SecretSetRequest {
            name: name(call),
            namespace: None,
            value: SecretValue::from(vec![call as u8; VALUE_BYTES]),
            description: None,
            expires: None,
        })
        .await?;
        let get = load::calls::<SecretGet>(&world, clients, calls, |call| SecretGetRequest {
            name: name(call),
            namespace: None,
            version: None,
        })
        .await?;
        // The gateway's own check, of what is on its disk.
        let log = world.client().await?.call::<AuditVerify>(&Empty {}).await?;
        anyhow::ensure!(
            log.intact && log.checked >= 2 * calls as u64,
            "{} of {} calls are in the audit log",
            log.checked,
            2 * calls
        );
        for (
            call,
            Load {
                rate,
                times,
                cpu_per_1000,
            },
        ) in [("set", set), ("get", get)]
        {
            println!(
                "  {clients:7}  {call:4}   {rate:7.0}   {:7.2}   {:11.2}   {:6.2}   {:6.2}   {cpu_per_1000:18.3}",
                rate / commits,
                rate / syncs,
                times.median(),
                times.share(0.99)
            );
        }
        println!(
            "           reference, {clients} at once: {commits:.0} commits/s of one 1 KiB record by the store alone; \
             append + fdatasync alone {syncs:.0}/s, one at a time"
        );
    }
    Ok(())
}

fn name(call: usize) -> String {
    format!("secret-{call}")
}
