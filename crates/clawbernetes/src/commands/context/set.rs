//! `clawbernetes context set`

use std::process::ExitCode;

use api::{ApiError, ErrorCode, id::check_name};

use crate::{cli::App, client::Endpoint, config::Config, failure::Outcome};

/// Make a context, or change what --gateway, --token and --namespace name of it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes context set lab --gateway ws://gpu-head:9000 --namespace research\n  \
    clawbernetes context set lab --token \"$TOKEN\" --use"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::contexts())]
    name: String,
    /// Make it the current one too (the first context is anyway)
    #[arg(long = "use")]
    make_current: bool,
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        check_name(&self.name).map_err(|error| {
            ApiError::invalid("NAME", format!("'{}' is no name for a context", self.name)).cause(error.to_string())
        })?;
        let globals = &app.globals;
        let path = Config::path()?;
        let mut config = Config::load(&path)?;
        let nothing = globals.gateway.is_none() && globals.token.is_none() && globals.namespace.is_none();
        if nothing && !(self.make_current && config.contexts.contains_key(&self.name)) {
            return Err(ApiError::new(ErrorCode::InvalidArgument, "there is nothing to set")
                .hint("give --gateway, --token or --namespace")
                .into());
        }
        if let Some(gateway) = &globals.gateway {
            Endpoint::parse(gateway)?;
        }
        if let Some(namespace) = &globals.namespace {
            check_name(namespace).map_err(|error| {
                ApiError::invalid("--namespace", format!("'{namespace}' is no namespace")).cause(error.to_string())
            })?;
        }
        let first = config.contexts.is_empty();
        let context = config.contexts.entry(self.name.clone()).or_default();
        for (place, given) in [
            (&mut context.gateway, &globals.gateway),
            (&mut context.token, &globals.token),
            (&mut context.namespace, &globals.namespace),
        ] {
            if given.is_some() {
                place.clone_from(given);
            }
        }
        if first || self.make_current {
            config.current_context = Some(self.name.clone());
        }
        config.save(&path)?;
        let current = config.current_context.as_ref() == Some(&self.name);
        app.out.note(&format!(
            "set context {}{} in {}",
            self.name,
            if current { " (current)" } else { "" },
            path.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}
