//! `clawbernetes cert`

mod ca;
mod crl;
mod files;
mod issue;
mod list;
mod revoke;
mod rotate;

use api::op::IssuedCert;

use self::files::Folder;
use crate::{
    cli::App,
    failure::{Failure, Outcome},
    output::{Format, moment},
};

/// What can be done with certificates.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Issue(issue::Args),
    List(list::Args),
    Rotate(rotate::Args),
    Revoke(revoke::Args),
    Ca(ca::Args),
    Crl(crl::Args),
}

impl Command {
    pub(crate) fn run(self, app: &App) -> Outcome {
        match self {
            Self::Issue(args) => app.block_on(args.run(app)),
            Self::List(args) => app.block_on(args.run(app)),
            Self::Rotate(args) => app.block_on(args.run(app)),
            Self::Revoke(args) => app.block_on(args.run(app)),
            Self::Ca(args) => app.block_on(args.run(app)),
            Self::Crl(args) => app.block_on(args.run(app)),
        }
    }
}

/// Hands a new certificate and its key over: into a folder, or on standard output.
fn hand_over(app: &App, cert: &IssuedCert, folder: Option<Folder>) -> Result<(), Failure> {
    if let Some(folder) = folder {
        let written = folder.write(cert)?;
        app.out.show(&written)?;
    } else {
        app.out.show(cert)?;
        if app.out.format != Format::Name {
            app.out.note(
                "the private key is part of this output and is kept nowhere else: --out DIR writes files instead",
            );
        }
    }
    let (info, now) = (&cert.info, app.out.view().now);
    app.out.note(&format!(
        "{} has serial {} and ends {}",
        info.name,
        info.serial,
        moment(info.not_after, now)
    ));
    Ok(())
}
