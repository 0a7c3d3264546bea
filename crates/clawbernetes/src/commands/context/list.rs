//! `clawbernetes context list`

use std::process::ExitCode;

use serde::Serialize;

use crate::{
    cli::App,
    config::{Config, DEFAULT_GATEWAY, DEFAULT_NAMESPACE},
    failure::Outcome,
    output::{Grid, Page, Render},
};

/// List the contexts; `*` marks the current one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes context list")]
pub(crate) struct Args {}

/// A context without its token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    current: bool,
    gateway: String,
    namespace: String,
    has_token: bool,
}

impl Render for Vec<Listed> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No contexts. Make one with: clawbernetes context set NAME --gateway URL");
            return;
        }
        let mut grid = Grid::new(["", "NAME", "GATEWAY", "NAMESPACE", "TOKEN"]);
        for context in self {
            grid.row([
                if context.current { "*" } else { " " },
                &context.name,
                &context.gateway,
                &context.namespace,
                if context.has_token { "yes" } else { "-" },
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|context| context.name.clone()).collect()
    }
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        let config = Config::load(&Config::path()?)?;
        let listed: Vec<Listed> = config
            .contexts
            .iter()
            .map(|(name, context)| Listed {
                name: name.clone(),
                current: config.current_context.as_ref() == Some(name),
                gateway: context.gateway.clone().unwrap_or_else(|| DEFAULT_GATEWAY.to_owned()),
                namespace: context
                    .namespace
                    .clone()
                    .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
                has_token: context.token.is_some(),
            })
            .collect();
        app.out.show(&listed)?;
        Ok(ExitCode::SUCCESS)
    }
}
