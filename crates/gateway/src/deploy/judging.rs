//! Judging beside the steps: a Prometheus may take seconds to answer, and a service goes on meanwhile.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use api::{DeploymentId, Timestamp, deploy::Verdict};
use tokio::task::JoinSet;

/// The judging of one service's conditions: one deployment's at a time. What is under way ends with it.
#[derive(Debug, Default)]
pub struct Judging {
    /// One at most.
    under_way: JoinSet<Found>,
    /// What was judged last, or is being judged, and when that began.
    asked: Option<(DeploymentId, Instant)>,
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    deployment: DeploymentId,
    verdicts: Vec<Verdict>,
}

impl Judging {
    /// Time until a deployment's conditions may be judged again; zero: now. `None`: they are being judged.
    #[must_use]
    pub fn rest(&self, deployment: &DeploymentId, every: Duration) -> Option<Duration> {
        match &self.asked {
            Some((asked, _)) if asked == deployment && !self.under_way.is_empty() => None,
            Some((asked, at)) if asked == deployment => Some(every.saturating_sub(at.elapsed())),
            _ => Some(Duration::ZERO),
        }
    }

    /// Begins to judge; what is under way is given up.
    pub fn begin(&mut self, deployment: DeploymentId, judge: impl Future<Output = Vec<Verdict>> + Send + 'static) {
        self.under_way = JoinSet::new();
        self.asked = Some((deployment.clone(), Instant::now()));
        self.under_way.spawn(async move {
            let verdicts = judge.await;
            Found { deployment, verdicts }
        });
    }

    /// Waits until what is under way has come to its verdicts; for ever where nothing is. Cancelled, it loses nothing.
    pub async fn done(&mut self) {
        match self.under_way.join_next().await {
            Some(Ok(found)) => self.found = Some(found),
            Some(Err(error)) => tracing::error!(%error, "conditions couldn't be judged"),
            None => std::future::pending().await,
        }
    }

    /// What was found last of a deployment; it stays until something else is. What is of the future is of a clock that was
    /// set back since.
    #[must_use]
    pub fn verdicts(&self, deployment: &DeploymentId, now: Timestamp) -> &[Verdict] {
        let of_it = |found: &&Found| {
            found.deployment == *deployment && found.verdicts.iter().all(|verdict| verdict.evidence.to <= now)
        };
        self.found.as_ref().filter(of_it).map_or(&[], |found| &found.verdicts)
    }
}

#[cfg(test)]
mod tests {
    use api::deploy::{Comparison, Condition, Evidence, Outcome, Purpose, Sample, Signal};

    use super::{super::stage::at, *};

    fn verdict(second: i64) -> Verdict {
        let condition = Condition {
            metric: Signal::ErrorRate,
            operator: Comparison::Above,
            threshold: 0.01,
            window: None,
        };
        Verdict {
            at: at(second),
            outcome: Outcome::Pass,
            message: String::new(),
            method: String::new(),
            evidence: Evidence {
                condition,
                purpose: Purpose::Rollback,
                from: at(0),
                to: at(second),
                query: String::new(),
                subject: Sample {
                    count: 0,
                    failed: None,
                    value: None,
                },
                baseline: None,
                error: None,
            },
        }
    }

    const EVERY: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn what_is_found_is_of_the_deployment_that_was_asked_about() {
        let (one, other) = (DeploymentId::new("dep-1"), DeploymentId::new("dep-2"));
        let mut judging = Judging::default();
        assert_eq!(judging.rest(&one, EVERY), Some(Duration::ZERO));
        judging.begin(one.clone(), async { vec![verdict(10)] });
        assert_eq!(judging.rest(&one, EVERY), None, "one at a time");
        assert!(judging.verdicts(&one, at(11)).is_empty(), "not yet");
        judging.done().await;
        assert_eq!(judging.verdicts(&one, at(11)), [verdict(10)]);
        assert_eq!(judging.verdicts(&one, at(12)), [verdict(10)], "until it is taken in");
        assert!(judging.verdicts(&one, at(9)).is_empty(), "the clock was set back");
        assert!(judging.verdicts(&other, at(11)).is_empty());
        assert!(
            judging.rest(&one, EVERY).unwrap() > Duration::ZERO,
            "it was just judged"
        );
        assert_eq!(judging.rest(&other, EVERY), Some(Duration::ZERO));
        assert_eq!(judging.rest(&one, Duration::ZERO), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn another_deployment_doesnt_wait_for_what_nobody_needs_any_more() {
        let (one, other) = (DeploymentId::new("dep-1"), DeploymentId::new("dep-2"));
        let mut judging = Judging::default();
        judging.begin(one.clone(), std::future::pending());
        judging.begin(other.clone(), async { vec![verdict(20)] });
        judging.done().await;
        assert_eq!(judging.verdicts(&other, at(20)), [verdict(20)]);
        assert!(judging.verdicts(&one, at(20)).is_empty());
    }

    #[tokio::test]
    async fn one_that_breaks_leaves_nothing_and_may_be_asked_again() {
        let one = DeploymentId::new("dep-1");
        let mut judging = Judging::default();
        judging.begin(one.clone(), async { panic!("as a test") });
        judging.done().await;
        assert!(judging.verdicts(&one, at(20)).is_empty());
        assert_eq!(judging.rest(&one, Duration::ZERO), Some(Duration::ZERO));
    }
}
