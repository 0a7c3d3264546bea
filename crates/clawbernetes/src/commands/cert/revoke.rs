//! `clawbernetes cert revoke`

use std::process::ExitCode;

use api::{
    ApiError, nearest,
    op::{CertFilter, CertInfo, CertList, CertRevoke, CertRevokeRequest, CertStatus, RevocationReason},
};
use clap::ValueEnum;

use crate::{cli::App, failure::Outcome, output::cert_status, terminal};

/// Take a certificate back: it goes on the list of revoked ones
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes cert revoke model-server --reason key-compromise\n  \
    clawbernetes cert revoke 3f0c9a… --yes"
)]
pub(crate) struct Args {
    /// Its name (the newest certificate of that name), or its serial number
    #[arg(value_name = "NAME|SERIAL", add = crate::complete::certs())]
    name: String,
    /// Why, for the list
    #[arg(long, value_enum, default_value_t = Reason::Unspecified)]
    reason: Reason,
    /// Don't ask
    #[arg(long, short = 'y')]
    yes: bool,
}

/// The reasons by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reason {
    /// No reason given
    Unspecified,
    /// Somebody else may have the key
    KeyCompromise,
    /// Another one has taken its place
    Superseded,
    /// What it was for is no more
    CessationOfOperation,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Unspecified => Self::Unspecified,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let client = app.client()?;
        let mut name = plain(&self.name);
        if !self.yes {
            let filter = CertFilter {
                expiring: None,
                all: true,
            };
            let certs = client.call::<CertList>(&filter).await?;
            let cert = named(&certs, &name)?;
            let question = format!(
                "Revoke {}, serial {}, for {}, {} until {}? Whoever looks at the list of revoked certificates refuses it \
                 from then on.",
                cert.name,
                cert.serial,
                cert.sans.join(", "),
                cert_status(cert.status),
                cert.not_after.strftime("%Y-%m-%d")
            );
            terminal::confirm(&question, false, "--yes")?;
            // What was shown, even if there is a newer one by now.
            name.clone_from(&cert.serial);
        }
        let request = CertRevokeRequest {
            name,
            reason: self.reason.into(),
        };
        let info = client.call::<CertRevoke>(&request).await?;
        app.out.show(&info)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A serial number as the gateway writes it, also where OpenSSL or a browser wrote it: `4A:3F:…`, `4A3F…`.
fn plain(text: &str) -> String {
    let hex: String = text.chars().filter(|c| *c != ':').collect();
    if !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit()) {
        hex.to_ascii_lowercase()
    } else {
        text.to_owned()
    }
}

/// The certificate of this serial number, or the newest of this name.
fn named<'a>(certs: &'a [CertInfo], name: &str) -> Result<&'a CertInfo, ApiError> {
    let of_name = || {
        let all = certs.iter().filter(|cert| cert.name == name);
        // The gateway means the same one: that which nothing has replaced.
        all.max_by_key(|cert| (cert.status != CertStatus::Replaced, cert.not_before))
    };
    certs
        .iter()
        .find(|cert| cert.serial == name)
        .or_else(of_name)
        .ok_or_else(|| {
            let error = ApiError::not_found(format!("there is no certificate '{name}'"));
            match nearest(name, certs.iter().map(|cert| cert.name.as_str())) {
                Some(near) => error.hint(format!("did you mean '{near}'?")),
                None => error.hint("see them with: clawbernetes cert list --all"),
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_are_read_as_others_write_them() {
        assert_eq!(plain("4A:3F:00"), "4a3f00");
        assert_eq!(plain("4A3F"), "4a3f");
        assert_eq!(plain("model-server"), "model-server");
        assert_eq!(plain(""), "");
    }
}
