//! `clawbernetes deploy`

mod apply;
mod history;
mod list;
mod pause;
mod promote;
mod replay;
mod resume;
mod retry;
mod rollback;
mod status;
#[cfg(test)]
mod tests;
mod watch;

use std::process::ExitCode;

use api::{ApiError, ErrorCode, Span, nearest, op::DeploymentStatus};
use clap::Subcommand;

use self::watch::{Wanted, follow};
use crate::{cli::App, client::Client, failure::Outcome, output::Format};

/// Do what a sentence says: bring a service or a batch job, change it, scale it, take it back
///
/// The sentence is turned into a plan by fixed rules; what isn't understood is an error, never a guess. Left unsaid:
/// rolling, a canary of 10%, replicas must be ready, done within 30m.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_negates_reqs = true,
    override_usage = "clawbernetes deploy [OPTIONS] <SENTENCE>...\n       clawbernetes deploy <COMMAND>",
    after_help = "Examples:\n  \
        clawbernetes deploy \"deploy pytorch-train with 4 GPUs, canary 10% first\" --image registry/train:v2 --dry-run\n  \
        clawbernetes deploy \"update model-server to v2.1, rollback if errors > 1%\" --watch\n  \
        clawbernetes deploy \"blue-green deploy api-server v3.0, switch after health check\" --confirm\n  \
        clawbernetes deploy \"deploy new-model at 2am with 5% canary, promote after 1 hour if healthy\" --file model.yaml\n  \
        clawbernetes deploy scale inference to 8 replicas"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// What is to be done, in words; in quotes where it holds what a shell reads itself [default with --file: deploy]
    #[arg(value_name = "SENTENCE", required_unless_present = "file")]
    words: Vec<String>,
    /// Show the plan, and change nothing
    #[arg(long, conflicts_with_all = ["confirm", "watch"])]
    dry_run: bool,
    /// Show the plan and ask before it is applied
    #[arg(long)]
    confirm: bool,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// Follow it to its end; exits with 1 where it fails or is rolled back
    #[arg(long, short = 'w')]
    watch: bool,
    /// By when it must be done, or it goes back [default: 30m]
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// The image of the new revision [default: the sentence's, or the one before with the version as its tag]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Manifest of what a replica runs (YAML or JSON; - for standard input); the sentence changes what it names. Its name
    /// counts where the sentence names nothing, its labels and annotations are each replica's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Also a revision that failed before
    #[arg(long)]
    force: bool,
}

/// What can be done with deployments.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(status::Args),
    List(list::Args),
    History(history::Args),
    Promote(promote::Args),
    Rollback(rollback::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Retry(retry::Args),
    Replay(replay::Args),
}

impl Args {
    pub(crate) async fn run(mut self, app: &App) -> Outcome {
        let Some(command) = self.command.take() else {
            let sentence = self.sentence()?;
            return self.apply(app, sentence).await;
        };
        if let Some(given) = self.given() {
            let error = ApiError::invalid(given, format!("{given} belongs to a sentence, not before a command"));
            return Err(error
                .hint("put the sentence into quotes, or the flag behind the command")
                .into());
        }
        match command {
            Command::Status(args) => args.run(app).await,
            Command::List(args) => args.run(app).await,
            Command::History(args) => args.run(app).await,
            Command::Promote(args) => args.run(app).await,
            Command::Rollback(args) => args.run(app).await,
            Command::Pause(args) => args.run(app).await,
            Command::Resume(args) => args.run(app).await,
            Command::Retry(args) => args.run(app).await,
            Command::Replay(args) => args.run(app).await,
        }
    }

    /// The words as one sentence.
    fn sentence(&self) -> Result<String, ApiError> {
        let sentence = self.words.join(" ").trim().to_owned();
        // What it is called and what it runs: both are in the manifest.
        if self.words.is_empty() && self.file.is_some() {
            return Ok("deploy".to_owned());
        }
        if sentence.is_empty() {
            return Err(refused("the sentence is empty")
                .hint("say what is to be done, as in: clawbernetes deploy \"scale inference to 8 replicas\""));
        }
        if !sentence.contains(char::is_whitespace) {
            let commands = Command::augment_subcommands(clap::Command::new("deploy"));
            let names = commands.get_subcommands().map(clap::Command::get_name);
            if let Some(near) = nearest(&sentence, names) {
                return Err(refused(&format!("'{sentence}' is neither a command nor a sentence"))
                    .hint(format!("did you mean 'clawbernetes deploy {near}'?")));
            }
        }
        Ok(sentence)
    }

    /// What of a sentence was given.
    fn given(&self) -> Option<&'static str> {
        let given = [
            ("the sentence", !self.words.is_empty()),
            ("--dry-run", self.dry_run),
            ("--confirm", self.confirm),
            ("--yes", self.yes),
            ("--watch", self.watch),
            ("--timeout", self.timeout.is_some()),
            ("--image", self.image.is_some()),
            ("--file", self.file.is_some()),
            ("--reason", self.reason.is_some()),
            ("--force", self.force),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

/// Words that can't be a sentence.
fn refused(why: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, why)
}

/// Prints the id of a deployment that was asked for, alone, and follows it to its end where that is wanted.
async fn begun(app: &App, client: &Client, status: &DeploymentStatus, watch: Option<Wanted>) -> Outcome {
    let id = &status.summary.id;
    match (app.out.format, watch) {
        (Format::Table, _) | (Format::Name, None) => app.out.print(&format!("{id}\n"))?,
        (_, Some(_)) => app.out.note(id.as_str()),
        (_, None) => app.out.data(status)?,
    }
    match watch {
        Some(wanted) => follow(app, client, status, wanted, std::io::stderr()).await,
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Tells what became of a deployment, and follows it to its end where that is wanted.
async fn tell(app: &App, client: &Client, status: &DeploymentStatus, sentence: &str, watch: Option<Wanted>) -> Outcome {
    match watch {
        Some(wanted) => {
            app.out.note(sentence);
            follow(app, client, status, wanted, std::io::stdout()).await
        }
        None if app.out.format == Format::Table => {
            app.out.done(sentence)?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            app.out.show(status)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// `dep-… (model-server)`.
fn named(status: &DeploymentStatus) -> String {
    format!("{} ({})", status.summary.id, status.summary.workload)
}

/// The phase, with what it is about just now.
fn stands(status: &DeploymentStatus) -> String {
    match &status.message {
        Some(message) => format!("{}: {message}", status.summary.phase),
        None => status.summary.phase.to_string(),
    }
}
