//! `clawbernetes auth token create`

use std::process::ExitCode;

use api::{
    auth::Role,
    op::{TokenCreate, TokenRequest},
};
use clap::ValueEnum;

use super::super::Expiry;
use crate::{cli::App, failure::Outcome};

/// Make a token for a person or a program; prints the token alone, once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes auth token create alice --role operator --expires 90d\n  \
    clawbernetes auth token create --role viewer --json | jq -r .token"
)]
pub(crate) struct Args {
    /// The identity that it stands for [default: the role's name]
    name: Option<String>,
    /// What it lets its bearer do
    #[arg(long, value_enum)]
    role: RoleName,
    /// How long it works: a duration, or never
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    expires: Expiry,
}

/// The roles that people and programs can have.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Sees everything but secrets, changes nothing
    Viewer,
    /// Runs and stops work, drains nodes
    Operator,
    /// Everything, identities included
    Admin,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let role = match self.role {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::Admin => Role::Admin,
        };
        let request = TokenRequest {
            name: self.name.unwrap_or_else(|| role.name().to_owned()),
            role,
            expires: self.expires.0,
        };
        let token = app.client()?.call::<TokenCreate>(&request).await?;
        app.out.show(&token)?;
        Ok(ExitCode::SUCCESS)
    }
}
