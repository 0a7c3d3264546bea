//! `clawbernetes auth token create`

use std::process::ExitCode;

use api::{
    ApiError,
    auth::{Role, Scope},
    op::{TokenCreate, TokenRequest},
};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use super::super::Expiry;
use crate::{cli::App, failure::Outcome};

/// Make a token for a person or a program; prints the token alone, once
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes auth token create alice --role operator --expires 90d\n  \
    clawbernetes auth token create ci --role operator --for-namespace ci\n  \
    clawbernetes auth token create backup --scope read --scope read-audit --expires never\n  \
    clawbernetes auth token create --role viewer --json | jq -r .token"
)]
pub(crate) struct Args {
    /// The identity that it stands for [default: the role's name]
    name: Option<String>,
    /// What it lets its bearer do
    #[arg(long, value_enum, required_unless_present = "scope", conflicts_with = "scope")]
    role: Option<RoleName>,
    /// In place of a role: one thing that it lets its bearer do; may be given several times
    #[arg(long, value_name = "SCOPE", value_parser = scope())]
    scope: Vec<Scope>,
    /// The only namespace that it is for: it sees and changes nothing of others, and nothing of the fleet itself
    #[arg(long, value_name = "NAMESPACE")]
    for_namespace: Option<String>,
    /// How long it works: a duration, or never
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    expires: Expiry,
}

/// The roles that people and programs can have.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Sees everything but secrets, changes nothing
    Viewer,
    /// Runs and stops work, drains nodes, sets secrets without seeing them
    Operator,
    /// Everything, identities included
    Admin,
}

fn scope() -> impl TypedValueParser<Value = Scope> {
    PossibleValuesParser::new(Scope::GIVEN.map(|(name, _)| name)).try_map(|name| name.parse::<Scope>())
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        if app.globals.namespace.is_some() {
            // Not binding it would give more than was meant.
            return Err(ApiError::invalid(
                "--namespace",
                "--namespace says where names are looked up, and tokens have no namespace",
            )
            .hint("bind it to one with: --for-namespace NAMESPACE")
            .into());
        }
        let role = match self.role {
            Some(RoleName::Viewer) => Role::Viewer,
            Some(RoleName::Operator) => Role::Operator,
            Some(RoleName::Admin) => Role::Admin,
            None => Role::Custom,
        };
        let mut scopes = self.scope;
        scopes.sort_unstable();
        scopes.dedup();
        let request = TokenRequest {
            name: self.name.unwrap_or_else(|| role.name().to_owned()),
            role,
            scopes,
            namespace: self.for_namespace,
            expires: self.expires.0,
        };
        let token = app.client()?.call::<TokenCreate>(&request).await?;
        app.out.show(&token)?;
        Ok(ExitCode::SUCCESS)
    }
}
