//! `clawbernetes deploy replay`

use std::process::ExitCode;

use api::{
    ApiError, ErrorCode,
    deploy::Verdict,
    op::{DeployGet, DeploymentStatus},
};
use rollout::analysis::judge;
use serde::Deserialize;

use crate::{
    cli::App,
    failure::Outcome,
    manifest_file,
    output::{Again, Replay},
};

/// Exit status where a verdict isn't what it was.
const DIFFERENT: u8 = 1;

/// Judge a deployment's recorded verdicts again, on what they stood on
///
/// A verdict is a function of its evidence alone: the same evidence gives the same verdict, here as at the gateway. Exits
/// with 1 where one differs, as it may between versions.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes deploy replay model-server\n  \
    clawbernetes deploy status dep-7k2 --json > status.json && clawbernetes deploy replay --file status.json")]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name (the latest one)
    #[arg(value_name = "DEPLOYMENT", required_unless_present = "file", conflicts_with = "file", add = crate::complete::deployments())]
    id: Option<String>,
    /// What `deploy status --json` printed (- for standard input); no gateway is needed
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<String>,
}

/// Of a status, what is judged again: the rest may be of another version.
#[derive(Deserialize)]
struct Recorded {
    verdicts: Vec<Verdict>,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let verdicts = match (&self.file, &self.id) {
            (Some(file), _) => recorded(file, &manifest_file::text_of("file", file)?)?,
            (None, id) => {
                let (client, settings) = app.session()?;
                let reference = settings.deployment(id.as_deref().unwrap_or_default());
                let status: DeploymentStatus = client.call::<DeployGet>(&reference).await?;
                status.verdicts
            }
        };
        let replay = again(verdicts);
        let same = replay.0.iter().all(|one| one.same);
        app.out.show(&replay)?;
        Ok(ExitCode::from(if same { 0 } else { DIFFERENT }))
    }
}

fn recorded(file: &str, text: &str) -> Result<Vec<Verdict>, ApiError> {
    let status: Recorded = serde_json::from_str(text).map_err(|error| {
        ApiError::new(
            ErrorCode::InvalidArgument,
            format!("{file} doesn't hold a deployment's status"),
        )
        .cause(error.to_string())
        .hint("make one with: clawbernetes deploy status <id> --json")
    })?;
    Ok(status.verdicts)
}

/// Judges each verdict once more, for the moment at which it was judged.
fn again(verdicts: Vec<Verdict>) -> Replay {
    let judged = verdicts.into_iter().map(|recorded| {
        let again = judge(&recorded.evidence, recorded.at);
        Again {
            same: again == recorded,
            recorded,
            again,
        }
    });
    Replay(judged.collect())
}

#[cfg(test)]
mod tests {
    use api::deploy::{Evidence, Outcome};
    use serde_json::json;

    use super::*;
    use crate::output::Render as _;

    /// A verdict as a gateway would have recorded it.
    fn verdict(failed: u64) -> Verdict {
        let evidence: Evidence = serde_json::from_value(json!({
            "condition": {"metric": {"kind": "error-rate"}, "operator": ">", "threshold": 0.01}, "purpose": "rollback",
            "from": "2026-02-16T13:55:00Z", "to": "2026-02-16T14:00:00Z", "query": "q",
            "subject": {"count": 1000, "failed": failed, "value": failed as f64 / 1000.0}, "baseline": null, "error": null,
        }))
        .unwrap();
        judge(&evidence, "2026-02-16T14:00:00Z".parse().unwrap())
    }

    #[test]
    fn the_same_evidence_gives_the_same_verdict_and_another_one_shows() {
        let status = json!({"id": "dep-0000000001", "verdicts": [verdict(0), verdict(333)]}).to_string();
        let replay = again(recorded("f", &status).unwrap());
        assert_eq!(replay.0.iter().map(|one| one.same).collect::<Vec<_>>(), [true, true]);
        assert_eq!(replay.0[1].again.outcome, Outcome::Fail);

        let mut changed = verdict(333);
        changed.outcome = Outcome::Pass;
        let replay = again(vec![verdict(0), changed]);
        assert_eq!(replay.0.iter().map(|one| one.same).collect::<Vec<_>>(), [true, false]);
        assert_eq!(replay.names(), ["same", "different"]);
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for text in ["", "[]", "{}", "{\"verdicts\": [1]}"] {
            let error = recorded("status.json", text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains("status.json"), "{}", error.message);
        }
    }
}
