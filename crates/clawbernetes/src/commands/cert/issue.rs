//! `clawbernetes cert issue`

use std::{path::PathBuf, process::ExitCode};

use api::{
    ApiError, Span,
    op::{CertAlgorithm, CertCa, CertIssue, CertIssueRequest, CertPurpose, Empty},
    secret::check_secret_name,
};
use clap::ValueEnum;

use super::{Folder, hand_over};
use crate::{cli::App, commands::secret::life, failure::Outcome};

/// Issue a certificate of the fleet's own authority, with a new key
///
/// The key is made by the gateway, shown once and not kept. Without --out the chain and the key are printed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes cert issue model-server --san model.lab.example --san 10.0.0.7 --out tls\n  \
    clawbernetes cert issue ingest --san ingest.lab.example --purpose client --validity 30d > ingest.pem\n  \
    clawbernetes cert issue old-client --san old.lab.example --algorithm rsa --key-size 3072 --out tls"
)]
pub(crate) struct Args {
    /// What it is called here; its subject's common name too
    name: String,
    /// A DNS name or an IP address that it is for; may be given several times
    #[arg(long = "san", value_name = "NAME|IP", required = true)]
    sans: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = life)]
    validity: Span,
    /// Which kind of key
    #[arg(long, value_enum, default_value_t = Algorithm::Ecdsa)]
    algorithm: Algorithm,
    /// Bits of the key: 256 or 384 for ecdsa, 2048, 3072 or 4096 for rsa [default: 256, 2048]
    #[arg(long, value_name = "BITS")]
    key_size: Option<u32>,
    /// What it is for
    #[arg(long, value_enum, default_value_t = Purpose::Both)]
    purpose: Purpose,
    /// Write NAME.crt, NAME.chain.crt, NAME.key (for its owner alone) and ca.crt to this folder
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Replace files that are there; they are kept as FILE.old
    #[arg(long, requires = "out")]
    force: bool,
}

/// The kinds of keys by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Algorithm {
    /// ECDSA over P-256 or P-384
    Ecdsa,
    /// RSA, for what knows nothing newer
    Rsa,
}

/// What certificates are for, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purpose {
    /// TLS servers and clients
    Both,
    /// TLS servers
    Server,
    /// TLS clients
    Client,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        self.check_key_size()?;
        let folder = match &self.out {
            Some(out) => Some(Folder::prepare(out, &self.name, self.force)?),
            None => None,
        };
        let client = app.client()?;
        if let Some(folder) = folder.as_ref().filter(|_| !self.force) {
            folder.check_authority(&client.call::<CertCa>(&Empty {}).await?.certificate)?;
        }
        let request = CertIssueRequest {
            name: self.name,
            sans: self.sans,
            validity: self.validity,
            algorithm: match self.algorithm {
                Algorithm::Ecdsa => CertAlgorithm::Ecdsa,
                Algorithm::Rsa => CertAlgorithm::Rsa,
            },
            key_size: self.key_size,
            purpose: match self.purpose {
                Purpose::Both => CertPurpose::Both,
                Purpose::Server => CertPurpose::Server,
                Purpose::Client => CertPurpose::Client,
            },
        };
        let cert = client.call::<CertIssue>(&request).await?;
        hand_over(app, &cert, folder)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Refuses sizes that the kind of key doesn't have.
    fn check_key_size(&self) -> Result<(), ApiError> {
        let (sizes, kind, other): (&[u32], _, _) = match self.algorithm {
            Algorithm::Ecdsa => (&[256, 384], "an ECDSA", "rsa"),
            Algorithm::Rsa => (&[2048, 3072, 4096], "an RSA", "ecdsa"),
        };
        let Some(size) = self.key_size.filter(|size| !sizes.contains(size)) else {
            return Ok(());
        };
        let listed: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let message = format!("{size} is no size of {kind} key (accepted: {})", listed.join(", "));
        Err(ApiError::invalid("--key-size", message).hint(format!("or another kind of key: --algorithm {other}")))
    }
}
