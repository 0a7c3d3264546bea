//! `clawbernetes man`

use std::{fs, path::PathBuf, process::ExitCode};

use api::{ApiError, ErrorCode};
use clap::CommandFactory;

use crate::{
    cli::{App, Cli},
    failure::Outcome,
};

/// Print the manual page, or write the pages of all commands into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes man | man -l -\n  clawbernetes man --out /usr/local/share/man/man1")]
pub(crate) struct Args {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        let command = Cli::command();
        match self.out {
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                app.out.print(&String::from_utf8_lossy(&page))?;
            }
            Some(folder) => {
                let written = fs::create_dir_all(&folder).and_then(|()| clap_mangen::generate_to(command, &folder));
                written.map_err(|error| {
                    ApiError::new(
                        ErrorCode::InvalidArgument,
                        format!("the pages can't be written to {}", folder.display()),
                    )
                    .cause(error.to_string())
                })?;
                app.out.note(&format!("written to {}", folder.display()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
