//! `clawbernetes audit list`

use std::process::ExitCode;

use api::{
    Timestamp,
    op::{AuditFilter, AuditList},
};

use crate::{cli::App, commands::node::past, failure::Outcome, output::Format};

/// Records that a table shows unless somebody says otherwise; the newest count.
const TABLE_LIMIT: u32 = 100;

/// List who did what, and what was refused, oldest first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes audit list --since 1h\n  clawbernetes audit list --denied\n  \
    clawbernetes audit list --action secret.get --target secret/prod/db-password\n  \
    clawbernetes audit list -o jsonl > audit.jsonl"
)]
pub(crate) struct Args {
    /// Only records since then: 1h, "yesterday 14:00", 2026-02-16T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Only records before then
    #[arg(long, value_name = "TIME", value_parser = past)]
    until: Option<Timestamp>,
    /// Only what this identity did: user:alice, node:gpu-7, or the name alone
    #[arg(long, value_name = "WHO")]
    actor: Option<String>,
    /// Only what was done to this: a name, an id, or what it begins with
    #[arg(long, value_name = "WHAT")]
    target: Option<String>,
    /// Only calls of this operation, or of those that begin so: secret.get, secret
    #[arg(long, value_name = "OPERATION")]
    action: Option<String>,
    /// Only what was refused
    #[arg(long)]
    denied: bool,
    /// At most this many, the newest [default: 100 in the table, else all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let table = app.out.format == Format::Table;
        let filter = AuditFilter {
            since: self.since,
            until: self.until,
            actor: self.actor,
            target: self.target,
            action: self.action,
            denied: self.denied,
            limit: self.limit.or(table.then_some(TABLE_LIMIT)),
        };
        let records = app.client()?.call::<AuditList>(&filter).await?;
        app.out.show(&records)?;
        if table && self.limit.is_none() && records.len() >= TABLE_LIMIT as usize {
            app.out
                .note("these are the newest 100; more with --limit N, all with --json or -o jsonl");
        }
        Ok(ExitCode::SUCCESS)
    }
}
