//! `clawbernetes node`

mod drain;
mod events;
mod info;
mod label;
mod list;
mod remove;
pub(crate) mod start;
mod taint;
mod undrain;

use api::{Timestamp, time::parse_past};
use jiff::Zoned;

use crate::{cli::App, failure::Outcome};

/// What can be done with nodes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Start(Box<start::Args>),
    List(list::Args),
    Info(info::Args),
    Events(events::Args),
    Drain(drain::Args),
    Undrain(undrain::Args),
    Label(label::Args),
    Taint(taint::Args),
    Remove(remove::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Start(args) => args.run(app),
            Self::List(args) => app.block_on(args.run(app)),
            Self::Info(args) => app.block_on(args.run(app)),
            Self::Events(args) => app.block_on(args.run(app)),
            Self::Drain(args) => app.block_on(args.run(app)),
            Self::Undrain(args) => app.block_on(args.run(app)),
            Self::Label(args) => app.block_on(args.run(app)),
            Self::Taint(args) => app.block_on(args.run(app)),
            Self::Remove(args) => app.block_on(args.run(app)),
        }
    }
}

/// A point in the past, as a flag's value.
pub(super) fn past(text: &str) -> Result<Timestamp, String> {
    parse_past(text, &Zoned::now()).map_err(|error| error.to_string())
}

/// `key=value`, as a flag's value.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' isn't of the form KEY=VALUE")),
    }
}
