//! The gateway itself: its disk, and what it had to drop.

use super::super::Span;
use super::super::condition::{Bound, Condition, Op};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{last, over, rule};

/// Which gateway, where there are several.
const GATEWAY: &[&str] = &["gateway"];

pub(super) fn rules() -> Vec<Rule> {
    vec![storage_full(), telemetry_dropping()]
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
                "gateway.storage.used",
                Op::AtLeast,
                Bound::share(0.9, "gateway.storage.total"),
                Unit::Bytes,
            ),
        )
    }
}

fn telemetry_dropping() -> Rule {
    let dropped = |metric| {
        let none = Bound::Number(0.0);
        over(metric, Take::Increase, Span::minutes(10), Op::Above, none, Unit::None)
    };
    Rule {
        description: "Lines or samples came faster than they could be written and are lost; charts and searches have \
                      holes, and so have other alerts."
            .to_owned(),
        keep_firing_for: Span::minutes(10),
        commands: vec![
            "clawbernetes gateway ping".to_owned(),
            "clawbernetes metrics gateway.logs.dropped --last 1h".to_owned(),
            "clawbernetes metrics gateway.metrics.dropped --last 1h".to_owned(),
        ],
        ..rule(
            "telemetry-dropping",
            Severity::Warning,
            GATEWAY,
            "the gateway drops logs or metrics: {why}",
            Condition::Any {
                of: vec![dropped("gateway.logs.dropped"), dropped("gateway.metrics.dropped")],
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, value};
    use crate::alert::Reading;

    #[test]
    fn gateway_storage_full() {
        let at = |used: f64| move |m| vec![value(used, m), value(1000.0, m)];
        assert_eq!(fires("gateway-storage-full", &[], at(900.0)).unwrap().0, 2);
        assert_eq!(fires("gateway-storage-full", &[], at(899.0)), None);
    }

    #[test]
    fn telemetry_dropping() {
        let at = |logs: f64, metrics: Reading| move |m| vec![value(logs, m), metrics.clone()];
        let (minute, summary) = fires("telemetry-dropping", &[], at(3.0, Reading::Missing)).unwrap();
        assert_eq!(minute, 0);
        assert!(
            summary.contains("increase of gateway.logs.dropped over 10m is 3"),
            "{summary}"
        );
        assert_eq!(fires("telemetry-dropping", &[], at(0.0, Reading::Missing)), None);
    }
}
