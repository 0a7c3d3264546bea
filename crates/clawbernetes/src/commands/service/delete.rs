//! `clawbernetes service delete`

use std::process::ExitCode;

use api::op::{ServiceDelete, ServiceDeleteRequest, ServiceGet, ServiceRef, ServiceView};

use crate::{
    cli::App,
    failure::Outcome,
    output::{Format, replicas},
    terminal,
};

/// End a service: its replicas, its address and its revisions; nobody can bring them back
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes service delete model-server\n  clawbernetes service delete model-server --force"
)]
pub(crate) struct Args {
    /// Its name
    #[arg(value_name = "SERVICE", add = crate::complete::services())]
    name: String,
    /// Although a deployment is under way. Doesn't ask
    #[arg(long)]
    force: bool,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let namespace = settings.named_namespace();
        if !self.yes && !self.force {
            let request = ServiceRef {
                name: self.name.clone(),
                namespace: namespace.clone(),
            };
            let service = client.call::<ServiceGet>(&request).await?;
            terminal::confirm(&question(&service), false, "--yes")?;
        }
        let request = ServiceDeleteRequest {
            name: self.name,
            namespace,
            force: self.force,
        };
        let service = client.call::<ServiceDelete>(&request).await?;
        if app.out.format == Format::Table {
            app.out
                .done(&format!("{}/{} is deleted", service.namespace, service.name))?;
        } else {
            app.out.show(&service)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What will be gone.
fn question(service: &ServiceView) -> String {
    let address = service
        .address
        .as_ref()
        .map(|address| format!(" {address} isn't served any more."))
        .unwrap_or_default();
    format!(
        "Delete the service {}/{} for good? {} of its {} ready.{address}",
        service.namespace,
        service.name,
        service.ready,
        match service.replicas {
            1 => "1 replica is".to_owned(),
            _ => format!("{} are", replicas(service.replicas)),
        }
    )
}
