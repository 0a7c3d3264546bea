//! `clawbernetes workload logs`

use std::process::ExitCode;

use api::{
    ApiError, Timestamp,
    op::{LogEntry, LogsRequest, WorkloadGet, WorkloadLogs, WorkloadRef},
    workload::{LogLevel, LogSource},
};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::super::node::past;
use crate::{
    cli::App,
    client::Client,
    failure::{Failure, Outcome},
    output::Format,
};

/// Show a workload's output, also after it has ended or its node is gone
///
/// With --level or --search only the lines that match are shown, with --context also those around them, as grep does.
/// Python tracebacks, panics, CUDA and NCCL errors are errors with all their lines. A line that doesn't say its level
/// counts as info.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes logs gpt-finetune --tail 50\n  clawbernetes logs gpt-finetune --level error --since 1h\n  \
    clawbernetes logs gpt-finetune -f --search 'loss (nan|inf)' --context 3\n  clawbernetes logs wl-7k2 --since 10m -o jsonl"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// Only lines of this level or a graver one
    #[arg(short = 'l', long, value_name = "LEVEL", value_parser = level())]
    level: Option<LogLevel>,
    /// Begin with the last so many lines (or matches); 100 without a number
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "100")]
    tail: Option<u64>,
    /// Go on with lines as they come, until the workload has ended
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only lines since then: 10m, "1h ago", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Only lines in which this regular expression has a match; (?i) before it for any case
    #[arg(short = 's', long, value_name = "REGEX")]
    search: Option<String>,
    /// Show so many lines before and after each match too
    #[arg(short = 'C', long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    context: u32,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
}

fn level() -> impl TypedValueParser<Value = LogLevel> {
    PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::name)).map(|name| {
        let named = LogLevel::ALL.into_iter().find(|level| level.name() == name);
        named.unwrap_or(LogLevel::Info)
    })
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        if self.context > 0 && self.level.is_none() && self.search.is_none() {
            let error = ApiError::invalid("--context", "--context needs matches to stand around");
            return Err(error.hint("give --search or --level with it").into());
        }
        let (client, settings) = app.session()?;
        let request = LogsRequest {
            id: self.id.clone(),
            namespace: settings.named_namespace(),
            follow: self.follow,
            tail: self.tail,
            since: self.since,
            level: self.level,
            search: self.search,
            context: self.context,
            cursor: None,
        };
        stream(app, &client, request, self.timestamps).await?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints a workload's output as it comes.
pub(crate) async fn stream(
    app: &App,
    client: &Client,
    mut request: LogsRequest,
    timestamps: bool,
) -> Result<(), Failure> {
    let mut printer = Printer {
        app,
        timestamps,
        gang: false,
        groups: request.context > 0,
        color: app.out.view().color,
        begun: false,
        open: None,
    };
    if app.out.format == Format::Table {
        let named = WorkloadRef {
            id: request.id.clone(),
            namespace: request.namespace.clone(),
        };
        let detail = client.call::<WorkloadGet>(&named).await?;
        printer.gang = detail.workload.spec.node_count() > 1;
        request.id = detail.workload.id.to_string();
    }
    if matches!(app.out.format, Format::Json | Format::Yaml) && !request.follow {
        let mut entries = Vec::new();
        let mut stream = client.stream::<WorkloadLogs>(request).await?;
        while let Some(entry) = stream.next().await? {
            entries.push(entry);
        }
        return app.out.data(&entries);
    }
    let mut stream = client.stream::<WorkloadLogs>(request).await?;
    while let Some(entry) = stream.next().await? {
        printer.print(&entry)?;
    }
    printer.close()
}

/// Writes entries, putting partial lines together.
struct Printer<'a> {
    app: &'a App,
    timestamps: bool,
    /// Whether lines say which member they are from.
    gang: bool,
    /// Whether `--` stands between lines that don't follow on each other.
    groups: bool,
    /// Whether lines have the colour of their level.
    color: bool,
    /// Whether a line was printed.
    begun: bool,
    /// The stream whose line isn't complete yet.
    open: Option<(LogSource, u32)>,
}

impl Printer<'_> {
    fn print(&mut self, entry: &LogEntry) -> Result<(), Failure> {
        match self.app.out.format {
            Format::Table => self.app.out.print(&self.text(entry)),
            Format::Name => self.app.out.print(&format!("{}\n", entry.cursor)),
            Format::Json | Format::Yaml | Format::Jsonl => self.app.out.item(entry),
        }
    }

    fn text(&mut self, entry: &LogEntry) -> String {
        let mut text = String::new();
        let stream = (entry.source, entry.rank);
        // In an answer to a search the rest of a long line may be missing.
        if self.open != Some(stream) || entry.apart {
            if self.open.is_some() {
                text.push('\n');
            }
            if self.groups && self.begun && entry.apart {
                text.push_str("--\n");
            }
            if self.timestamps {
                text.push_str(&format!("{} ", entry.at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")));
            }
            if self.gang {
                text.push_str(&format!("[{}] ", entry.rank));
            }
            match (entry.gap, entry.source) {
                (true, _) => text.push_str("[clawbernetes] lines are missing: "),
                (false, LogSource::System) => text.push_str("[clawbernetes] "),
                (false, LogSource::Stdout | LogSource::Stderr) => {}
            }
        }
        self.begun = true;
        match entry.level.and_then(color) {
            // A line with colours of its own keeps them.
            Some(color) if self.color && !entry.text.contains('\u{1b}') => {
                text.push_str(&format!("\u{1b}[{color}m{}\u{1b}[0m", entry.text));
            }
            _ => text.push_str(&entry.text),
        }
        if entry.partial {
            self.open = Some(stream);
        } else {
            self.open = None;
            text.push('\n');
        }
        text
    }

    fn close(&mut self) -> Result<(), Failure> {
        if self.open.take().is_some() {
            self.app.out.print("\n")?;
        }
        Ok(())
    }
}

/// The colour of a level, as a terminal's number; what is usual has none.
fn color(level: LogLevel) -> Option<&'static str> {
    match level {
        LogLevel::Trace | LogLevel::Debug => Some("2"),
        LogLevel::Info => None,
        LogLevel::Warn => Some("33"),
        LogLevel::Error | LogLevel::Fatal => Some("31"),
    }
}
