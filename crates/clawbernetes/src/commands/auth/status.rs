//! `clawbernetes auth status`

use std::process::ExitCode;

use api::{
    ApiError,
    auth::Identity,
    op::{Empty, WhoAmI},
};
use serde::Serialize;

use crate::{
    cli::App,
    failure::{Failure, Outcome},
    output::{Page, Render, dash, identity_fields},
};

/// Show which gateway, token and namespace are used, where each comes from, and whether the gateway accepts them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes auth status")]
pub(crate) struct Args {}

/// A setting and where it came from.
#[derive(Debug, Serialize)]
struct Setting {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    source: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    context: Option<String>,
    gateway: Setting,
    namespace: Setting,
    /// Where the token came from; never the token.
    token: Option<Setting>,
    identity: Option<Identity>,
    error: Option<ApiError>,
}

impl Render for Status {
    fn render(&self, page: &mut Page) {
        let told = |setting: &Setting| format!("{} ({})", dash(setting.value.as_deref()), setting.source);
        let mut fields = vec![
            ("Context", dash(self.context.as_deref())),
            ("Gateway", told(&self.gateway)),
            ("Namespace", told(&self.namespace)),
            (
                "Token",
                self.token
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), |token| format!("from {}", token.source)),
            ),
        ];
        if let Some(identity) = &self.identity {
            fields.extend(identity_fields(identity, page));
        }
        page.fields(fields);
    }

    fn names(&self) -> Vec<String> {
        self.identity.iter().map(|identity| identity.name.clone()).collect()
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let (identity, error) = match client.call::<WhoAmI>(&Empty {}).await {
            Ok(identity) => (Some(identity), None),
            Err(error) => (None, Some(error)),
        };
        let status = Status {
            context: settings.context.clone(),
            gateway: Setting {
                value: Some(settings.gateway.value.clone()),
                source: settings.gateway.source.to_string(),
            },
            namespace: Setting {
                value: Some(settings.namespace.value.clone()),
                source: settings.namespace.source.to_string(),
            },
            token: settings.token.as_ref().map(|token| Setting {
                value: None,
                source: token.source.to_string(),
            }),
            identity,
            error: error.clone(),
        };
        app.out.show(&status)?;
        match error {
            None => Ok(ExitCode::SUCCESS),
            Some(error) => Err(Failure::from(error)),
        }
    }
}
