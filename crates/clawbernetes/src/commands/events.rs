//! `clawbernetes events`

use std::process::ExitCode;

use api::{
    ErrorCode, Timestamp,
    event::Event,
    op::{EventFilter, EventList, EventWatch, NodeGet, NodeRef, WorkloadGet},
};

use crate::{
    cli::App,
    commands::node::past,
    failure::{Failure, Outcome},
    output::{Format, event_line},
};

/// Events that `-f` begins with, where no time is given.
const RECENT: u32 = 10;

/// Show what happened: every transition, with who did it, why, and when
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes events --since 1h\n  clawbernetes events -f --node gpu-7\n  \
    clawbernetes events -f -o jsonl | jq -r .message"
)]
pub(crate) struct Args {
    /// Go on with events as they happen
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only events of this kind of thing
    #[arg(long, value_name = "KIND", value_parser = ["workload", "node", "alert"])]
    kind: Option<String>,
    /// Only what happened on this node, or to it
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    node: Option<String>,
    /// Only what happened to this workload
    #[arg(long, value_name = "WORKLOAD", add = crate::complete::workloads())]
    workload: Option<String>,
    /// Only events since then: 1h, "yesterday 14:00", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Only the newest so many [default: 1000, or 10 with -f]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        // Names may be shortened; what is there no more is looked for as it was written.
        let node = match self.node {
            Some(id) => match client.call::<NodeGet>(&NodeRef { id: id.clone() }).await {
                Ok(node) => Some(node.view.id.to_string()),
                Err(error) if error.code == ErrorCode::NotFound => Some(id),
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let workload = match self.workload {
            Some(id) => match client.call::<WorkloadGet>(&settings.workload(&id)).await {
                Ok(detail) => Some(detail.workload.id.to_string()),
                Err(error) if error.code == ErrorCode::NotFound => Some(id),
                Err(error) => return Err(error.into()),
            },
            None => None,
        };
        let filter = EventFilter {
            kind: self.kind.or_else(|| workload.is_some().then(|| "workload".to_owned())),
            subject: workload,
            node,
            since: self.since,
            after: None,
            limit: self.limit,
        };
        show(app, filter, self.follow).await
    }
}

/// Shows the events of a filter, and those that follow.
pub(crate) async fn show(app: &App, filter: EventFilter, follow: bool) -> Outcome {
    let client = app.client()?;
    if !follow {
        let events = client.call::<EventList>(&filter).await?;
        app.out.show(&events)?;
        return Ok(ExitCode::SUCCESS);
    }
    // What was, then what follows on it: nothing is missed in between, and nothing shown twice.
    let mut recent = filter.clone();
    if recent.since.is_none() && recent.limit.is_none() {
        recent.limit = Some(RECENT);
    }
    let events = client.call::<EventList>(&recent).await?;
    let mut filter = EventFilter {
        after: events.last().map(|event| event.id.clone()),
        since: None,
        limit: None,
        ..filter
    };
    if filter.after.is_none() {
        filter.since = or_beginning(recent.since);
    }
    for event in &events {
        print(app, event)?;
    }
    let mut stream = client.go_on::<EventWatch>(filter);
    while let Some(event) = stream.next().await? {
        print(app, &event)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where nothing has happened yet, all that will happen is wanted.
fn or_beginning(since: Option<Timestamp>) -> Option<Timestamp> {
    Some(since.unwrap_or(Timestamp::UNIX_EPOCH))
}

fn print(app: &App, event: &Event) -> Result<(), Failure> {
    match app.out.format {
        Format::Table => app.out.print(&event_line(event)),
        Format::Name => app.out.print(&format!("{}\n", event.id)),
        Format::Json | Format::Yaml | Format::Jsonl => app.out.item(event),
    }
}
