//! `clawbernetes deploy promote`

use api::op::{DeployPromote, PromoteRequest};

use super::{named, stands, tell, watch::Wanted};
use crate::{cli::App, failure::Outcome};

/// Let a deployment go on: a canary to all replicas, a blue-green one to its switch
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  clawbernetes deploy promote model-server\n  clawbernetes deploy promote dep-7k2 --percentage 50\n  \
    clawbernetes deploy promote dep-7k2 --force --watch"
)]
pub(crate) struct Args {
    /// Its id, the beginning of it, or its service's name
    #[arg(value_name = "DEPLOYMENT", add = crate::complete::deployments())]
    id: String,
    /// Although an analysis fails or can't tell
    #[arg(long)]
    force: bool,
    /// Only up to this part of the requests, in percent [default: all the way]
    #[arg(long, value_name = "N", value_parser = percentage)]
    percentage: Option<f64>,
    /// Follow it to its end
    #[arg(long, short = 'w')]
    watch: bool,
}

/// Reads a part in percent: above 0, at most 100, with or without its sign.
fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if number > 0.0 && number <= 100.0 => Ok(number),
        _ => Err("accepted: a number above 0 and up to 100".to_owned()),
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let (client, settings) = app.session()?;
        let request = PromoteRequest {
            id: self.id,
            namespace: settings.named_namespace(),
            force: self.force,
            percentage: self.percentage.filter(|part| *part < 100.0),
        };
        let status = client.call::<DeployPromote>(&request).await?;
        let upto = match request.percentage {
            Some(part) => format!("up to {part}% of the requests"),
            None => "all the way".to_owned(),
        };
        let sentence = format!("{} is promoted {upto}; {}", named(&status), stands(&status));
        tell(app, &client, &status, &sentence, self.watch.then_some(Wanted::Done)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_percentage() {
        assert_eq!(percentage("12.5"), Ok(12.5));
        assert_eq!(percentage("100%"), Ok(100.0));
        for bad in ["0", "-1", "101", "NaN", "inf", "half", ""] {
            assert!(percentage(bad).is_err(), "{bad}");
        }
    }
}
