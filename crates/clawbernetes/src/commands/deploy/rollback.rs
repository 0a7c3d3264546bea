//! `clawbernetes deploy rollback`

use api::op::{DeployGet, DeployRollback, DeploymentStatus, RollbackRequest};

use super::{named, refused, stands, tell, watch::Wanted};
use crate::{cli::App, failure::Outcome, output::revision, terminal};

/// Bring an earlier revision back: that of before, or another one
///
/// A deployment under way is turned back; one that has ended is undone by a new deployment. On a terminal it asks first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy rollback model-server --reason \"elevated error rate\"\n  \
    clawbernetes deploy rollback model-server --to v2.0 --watch\n  \
    clawbernetes deploy rollback dep-7k2 --immediate --yes"
)]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Words of a sentence, which belongs into quotes
    #[arg(hide = true)]
    rest: Vec<String>,
    /// The version, or the revision's number [default: the last one known to be good]
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    /// Don't wait for requests under way
    #[arg(long)]
    immediate: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also to what runs already, or to a revision that failed before
    #[arg(long)]
    force: bool,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Follow it to its end
    #[arg(long, short = 'w')]
    watch: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        if let Some(word) = self.rest.first() {
            let sentence = format!("rollback {} {}", self.id, self.rest.join(" "));
            return Err(refused(&format!("'{word}' isn't understood here"))
                .hint(format!(
                    "a sentence goes into quotes: clawbernetes deploy \"{sentence}\""
                ))
                .into());
        }
        let (client, settings) = app.session()?;
        // It can be undone, and is what one does in an emergency: where nobody can be asked, it goes ahead.
        if !self.yes && terminal::interactive() {
            let status = client.call::<DeployGet>(&settings.deployment(&self.id)).await?;
            terminal::confirm(&self.question(&status), false, "--yes")?;
        }
        let request = RollbackRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            to: self.to,
            immediate: self.immediate,
            reason: self.reason,
            force: self.force,
        };
        let status = client.call::<DeployRollback>(&request).await?;
        let sentence = format!("{} goes back; {}", named(&status), stands(&status));
        tell(app, &client, &status, &sentence, self.watch.then_some(Wanted::Back)).await
    }

    /// What goes, and what comes back.
    fn question(&self, status: &DeploymentStatus) -> String {
        let summary = &status.summary;
        let from = revision(summary.version.as_deref(), summary.revision)
            .map(|revision| format!(" from {revision}"))
            .unwrap_or_default();
        let to = match &self.to {
            Some(to) => to.clone(),
            None => match summary.from.filter(|_| !summary.phase.ended()) {
                Some(before) => format!("revision {before}"),
                None => "the last revision known to be good".to_owned(),
            },
        };
        let loss = if self.immediate {
            " Requests under way are lost."
        } else {
            ""
        };
        format!(
            "Roll {}/{} back{from} to {to}?{loss}",
            summary.namespace, summary.workload
        )
    }
}
