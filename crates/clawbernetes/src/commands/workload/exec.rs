//! `clawbernetes workload exec`

use std::process::ExitCode;

use api::op::ExecStart;

use crate::{cli::App, failure::Outcome};

/// Run a command in a running workload; exits with the command's code
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes workload exec gpt-finetune -- nvidia-smi\n  \
    tar c patch | clawbernetes workload exec gpt-finetune -- tar x"
)]
pub(crate) struct Args {
    /// Its id, its name, or the beginning of either
    #[arg(value_name = "WORKLOAD", add = crate::complete::workloads())]
    id: String,
    /// The member of a gang
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    rank: u32,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let start = ExecStart {
            id: self.id,
            namespace: settings.named_namespace(),
            rank: self.rank,
            command: self.command,
        };
        let code = client.exec(&start).await?;
        Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)))
    }
}
