//! `clawbernetes cert rotate`

use std::{path::PathBuf, process::ExitCode};

use api::{
    op::{CertRotate, CertRotateRequest},
    secret::check_secret_name,
};

use super::{Folder, hand_over};
use crate::{cli::App, failure::Outcome};

/// Issue a certificate in an older one's place, with a new key; the old one holds until its end
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes cert rotate model-server --out tls\n  \
    clawbernetes cert rotate model-server --force --revoke-old --out tls")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::certs())]
    name: String,
    /// Also where it isn't near its end
    #[arg(long)]
    force: bool,
    /// Take the old one back at once
    #[arg(long)]
    revoke_old: bool,
    /// Write NAME.crt, NAME.chain.crt, NAME.key and ca.crt to this folder; those that are there are kept as FILE.old
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let folder = match &self.out {
            Some(out) => Some(Folder::prepare(out, &self.name, true)?),
            None => None,
        };
        let request = CertRotateRequest {
            name: self.name,
            force: self.force,
            revoke_old: self.revoke_old,
        };
        let cert = app.client()?.call::<CertRotate>(&request).await?;
        hand_over(app, &cert, folder)?;
        Ok(ExitCode::SUCCESS)
    }
}
