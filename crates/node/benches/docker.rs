//! From a job's order to its reported end, beside `docker run` alone: medians of 20 of each, taken in turn.
//!
//! Skips with a line that says why where Docker isn't here.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops where it can't go on"
)]

#[path = "../tests/it/docker/life.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod life;

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use api::workload::Outcome;
use clawbernetes_node::engine::Engine as _;
use testkit::docker as fixture;

const RUNS: u32 = 20;

fn main() {
    let Some(fixture) = fixture::shared() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (mut engine, mut alone) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let memory = Arc::new(life::Memory::default());
        let life = life::Life::begin(fixture, "bench", &memory).await;
        for run in 0..=RUNS {
            let mut job = life::script("bench", "");
            job.command = vec!["/bin/true".to_owned()];
            job.job.attempt = run + 1;
            let since = Instant::now();
            assert_eq!(life.run(&job).await, Outcome::Exited { code: 0 });
            engine.push(since.elapsed());
            life.engine.forget(&job.job).await;
            alone.push(docker_run(fixture));
        }
    });
    // The first of each warms caches up.
    let (engine, alone) = (median(&mut engine[1..]), median(&mut alone[1..]));
    println!(
        "docker engine, start -> end of /bin/true: median of {RUNS}: {:.1} ms",
        millis(engine)
    );
    println!(
        "`docker run` alone:                       median of {RUNS}: {:.1} ms",
        millis(alone)
    );
    println!("ratio: {:.2}", engine.as_secs_f64() / alone.as_secs_f64());
}

/// The same container by Docker's own client: made, started and waited for.
fn docker_run(fixture: &fixture::Fixture) -> Duration {
    let host = format!("unix://{}", fixture.socket().display());
    let docker = |args: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["--host", &host]).args(args);
        let status = command.stdout(Stdio::null()).stdin(Stdio::null()).status().unwrap();
        assert!(status.success());
    };
    let since = Instant::now();
    let name = "bench-alone";
    docker(&[
        "run",
        "--name",
        name,
        "--init",
        "--network",
        "host",
        fixture::IMAGE,
        "/bin/true",
    ]);
    let took = since.elapsed();
    docker(&["rm", name]);
    took
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
