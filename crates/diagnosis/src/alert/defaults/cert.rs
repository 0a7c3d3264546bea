//! Certificates that somebody asked for: the fleet's own renew themselves.

use super::super::Span;
use super::super::condition::{Bound, Op};
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{last, rule};

/// Two weeks: who renews by hand needs a working day or two, and holidays.
const SOON: f64 = 14.0 * 86_400.0;

pub(super) fn rules() -> Vec<Rule> {
    vec![Rule {
        description: "It ends soon, and has no successor: whatever shows it won't be let in any more.".to_owned(),
        keep_firing_for: Span::minutes(5),
        commands: vec![
            "clawbernetes cert list --expiring 14d".to_owned(),
            "clawbernetes cert rotate {name} --out DIR".to_owned(),
        ],
        ..rule(
            "certificate-expiring",
            Severity::Warning,
            &["name"],
            "certificate {name} ends in {value}",
            last("cert.remaining", Op::Below, Bound::Number(SOON), Unit::Seconds),
        )
    }]
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, value};

    #[test]
    fn certificate_expiring() {
        let labels = &[("name", "api")];
        let fired = fires("certificate-expiring", labels, |m| vec![value(86_400.0, m)]);
        assert_eq!(fired, Some((0, "certificate api ends in 1d".to_owned())));
        assert_eq!(
            fires("certificate-expiring", labels, |m| vec![value(super::SOON, m)]),
            None
        );
    }
}
