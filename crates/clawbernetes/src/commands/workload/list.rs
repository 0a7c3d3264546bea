//! `clawbernetes workload list`

use std::process::ExitCode;

use api::{
    Timestamp,
    op::{WorkloadFilter, WorkloadList},
};

use crate::{cli::App, commands::node::past, failure::Outcome};

/// What lists can be sorted by.
const KEYS: [&str; 9] = [
    "submitted",
    "name",
    "phase",
    "priority",
    "gpus",
    "node",
    "owner",
    "started",
    "finished",
];

/// List workloads: running, waiting and ended ones
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload list --running\n  clawbernetes workload list --mine --since 24h --sort gpus\n  \
    clawbernetes workload list --pending -o name"
)]
pub(crate) struct Args {
    /// Only running ones
    #[arg(long, conflicts_with = "pending")]
    running: bool,
    /// Only waiting ones
    #[arg(long)]
    pending: bool,
    /// Only your own
    #[arg(long)]
    mine: bool,
    /// Only those submitted since then, or that have run since: 1h, "yesterday 14:00", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Only those on this node
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    node: Option<String>,
    /// Sort by this
    #[arg(long, value_name = "KEY", value_parser = KEYS)]
    sort: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Those of all namespaces, even where one is named by the context
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let namespace = if self.all_namespaces {
            None
        } else {
            settings.named_namespace()
        };
        let filter = WorkloadFilter {
            running: self.running,
            pending: self.pending,
            mine: self.mine,
            since: self.since,
            node: self.node,
            namespace,
            sort: self.sort,
            limit: self.limit,
        };
        let workloads = client.call::<WorkloadList>(&filter).await?;
        app.out.show(&workloads)?;
        Ok(ExitCode::SUCCESS)
    }
}
