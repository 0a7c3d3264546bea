//! `clawbernetes node events`

use api::{
    Timestamp,
    op::{EventFilter, NodeGet, NodeRef},
};

use super::past;
use crate::{cli::App, commands::events, failure::Outcome};

/// Show what happened on a node, and to it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes node events gpu-7 --since \"24h ago\"\n  clawbernetes node events gpu-7 -f"
)]
pub(crate) struct Args {
    /// Its name, or the beginning of it
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    id: String,
    /// Only events since then: "24h ago", "yesterday 14:00", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Go on with events as they happen
    #[arg(short = 'f', long)]
    follow: bool,
    /// Only the newest so many [default: 1000, or 10 with -f]
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        // A node that isn't there is an error, not a node without events.
        let node = app.client()?.call::<NodeGet>(&NodeRef { id: self.id }).await?;
        let filter = EventFilter {
            node: Some(node.view.id.to_string()),
            since: self.since,
            limit: self.limit,
            ..EventFilter::default()
        };
        events::show(app, filter, self.follow).await
    }
}
