//! The gateway itself: its disk, and what it lost.

use super::super::Span;
use super::super::condition::{Bound, Op};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{last, over, rule};

/// Which gateway, where there are several.
const GATEWAY: &[&str] = &["gateway"];

pub(super) fn rules() -> Vec<Rule> {
    vec![storage_full(), metrics_lost()]
}

/// A gateway that can't write accepts nothing: earlier than on nodes.
fn storage_full() -> Rule {
    Rule {
        description: "When its disk is full, the gateway can accept no work and record no end of any.".to_owned(),
        for_: Span::minutes(2),
        keep_firing_for: Span::minutes(5),
        commands: vec!["clawbernetes gateway ping".to_owned(), "df -h".to_owned()],
        ..rule(
            "gateway-storage-full",
            Severity::Critical,
            GATEWAY,
            "the gateway's disk is filling up: {value}, limit {limit}",
            last(
                "gateway.disk.used",
                Op::AtLeast,
                Bound::share(0.9, "gateway.disk.total"),
                Unit::Bytes,
            ),
        )
    }
}

/// What is sent twice is no loss and isn't counted.
fn metrics_lost() -> Rule {
    Rule {
        description: "Samples were ahead of the clock, too old or no numbers, and are lost; charts have holes, and so \
                      have other alerts. Mostly a node's clock is wrong."
            .to_owned(),
        keep_firing_for: Span::minutes(10),
        commands: vec![
            "clawbernetes metrics usage".to_owned(),
            "clawbernetes metrics clock.offset --last 1h".to_owned(),
        ],
        ..rule(
            "metrics-lost",
            Severity::Warning,
            GATEWAY,
            "{value} samples of metrics were lost in ten minutes",
            over(
                "gateway.metrics.lost",
                Take::Increase,
                Span::minutes(10),
                Op::Above,
                Bound::Number(0.0),
                Unit::None,
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, value};

    #[test]
    fn gateway_storage_full() {
        let at = |used: f64| move |m| vec![value(used, m), value(1000.0, m)];
        assert_eq!(fires("gateway-storage-full", &[], at(900.0)).unwrap().0, 2);
        assert_eq!(fires("gateway-storage-full", &[], at(899.0)), None);
    }

    #[test]
    fn metrics_lost() {
        let fired = fires("metrics-lost", &[], |m| vec![value(3.0, m)]);
        assert_eq!(
            fired,
            Some((0, "3 samples of metrics were lost in ten minutes".to_owned()))
        );
        assert_eq!(fires("metrics-lost", &[], |m| vec![value(0.0, m)]), None);
    }
}
