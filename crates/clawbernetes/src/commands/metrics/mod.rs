//! `clawbernetes metrics`

mod list;
mod usage;

use std::process::ExitCode;

use api::{
    Span, Timestamp,
    metric::Aggregate,
    op::{MetricsQuery, MetricsRequest},
    time,
};

use super::node::past;
use crate::{
    cli::App,
    failure::Outcome,
    output::{Format, MetricsShown},
};

/// Series that a table shows: what a person still reads.
const ROWS: u32 = 12;

/// Show a metric over time: utilization, temperature, memory, and what workloads report themselves
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  clawbernetes metrics gpu.utilization --last 1h\n  \
    clawbernetes metrics gpu.temperature --workload gpt-finetune --last 1h\n  \
    clawbernetes metrics gpu.temperature --aggregate max --last 24h\n  \
    clawbernetes metrics memory.usage --node gpu-7 --json | jq .aggregate.value\n  clawbernetes metrics list"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The metric: gpu.utilization, gpu.memory, gpu.temperature, cpu.usage, memory.usage, network.throughput, disk.iops,
    /// a workload's own, and more (clawbernetes metrics list)
    #[arg(value_name = "NAME", required = true, add = crate::complete::metrics())]
    name: Option<String>,
    /// How far back [default: 1h]
    #[arg(long, value_name = "DURATION", conflicts_with = "since")]
    last: Option<Span>,
    /// From when: "2h ago", "yesterday 14:00", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
    /// Only of this node
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    node: Option<String>,
    /// Only of this workload: of the GPUs and nodes that it had, while it had them
    #[arg(long, value_name = "WORKLOAD", add = crate::complete::workloads())]
    workload: Option<String>,
    /// Only of the GPU with this index
    #[arg(long, value_name = "INDEX")]
    gpu: Option<u32>,
    /// What becomes of the values of a step, and of all together [default: what suits the metric]
    #[arg(long, value_name = "FUNCTION", value_parser = aggregate)]
    aggregate: Option<Aggregate>,
    /// Time between points [default: about 120 points]
    #[arg(long, value_name = "DURATION")]
    step: Option<Span>,
    /// Most series; those with the largest values [default: 12 in tables, all for programs]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::Args),
    Usage(usage::Args),
}

/// Reads `avg max min p95 p99`.
fn aggregate(text: &str) -> Result<Aggregate, String> {
    let all = [
        Aggregate::Avg,
        Aggregate::Max,
        Aggregate::Min,
        Aggregate::P95,
        Aggregate::P99,
    ];
    let found = all.into_iter().find(|a| a.name() == text);
    found.ok_or_else(|| "it is one of avg, max, min, p95, p99".to_owned())
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        match self.command {
            Some(Command::List(args)) => return args.run(app).await,
            Some(Command::Usage(args)) => return args.run(app).await,
            None => {}
        }
        let (client, settings) = app.session()?;
        let to = self.until;
        let from = match (self.since, self.last) {
            (Some(since), _) => Some(since),
            (None, Some(last)) => Some(time::before(to.unwrap_or_else(Timestamp::now), last)),
            (None, None) => None,
        };
        let request = MetricsRequest {
            name: self.name.unwrap_or_default(),
            node: self.node,
            namespace: self.workload.is_some().then(|| settings.named_namespace()).flatten(),
            workload: self.workload,
            gpu: self.gpu,
            from,
            to,
            step: self.step,
            aggregate: self.aggregate,
            limit: self.limit.or((app.out.format == Format::Table).then_some(ROWS)),
        };
        let answer = client.call::<MetricsQuery>(&request).await?;
        app.out.show(&MetricsShown(answer))?;
        Ok(ExitCode::SUCCESS)
    }
}
