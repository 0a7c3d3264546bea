//! A scenario: what is put in, what has to be found, and nothing else of warning or above.

use diagnosis::{Finding, Severity};

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) findings: Vec<Finding>,
    /// Id and severity that have to be found. Of these, and of `also`, others of warning or above may not be.
    pub(crate) expected: Vec<(&'static str, Severity)>,
    /// What may be found as well.
    pub(crate) also: &'static [&'static str],
}

/// Prints what was expected and found of each; fails if any was missed or made up.
#[expect(
    clippy::print_stdout,
    reason = "the table is what the test shows: see it with --nocapture"
)]
pub(crate) fn assert_all(scenarios: &[Scenario]) {
    let mut wrong = Vec::new();
    println!("{:<44} {:<52} found", "scenario", "expected");
    for s in scenarios {
        let found = |id: &str| s.findings.iter().filter(|f| f.id == id).map(|f| f.severity).max();
        let missed = s.expected.iter().any(|(id, severity)| found(id) != Some(*severity));
        let made_up = s.findings.iter().any(|f| {
            f.severity >= Severity::Warning && !s.expected.iter().any(|e| e.0 == f.id) && !s.also.contains(&&*f.id)
        });
        let groundless = s
            .findings
            .iter()
            .any(|f| f.evidence.is_empty() || !(0.0..=1.0).contains(&f.confidence));
        let expected: Vec<String> = s
            .expected
            .iter()
            .map(|(id, severity)| format!("{id} {severity:?}"))
            .collect();
        let told: Vec<String> = s
            .findings
            .iter()
            .filter(|f| f.severity >= Severity::Warning || s.expected.iter().any(|e| e.0 == f.id))
            .map(|f| format!("{} {:?}", f.id, f.severity))
            .collect();
        let bad = missed || made_up || groundless;
        println!(
            "{:<44} {:<52} {}{}",
            s.name,
            if expected.is_empty() {
                "nothing".into()
            } else {
                expected.join(", ")
            },
            if told.is_empty() {
                "nothing".into()
            } else {
                told.join(", ")
            },
            if bad { "   <-- WRONG" } else { "" },
        );
        if bad {
            wrong.push(s.name);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} are wrong: {wrong:?}",
        wrong.len(),
        scenarios.len()
    );
}
