//! `clawbernetes secret`

mod delete;
mod get;
mod list;
mod rotate;
mod set;
mod source;
mod versions;

use api::{Span, op::SecretInfo};

use crate::{
    cli::App,
    failure::{Failure, Outcome},
    output::Format,
};

/// What can be done with secrets.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Set(Box<set::Args>),
    Get(get::Args),
    List(list::Args),
    Versions(versions::Args),
    Rotate(Box<rotate::Args>),
    Delete(delete::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Set(args) => app.block_on(args.run(app)),
            Self::Get(args) => app.block_on(args.run(app)),
            Self::List(args) => app.block_on(args.run(app)),
            Self::Versions(args) => app.block_on(args.run(app)),
            Self::Rotate(args) => app.block_on(args.run(app)),
            Self::Delete(args) => app.block_on(args.run(app)),
        }
    }
}

/// A sentence on what became of a secret for people, what is known of it for programs.
fn tell(app: &App, info: &SecretInfo, sentence: &str) -> Result<(), Failure> {
    if app.out.format == Format::Table {
        app.out.done(sentence)
    } else {
        app.out.show(info)
    }
}

/// A time that something lives, as a flag's value: not zero.
pub(super) fn life(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if span.is_zero() => Err("it would have expired at once".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(error.to_string()),
    }
}
