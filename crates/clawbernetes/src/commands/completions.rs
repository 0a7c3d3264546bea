//! `clawbernetes completions`

use std::process::ExitCode;

use api::ApiError;
use clap::ValueEnum;
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use crate::{cli::App, failure::Outcome};

/// Print the completion script of a shell; names of nodes and workloads are completed live
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    echo 'source <(clawbernetes completions bash)' >> ~/.bashrc\n  \
    echo 'source <(clawbernetes completions zsh)' >> ~/.zshrc\n  \
    clawbernetes completions fish > ~/.config/fish/completions/clawbernetes.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let program = std::env::current_exe()
            .ok()
            .and_then(|path| path.into_os_string().into_string().ok())
            .unwrap_or_else(|| "clawbernetes".to_owned());
        let mut script = Vec::new();
        shell
            .write_registration("COMPLETE", "clawbernetes", "clawbernetes", &program, &mut script)
            .map_err(|error| ApiError::internal("the script can't be made").cause(error.to_string()))?;
        app.out.print(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
