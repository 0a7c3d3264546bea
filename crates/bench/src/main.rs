//! Figures of the whole product: real `clawbernetes` processes, measured from outside, each beside a reference that is
//! taken in the same run. Nothing is asserted as a time; what goes wrong (a job lost, a call refused) ends the run.
//!
//! ```text
//! cargo build --release && cargo run --release -p clawbernetes-bench -- all
//! ```
//!
//! Parts of the product have benchmarks of their own: `cargo bench -p clawbernetes-scheduler` (decisions alone),
//! `-p clawbernetes-store` (commits beside fdatasync), `-p clawbernetes-telemetry` (log lines) and
//! `-p clawbernetes-node --bench docker` (containers beside `docker run`).

#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod agents;
mod channel;
mod client;
mod figures;
mod handshakes;
mod heartbeats;
mod jobs;
mod latency;
mod lists;
mod load;
mod meter;
mod metrics;
mod openssl;
mod placements;
mod process;
mod reference;
mod rollouts;
mod secrets;
mod submits;
mod world;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

/// Measures a gateway, an agent and the command line as they run
#[derive(Debug, Parser)]
struct Args {
    /// What to measure
    #[arg(value_enum, default_values_t = [Part::All])]
    parts: Vec<Part>,
    /// Everything tiny, to see that it works
    #[arg(long)]
    quick: bool,
    /// Simulated agents connect by TLS, each with a certificate of its own
    #[arg(long)]
    tls: bool,
    /// So many simulated agents in place of the usual number (metrics, past)
    #[arg(long, value_name = "COUNT")]
    agents: Option<usize>,
    /// So many ticks of 10 s in place of six hours (past)
    #[arg(long, value_name = "COUNT")]
    ticks: Option<usize>,
    /// The product's binary [default: `clawbernetes` beside this one]
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Where data folders are made: the disk that is measured [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// All of them
    All,
    /// Durable submits with 1, 32 and 256 clients
    Submits,
    /// Placements over 1,000 simulated agents
    Placements,
    /// Lists, memory and `status` with 10,000 queued
    Lists,
    /// Trivial jobs on one native agent
    Jobs,
    /// Secrets set and read, with the audit log
    Secrets,
    /// TLS handshakes, full and resumed
    Tls,
    /// Submission to running process on an idle fleet
    Latency,
    /// 5,000 simulated agents that only live
    Heartbeats,
    /// Metrics of 10,000 simulated agents
    Metrics,
    /// 1,000 services, a deployment of each at once
    Rollouts,
    /// Six hours of 80,000 series in a gateway: only when it is named, since it takes long
    Past,
}

/// What every measurement needs.
pub struct Bench {
    /// Tiny sizes.
    pub quick: bool,
    /// Simulated agents connect by TLS.
    pub tls: bool,
    /// Simulated agents, where somebody said how many.
    pub agents: Option<usize>,
    /// Ticks of the past, where somebody said how many.
    pub ticks: Option<usize>,
    /// The product's binary.
    pub binary: PathBuf,
    /// Where data folders are made.
    pub dir: PathBuf,
}

impl Bench {
    /// One size or the other.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let binary = match args.binary {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("clawbernetes"),
    };
    anyhow::ensure!(
        binary.exists(),
        "{} doesn't exist: build it with `cargo build --release`, or name it with --binary",
        binary.display()
    );
    let bench = Bench {
        quick: args.quick,
        tls: args.tls,
        agents: args.agents,
        ticks: args.ticks,
        binary,
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
    };
    process::allow_many_files()?;
    println!("{}", process::machine());
    if bench.tls {
        println!("simulated agents connect by TLS, each with a certificate of its own");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("no runtime")?;
    let wanted = |part| args.parts.contains(&Part::All) || args.parts.contains(&part);
    let measure = async {
        if wanted(Part::Latency) {
            latency::run(&bench).await.context("latency")?;
        }
        if wanted(Part::Jobs) {
            jobs::run(&bench).await.context("jobs")?;
        }
        if wanted(Part::Submits) {
            submits::run(&bench).await.context("submits")?;
        }
        if wanted(Part::Secrets) {
            secrets::run(&bench).await.context("secrets")?;
        }
        if wanted(Part::Tls) {
            handshakes::run(&bench).await.context("tls")?;
        }
        if wanted(Part::Placements) {
            placements::run(&bench).await.context("placements")?;
        }
        if wanted(Part::Lists) {
            lists::run(&bench).await.context("lists")?;
        }
        if wanted(Part::Heartbeats) {
            heartbeats::run(&bench).await.context("heartbeats")?;
        }
        if wanted(Part::Metrics) {
            metrics::run(&bench).await.context("metrics")?;
        }
        if wanted(Part::Rollouts) {
            rollouts::run(&bench).await.context("rollouts")?;
        }
        if args.parts.contains(&Part::Past) {
            metrics::past(&bench).await.context("past")?;
        }
        Ok(())
    };
    // Whatever ends the run, the processes that it started end with it.
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            done = measure => done,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
            _ = terminate.recv() => anyhow::bail!("told to end"),
        }
    })
}
