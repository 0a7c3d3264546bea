//! A service without a deployment under way.

use api::{Timestamp, deploy::Service};

use super::{
    SeenReplica, Step,
    fleet::{Bounds, Fleet},
    weigh::{Shares, weights},
};

/// Keeps as many replicas of the good revision as are wanted: starts missing ones, puts others in the place of those that
/// ended (with growing rests, where they ended by themselves), and takes away what is too many or left over, as far as what
/// is wanted is there. A service without a good revision has no replicas. With a deployment under way nothing is done: that
/// one's [`step`](super::step) is.
#[must_use]
pub fn steady(service: &Service, replicas: &[SeenReplica], now: Timestamp) -> Step {
    if service.deployment.is_some() {
        return Step::default();
    }
    let mut fleet = Fleet::new(service, replicas, now);
    match service.stable {
        None => fleet.clear(None),
        Some(stable) => {
            let n = service.replicas.max(1);
            // What is left over goes one for one; where there is no room for both, all but the last.
            let floor = if fleet.settled(stable) > 0 { 1 } else { n };
            let bounds = Bounds {
                cap: u32::MAX,
                whole: n,
                floor,
                patient: None,
            };
            fleet.balance(&[(stable, n)], bounds);
            fleet.service.weights = weights(&fleet, Shares::All(Some(stable)));
        }
    }
    fleet.drain(false);
    fleet.finish(service)
}
