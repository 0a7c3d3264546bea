//! `clawbernetes workload logs`

use std::process::ExitCode;

use api::{
    Timestamp,
    op::{LogEntry, LogsRequest, WorkloadGet, WorkloadLogs, WorkloadRef},
    workload::LogSource,
};

use super::super::node::past;
use crate::{
    cli::App,
    client::Client,
    failure::{Failure, Outcome},
    output::Format,
};

/// Show a workload's output, also after it has ended or its node is gone
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload logs gpt-finetune --tail 50\n  clawbernetes workload logs gpt-finetune -f\n  \
    clawbernetes workload logs wl-7k2 --since 10m -o jsonl"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// Go on with lines as they come, until the workload has ended
    #[arg(short = 'f', long)]
    follow: bool,
    /// Begin with the last so many lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Only lines since then: 10m, "1h ago", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Put the time before each line
    #[arg(long)]
    timestamps: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = LogsRequest {
            id: self.id.clone(),
            namespace: settings.named_namespace(),
            follow: self.follow,
            tail: self.tail,
            since: self.since,
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
        if self.open != Some(stream) {
            if self.open.is_some() {
                text.push('\n');
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
        text.push_str(&entry.text);
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
