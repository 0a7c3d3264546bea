//! Prints this machine as the agent would report it, as JSON: `cargo run -p clawbernetes-node --example gpus`.

#![expect(clippy::print_stdout, reason = "printing is all that it does")]

use clawbernetes_node::{
    gpu::probe::{Options, detect},
    host::Host,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::default();
    let mut inventory = host.inventory();
    let mut sample = host.sample();
    let mut readings: Vec<String> = host
        .readings()
        .iter()
        .map(|r| format!("{} {:?} {:?}", r.metric, r.labels, r.value))
        .collect();
    let (drivers, notes) = detect(Options::from_env());
    inventory.notes = notes;
    for driver in &drivers {
        inventory.gpus.extend(driver.inventory().unwrap_or_default());
        inventory.links.extend(driver.links());
        sample.gpus.extend(driver.sample());
        for gpu in driver.inventory().unwrap_or_default() {
            readings.extend(
                driver
                    .readings(gpu.index)
                    .into_iter()
                    .map(|r| format!("gpu {}: {} {:?}", gpu.index, r.metric, r.value)),
            );
        }
    }
    let all = serde_json::json!({"inventory": inventory, "sample": sample, "readings": readings});
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}
