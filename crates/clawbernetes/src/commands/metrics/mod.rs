//! `clawbernetes metrics`

mod list;
mod usage;

use std::process::ExitCode;

use api::{
    ApiError, Span, Timestamp,
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

impl Command {
    /// As it is typed.
    const fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Usage(_) => "usage",
        }
    }
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
        if let (Some(command), Some(given)) = (&self.command, self.given()) {
            let message = format!("{given} belongs to a metric, not to 'metrics {}'", command.name());
            return Err(ApiError::invalid(given, message).hint("leave it out").into());
        }
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

    /// What of a metric was given: clap's own check (`args_conflicts_with_subcommands`) takes a command's name behind any
    /// flag, such as `--json list`, for a metric's.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("the name", self.name.is_some()),
            ("--last", self.last.is_some()),
            ("--since", self.since.is_some()),
            ("--until", self.until.is_some()),
            ("--node", self.node.is_some()),
            ("--workload", self.workload.is_some()),
            ("--gpu", self.gpu.is_some()),
            ("--aggregate", self.aggregate.is_some()),
            ("--step", self.step.is_some()),
            ("--limit", self.limit.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Globals;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        _globals: Globals,
        #[command(subcommand)]
        command: Top,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Top {
        Metrics(Box<Args>),
    }

    /// The command's name, or the metric's; and what doesn't go with a command.
    fn read(line: &str) -> Result<(String, Option<&'static str>), clap::Error> {
        let Top::Metrics(args) = Line::try_parse_from(line.split(' '))?.command;
        Ok(match &args.command {
            Some(command) => (command.name().to_owned(), args.given()),
            None => (args.name.clone().unwrap_or_default(), None),
        })
    }

    #[test]
    fn a_command_is_one_wherever_flags_stand() {
        for line in [
            "c metrics list",
            "c metrics --json list",
            "c metrics list --json",
            "c --json metrics list",
            "c metrics -o name list",
            "c metrics -n prod --json list",
        ] {
            assert_eq!(read(line).unwrap(), ("list".to_owned(), None), "{line}");
        }
        assert_eq!(read("c metrics --json usage").unwrap(), ("usage".to_owned(), None));
        for line in [
            "c metrics --json gpu.memory --last 1h",
            "c metrics --last 1h --json gpu.memory",
            "c metrics gpu.memory --node list",
        ] {
            assert_eq!(read(line).unwrap(), ("gpu.memory".to_owned(), None), "{line}");
        }
    }

    #[test]
    fn what_belongs_to_a_metric_is_refused_before_a_command() {
        for (line, given) in [
            ("c metrics --last 1h list", "--last"),
            ("c metrics --node a --json list", "--node"),
            ("c metrics gpu.memory list", "the name"),
        ] {
            assert_eq!(read(line).unwrap(), ("list".to_owned(), Some(given)), "{line}");
        }
        assert!(read("c metrics list --last 1h").is_err());
        assert!(read("c metrics --json").is_err());
    }
}
