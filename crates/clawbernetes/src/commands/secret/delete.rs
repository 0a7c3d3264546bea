//! `clawbernetes secret delete`

use std::process::ExitCode;

use api::{
    op::{SecretDelete, SecretDeleteRequest, SecretRef, SecretVersionInfo, SecretVersionState, SecretVersions},
    secret::check_secret_name,
};

use crate::{cli::App, failure::Outcome, terminal};

/// Destroy a secret's latest version, or all of it; nobody can get the value back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes secret delete db-password\n  \
    clawbernetes secret delete db-password --all-versions --force")]
pub(crate) struct Args {
    /// Its name
    #[arg(add = crate::complete::secrets())]
    name: String,
    /// All versions, and the name with them [default: the latest; the one before it is read again]
    #[arg(long)]
    all_versions: bool,
    /// Don't ask
    #[arg(long, short = 'y', visible_alias = "yes")]
    force: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        check_secret_name("name", &self.name)?;
        let (client, settings) = app.session()?;
        let namespace = settings.named_namespace();
        if !self.force {
            let request = SecretRef {
                name: self.name.clone(),
                namespace: namespace.clone(),
            };
            let versions = client.call::<SecretVersions>(&request).await?;
            // Where nobody named a namespace, which one it is depends on the token.
            let place = match &namespace {
                Some(namespace) => format!("{namespace}/{}", self.name),
                None => self.name.clone(),
            };
            terminal::confirm(&question(&place, &versions, self.all_versions), false, "--force")?;
        }
        let name = self.name.clone();
        let request = SecretDeleteRequest {
            name: self.name,
            namespace,
            all_versions: self.all_versions,
        };
        let left = client.call::<SecretDelete>(&request).await?;
        let sentence = match left.version {
            _ if self.all_versions => format!("{}/{name} is destroyed", left.namespace),
            Some(version) => format!(
                "the latest version of {}/{name} is destroyed; {version} is read now",
                left.namespace
            ),
            None => format!(
                "the latest version of {}/{name} is destroyed; none is left to read",
                left.namespace
            ),
        };
        super::tell(app, &left, &sentence)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What will be gone, and what will be read instead.
fn question(place: &str, versions: &[SecretVersionInfo], all: bool) -> String {
    let mut readable: Vec<u32> = versions
        .iter()
        .filter(|version| version.state == SecretVersionState::Readable)
        .map(|version| version.version)
        .collect();
    readable.sort_unstable();
    if all {
        let told = match readable.len() {
            0 => "none of its versions can be read any more".to_owned(),
            1 => "1 version can be read".to_owned(),
            n => format!("{n} versions can be read"),
        };
        return format!("Destroy the secret {place} for good? {told}.");
    }
    match readable.as_slice() {
        [.., before, last] => {
            format!("Destroy version {last} of the secret {place} for good? Version {before} is read from then on.")
        }
        [last] => {
            format!("Destroy version {last} of the secret {place} for good? It is the only one that can be read.")
        }
        [] => format!("Destroy the latest version of the secret {place}? None can be read any more."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_what_goes_and_what_stays() {
        let version = |version, state| SecretVersionInfo {
            version,
            state,
            current: false,
            created_at: api::Timestamp::UNIX_EPOCH,
            created_by: "user:alice".to_owned(),
            expires_at: None,
        };
        let versions = [
            version(1, SecretVersionState::Destroyed),
            version(2, SecretVersionState::Readable),
            version(4, SecretVersionState::Readable),
        ];
        let asked = |versions, all| question("prod/db", versions, all);
        assert_eq!(
            asked(&versions, false),
            "Destroy version 4 of the secret prod/db for good? Version 2 is read from then on."
        );
        assert!(asked(&versions[..2], false).contains("version 2 of the secret prod/db for good? It is the only one"));
        assert!(asked(&versions, true).contains("2 versions can be read"));
        assert!(asked(&versions[..1], true).contains("none of its versions"));
    }
}
