//! `clawbernetes context use`

use std::process::ExitCode;

use crate::{cli::App, config::Config, failure::Outcome};

/// Make a context the current one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes context use lab")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::contexts())]
    name: String,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        let path = Config::path()?;
        let mut config = Config::load(&path)?;
        config.context(&self.name)?;
        config.current_context = Some(self.name.clone());
        config.save(&path)?;
        app.out.note(&format!("using context {}", self.name));
        Ok(ExitCode::SUCCESS)
    }
}
