//! Which share of the requests each revision gets.

use std::collections::BTreeMap;

use api::deploy::Standing;

use super::fleet::Fleet;

/// The whole, where shares aren't numbers of replicas: a hundredth of a percent is the least share.
const WHOLE: u32 = 10_000;

/// How requests are shared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shares {
    /// By ready replicas.
    Even,
    /// All to this revision as soon as any of it is ready.
    All(Option<u32>),
    /// To the first as much as its ready replicas can bear, all once so many are ready; the rest stays with the second, unless
    /// that has fewer left than would bear it. What comes back would fall over if its first replica got the requests of all.
    Towards(u32, Option<u32>, u32),
    /// This part, in percent, to this revision; the rest to the others by ready replicas.
    Part(u32, f64),
    /// By ready replicas, but at least this part, in percent, to this revision.
    AtLeast(u32, f64),
}

/// The shares as numbers. No share goes to a revision without a ready replica, and none to one that failed as long as
/// another has one. Where nothing is ready, `was` stays: whoever comes first is waited for.
pub(super) fn weights(fleet: &Fleet, shares: Shares) -> BTreeMap<u32, u32> {
    let mut weights = raw(fleet, shares);
    if weights.len() == 1 {
        weights.values_mut().for_each(|weight| *weight = WHOLE);
    }
    weights
}

fn raw(fleet: &Fleet, shares: Shares) -> BTreeMap<u32, u32> {
    let was = &fleet.service.weights;
    // What has been ready for a while is trusted more than what has just become so, and that more than nothing.
    let mut ready: BTreeMap<u32, u32> = BTreeMap::new();
    for count in [Fleet::settled, Fleet::ready] {
        if ready.is_empty() {
            ready = fleet
                .revisions()
                .into_iter()
                .map(|revision| (revision, count(fleet, revision)))
                .collect();
            ready.retain(|_, n| *n > 0);
        }
    }
    if let Shares::All(Some(to)) | Shares::Towards(to, ..) = shares
        && fleet.ready(to) > 0
    {
        let mut weights = BTreeMap::from([(to, WHOLE)]);
        if let Shares::Towards(_, Some(from), enough) = shares
            && fleet.ready(from) > 0
        {
            let back = fleet.ready(to);
            let enough = enough.min(back + fleet.ready(from)).max(1);
            let part = basis_points(f64::from(back) * 100.0 / f64::from(enough));
            weights = BTreeMap::from([(to, part), (from, WHOLE - part)]);
            weights.retain(|_, weight| *weight > 0);
        }
        return weights;
    }
    if ready.is_empty() {
        return was.clone();
    }
    let failed = |revision: &u32| {
        let revision = fleet.service.revision(*revision);
        revision.is_some_and(|revision| revision.standing == Standing::Bad)
    };
    if ready.keys().any(|revision| !failed(revision)) {
        ready.retain(|revision, _| !failed(revision));
    }
    let (revision, percent) = match shares {
        Shares::Even | Shares::All(_) | Shares::Towards(..) => return ready,
        Shares::Part(revision, percent) => (revision, percent),
        Shares::AtLeast(revision, percent) => {
            let all: u32 = ready.values().sum();
            let even = f64::from(ready.get(&revision).copied().unwrap_or(0)) * 100.0 / f64::from(all);
            if even >= percent {
                return ready;
            }
            (revision, percent)
        }
    };
    let Some(_) = ready.remove(&revision) else {
        return ready;
    };
    if ready.is_empty() {
        return BTreeMap::from([(revision, WHOLE)]);
    }
    let part = basis_points(percent);
    let mut weights = split(WHOLE - part, &ready);
    weights.insert(revision, part);
    weights.retain(|_, weight| *weight > 0);
    weights
}

/// A percentage in hundredths of a percent. What is above 0 stays so.
fn basis_points(percent: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=10000 before"
    )]
    let points = (percent * 100.0).clamp(0.0, f64::from(WHOLE)).round() as u32;
    if percent > 0.0 { points.max(1) } else { 0 }
}

/// `whole` split by `parts`, without a remainder.
fn split(whole: u32, parts: &BTreeMap<u32, u32>) -> BTreeMap<u32, u32> {
    let sum: u64 = parts.values().map(|part| u64::from(*part)).sum();
    let (mut given, mut seen) = (0, 0);
    let share = |(revision, part): (&u32, &u32)| {
        seen += u64::from(*part);
        let until = u64::from(whole) * seen / sum;
        let weight = until - given;
        given = until;
        (*revision, u32::try_from(weight).unwrap_or(whole))
    };
    parts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_exact_to_a_hundredth_and_never_round_to_nothing() {
        for (percent, points) in [
            (10.0, 1000),
            (0.5, 50),
            (33.333, 3333),
            (0.001, 1),
            (0.0, 0),
            (100.0, 10_000),
            (99.99, 9999),
        ] {
            assert_eq!(basis_points(percent), points, "{percent}");
        }
    }

    #[test]
    fn a_split_leaves_nothing_over() {
        for (whole, parts) in [
            (9000, vec![1, 2]),
            (10, vec![3, 3, 3]),
            (7, vec![1, 1, 1, 1]),
            (1, vec![5, 5]),
        ] {
            let parts: BTreeMap<u32, u32> = (1..).zip(parts).collect();
            assert_eq!(split(whole, &parts).values().sum::<u32>(), whole);
        }
        assert_eq!(
            split(9000, &BTreeMap::from([(1, 1), (2, 2)])),
            BTreeMap::from([(1, 3000), (2, 6000)])
        );
    }
}
