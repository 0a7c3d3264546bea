//! Verdicts on what was measured.

use api::{
    Timestamp,
    deploy::{Comparison, Condition, Evidence, Outcome, Purpose, Sample, Signal, Verdict},
};
use proptest::prelude::*;
use rollout::analysis::{ALPHA_ROLLBACK, judge, requests_needed, samples_min};

use crate::random::Random;

fn at() -> Timestamp {
    "2026-02-16T12:00:00Z".parse().unwrap()
}

fn condition(metric: Signal, operator: Comparison, threshold: f64) -> Condition {
    Condition {
        metric,
        operator,
        threshold,
        window: None,
    }
}

fn evidence(condition: Condition, purpose: Purpose, subject: Sample, baseline: Option<Sample>) -> Evidence {
    Evidence {
        condition,
        purpose,
        from: "2026-02-16T11:00:00Z".parse().unwrap(),
        to: at(),
        query: "requests of revision 2".to_owned(),
        subject,
        baseline,
        error: None,
    }
}

fn requests(failed: u64, count: u64) -> Sample {
    Sample {
        count,
        failed: Some(failed),
        value: None,
    }
}

fn value(count: u64, value: f64) -> Sample {
    Sample {
        count,
        failed: None,
        value: Some(value),
    }
}

fn back_above(bound: f64, failed: u64, count: u64, stable: Option<(u64, u64)>) -> Evidence {
    let over = condition(Signal::ErrorRate, Comparison::Above, bound);
    let stable = stable.map(|(failed, count)| requests(failed, count));
    evidence(over, Purpose::Rollback, requests(failed, count), stable)
}

fn on_below(bound: f64, failed: u64, count: u64) -> Evidence {
    let under = condition(Signal::ErrorRate, Comparison::Below, bound);
    evidence(under, Purpose::Promote, requests(failed, count), None)
}

fn outcome(evidence: &Evidence) -> Outcome {
    judge(evidence, at()).outcome
}

#[test]
fn error_rates_bring_back_and_let_on() {
    use Outcome::{Fail, Insufficient, Pass};
    for (bound, failed, count, expected) in [
        (0.01, 1, 10, Insufficient),
        (0.01, 2, 2, Insufficient),
        (0.01, 19, 19, Insufficient),
        (0.01, 20, 20, Fail),
        (0.01, 3, 20, Insufficient),
        (0.01, 5, 20, Fail),
        (0.01, 30, 1000, Fail),
        (0.01, 10, 1000, Insufficient),
        (0.01, 0, 1000, Pass),
        (0.01, 0, 0, Insufficient),
        (0.0, 1, 10, Fail),
        (0.0, 0, 10, Insufficient),
        (0.0, 0, 100, Pass),
        (1.0, 100, 100, Insufficient),
    ] {
        let seen = outcome(&back_above(bound, failed, count, None));
        assert_eq!(seen, expected, "back if > {bound}: {failed} of {count}");
    }
    for (bound, failed, count, expected) in [
        (0.005, 0, 0, Insufficient),
        (0.005, 0, 10, Insufficient),
        (0.005, 0, 687, Insufficient),
        (0.005, 0, 688, Pass),
        (0.005, 5, 1000, Insufficient),
        (0.005, 50, 1000, Fail),
        (0.5, 0, 19, Insufficient),
        (0.5, 0, 20, Pass),
    ] {
        let seen = outcome(&on_below(bound, failed, count));
        assert_eq!(seen, expected, "on if < {bound}: {failed} of {count}");
    }
    let mut none = on_below(0.0, 0, 99);
    none.condition.operator = Comparison::AtMost;
    assert_eq!(outcome(&none), Insufficient);
    none.subject = requests(0, 100);
    assert_eq!(outcome(&none), Pass);
    none.subject = requests(1, 100_000);
    assert_eq!(outcome(&none), Fail);
}

#[test]
fn verdicts_say_their_numbers() {
    let say = |evidence: &Evidence| judge(evidence, at()).message;
    assert_eq!(
        say(&on_below(0.005, 0, 132)),
        "'error rate < 0.5 %' can't be told yet: 0 of 132 requests failed; about 690 would tell"
    );
    assert_eq!(
        say(&back_above(0.01, 30, 300, Some((1, 2700)))),
        "'error rate > 1 %' is breached: 30 of 300 requests failed, more than 4.94 % in the long run; 1 of 2700 of the \
         stable revision's"
    );
    let verdict = judge(&on_below(0.005, 0, 1000), at());
    assert!(
        verdict.message.starts_with("'error rate < 0.5 %' holds: 0 of 1000"),
        "{}",
        verdict.message
    );
    assert!(
        verdict.method.contains("sequential") && verdict.method.contains("5 %"),
        "{}",
        verdict.method
    );
    assert_eq!(verdict.at, at());
    let slow = condition(Signal::Latency { percentile: 95.0 }, Comparison::Above, 0.2);
    let slow = evidence(slow, Purpose::Rollback, value(100, 0.31), Some(value(900, 0.15)));
    assert_eq!(
        say(&slow),
        "'p95 latency > 200 ms' is breached: 310 ms; the stable revision's is 150 ms"
    );
}

#[test]
fn what_is_needed_is_enough() {
    for bound in [0.001, 0.005, 0.01, 0.05, 0.2] {
        let needed = requests_needed(&on_below(bound, 0, 0)).unwrap();
        assert_eq!(outcome(&on_below(bound, 0, needed)), Outcome::Pass);
        if needed > 20 {
            assert_eq!(outcome(&on_below(bound, 0, needed - 1)), Outcome::Insufficient);
        }
    }
    // At twice the bound as many show that it doesn't hold; at the bound none ever tell.
    let needed = requests_needed(&on_below(0.005, 1, 100)).unwrap();
    assert_eq!(outcome(&on_below(0.005, needed.div_ceil(100), needed)), Outcome::Fail);
    assert_eq!(requests_needed(&on_below(0.01, 1, 100)), None);
    // A condition for going back is told, too, when it isn't breached.
    let needed = requests_needed(&back_above(0.01, 0, 0, None)).unwrap();
    assert_eq!(outcome(&back_above(0.01, 0, needed, None)), Outcome::Pass);
    assert_eq!(outcome(&back_above(0.01, 0, needed - 1, None)), Outcome::Insufficient);
    let healthy = condition(Signal::Healthy, Comparison::AtLeast, 1.0);
    assert_eq!(
        requests_needed(&evidence(healthy, Purpose::Promote, value(1, 1.0), None)),
        None
    );
}

#[test]
fn a_bad_stable_revision_is_no_fault_of_the_new_one() {
    use Outcome::{Fail, Insufficient, Pass};
    for (new, stable, expected) in [
        // The stable one is well, or says nothing.
        ((50, 500), Some((5, 4500)), Fail),
        ((50, 500), None, Fail),
        ((50, 500), Some((0, 0)), Fail),
        ((50, 500), Some((10, 10)), Fail),
        // What both stand on is down.
        ((50, 500), Some((450, 4500)), Insufficient),
        ((50, 500), Some((300, 4500)), Insufficient),
        // Both are bad, and the new one is worse.
        ((200, 500), Some((450, 4500)), Fail),
        // Makes no sense, so it excuses nothing.
        ((50, 500), Some((5000, 4500)), Fail),
        // A bad one doesn't make a good one bad.
        ((0, 600), Some((450, 4500)), Pass),
    ] {
        let seen = outcome(&back_above(0.01, new.0, new.1, stable));
        assert_eq!(seen, expected, "{new:?} against {stable:?}");
    }
    let mut good = on_below(0.01, 0, 500);
    good.baseline = Some(requests(450, 4500));
    assert_eq!(outcome(&good), Pass);
    assert_eq!(outcome(&back_above(0.0, 3, 500, Some((30, 4500)))), Insufficient);
    assert_eq!(outcome(&back_above(0.0, 3, 500, Some((0, 4500)))), Fail);
    assert_eq!(outcome(&back_above(0.0, 100, 500, Some((30, 4500)))), Fail);

    let slow = |new: f64, stable: f64| {
        let over = condition(Signal::Latency { percentile: 95.0 }, Comparison::Above, 0.2);
        outcome(&evidence(
            over,
            Purpose::Rollback,
            value(100, new),
            Some(value(900, stable)),
        ))
    };
    assert_eq!(slow(0.3, 0.1), Fail);
    assert_eq!(slow(0.3, 0.29), Insufficient);
    assert_eq!(slow(0.4, 0.3), Fail);
    assert_eq!(slow(0.1, 0.3), Pass);
}

#[test]
fn a_revision_within_its_bound_goes_on_only_if_it_is_not_worse_than_the_stable_one() {
    use Outcome::{Fail, Insufficient, Pass};
    for (new, stable, expected) in [
        // 0.5 % against 0.01 %: within 1 %, and fifty times as bad.
        ((100, 20_000), Some((18, 180_000)), Fail),
        // As good, better, or nothing to compare with.
        ((100, 20_000), Some((900, 180_000)), Pass),
        ((2, 20_000), Some((900, 180_000)), Pass),
        ((100, 20_000), None, Pass),
        ((100, 20_000), Some((0, 10)), Pass),
        // Ten times as bad, which is nothing beside the bound.
        ((20, 20_000), Some((18, 180_000)), Pass),
        // Perhaps worse: that isn't shown.
        ((3, 2000), Some((2, 18_000)), Pass),
        // A stable one that is bad doesn't keep a good one back.
        ((0, 500), Some((18_000, 180_000)), Pass),
        // What isn't within the bound is as it was.
        ((0, 10), Some((0, 90)), Insufficient),
        ((600, 20_000), Some((18_000, 180_000)), Fail),
    ] {
        let mut good = on_below(0.01, new.0, new.1);
        good.baseline = stable.map(|(failed, count)| requests(failed, count));
        let verdict = judge(&good, at());
        assert_eq!(
            verdict.outcome, expected,
            "{new:?} against {stable:?}: {}",
            verdict.message
        );
    }
    let mut worse = on_below(0.01, 100, 20_000);
    worse.baseline = Some(requests(18, 180_000));
    assert_eq!(
        judge(&worse, at()).message,
        "'error rate < 1 %' holds, but the stable revision does better: 100 of 20000 requests failed, and 18 of 180000 of the \
         stable revision's"
    );
    // What brings back is the bound alone.
    assert_eq!(outcome(&back_above(0.01, 100, 20_000, Some((18, 180_000)))), Pass);
}

#[test]
fn a_query_about_all_revisions_is_not_excused_by_itself() {
    let back = |promql: &str| {
        let over = condition(
            Signal::Query {
                promql: promql.to_owned(),
            },
            Comparison::Above,
            5.0,
        );
        outcome(&evidence(over, Purpose::Rollback, value(1, 9.0), Some(value(1, 9.0))))
    };
    assert_eq!(back("sum(rate(errors[1m]))"), Outcome::Fail);
    assert_eq!(
        back("sum(rate(errors{revision=\"$revision\"}[1m]))"),
        Outcome::Insufficient
    );
}

#[test]
fn values_need_their_samples() {
    use Outcome::{Fail, Insufficient, Pass};
    let p = |percentile| Signal::Latency { percentile };
    for (signal, least) in [
        (p(50.0), 20),
        (p(95.0), 100),
        (p(99.0), 500),
        (p(99.9), 5000),
        (Signal::RequestRate, 20),
        (
            Signal::Metric {
                name: "queue".to_owned(),
            },
            5,
        ),
        (Signal::Query { promql: "1".to_owned() }, 1),
        (Signal::Healthy, 1),
        (Signal::Restarts, 1),
    ] {
        assert_eq!(samples_min(&signal), least, "{signal}");
        let on = |count, operator| {
            let holds = condition(signal.clone(), operator, 1.0);
            outcome(&evidence(holds, Purpose::Promote, value(count, 1.0), None))
        };
        assert_eq!(on(least, Comparison::AtLeast), Pass, "{signal}");
        assert_eq!(on(least, Comparison::Above), Fail, "{signal}");
        assert_eq!(on(least - 1, Comparison::AtLeast), Insufficient, "{signal}");
        let back = condition(signal.clone(), Comparison::AtLeast, 1.0);
        assert_eq!(
            outcome(&evidence(back, Purpose::Rollback, value(least, 1.0), None)),
            Fail,
            "{signal}"
        );
    }
    // Where the slow ones are counted, latency is judged as failures are.
    let slow = condition(p(95.0), Comparison::Above, 0.2);
    for (slower, count, expected) in [
        (5, 100, Insufficient),
        (30, 100, Fail),
        (0, 500, Pass),
        (0, 0, Insufficient),
    ] {
        let seen = outcome(&evidence(
            slow.clone(),
            Purpose::Rollback,
            requests(slower, count),
            None,
        ));
        assert_eq!(seen, expected, "{slower} of {count}");
    }
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let fine = back_above(0.01, 0, 1000, None);
    let mut bad = Vec::new();
    let mut with = |change: fn(&mut Evidence)| {
        let mut evidence = fine.clone();
        change(&mut evidence);
        bad.push(evidence);
    };
    with(|e| e.error = Some("the store is closed".to_owned()));
    with(|e| e.condition.threshold = f64::NAN);
    with(|e| e.subject.failed = Some(1001));
    with(|e| e.subject.value = Some(f64::NAN));
    with(|e| e.subject.value = Some(f64::INFINITY));
    with(|e| std::mem::swap(&mut e.from, &mut e.to));
    with(|e| e.condition.metric = Signal::Latency { percentile: 100.0 });
    with(|e| {
        e.condition.metric = Signal::Healthy;
        e.subject = value(1, 0.5);
    });
    with(|e| {
        e.condition.threshold = 0.0;
        e.condition.operator = Comparison::AtLeast;
    });
    for evidence in &bad {
        for purpose in [Purpose::Promote, Purpose::Rollback] {
            let verdict = judge(
                &Evidence {
                    purpose,
                    ..evidence.clone()
                },
                at(),
            );
            assert_eq!(verdict.outcome, Outcome::Error, "{verdict:?}");
        }
    }
    let uncounted = Evidence {
        subject: value(1000, 0.0),
        ..fine.clone()
    };
    assert_eq!(outcome(&uncounted), Outcome::Insufficient);
}

/// Judges a deployment's requests every ten of them, as they come, until something is decided.
fn deployment(run: u64, rate: f64, stable: Option<f64>, requests: u64) -> Option<(Outcome, u64)> {
    let mut random = Random(run);
    let (mut failed, mut stable_failed) = (0, 0);
    for n in 1..=requests {
        failed += u64::from(random.chance(rate));
        // Nine of ten go to the stable one.
        for _ in 0..9 {
            stable_failed += u64::from(stable.is_some_and(|rate| random.chance(rate)));
        }
        if n % 10 == 0 {
            let verdict = outcome(&back_above(0.01, failed, n, stable.map(|_| (stable_failed, 9 * n))));
            if verdict == Outcome::Fail {
                return Some((verdict, n));
            }
        }
    }
    None
}

#[test]
fn deployments_are_brought_back_for_a_reason_and_only_then() {
    let back = |rate, stable, requests, runs: u64| {
        (0..runs)
            .filter(|run| deployment(1 + run, rate, stable, requests).is_some())
            .count() as f64
            / runs as f64
    };
    // Half of the bound, and the bound itself: not more often than allowed.
    assert!(back(0.005, Some(0.005), 1000, 300) <= ALPHA_ROLLBACK);
    assert!(back(0.01, None, 1000, 300) <= 2.0 * ALPHA_ROLLBACK);
    // Three times the bound: nearly always, within 2,000 requests.
    assert!(back(0.03, Some(0.005), 2000, 100) >= 0.97);
    // Both alike bad: hardly ever.
    assert!(back(0.05, Some(0.05), 500, 200) <= 0.02);
    // Both bad, and the new one much worse.
    assert!(back(0.4, Some(0.05), 500, 100) >= 0.99);
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        Just(1.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        -2.0..2.0f64,
        any::<f64>(),
    ]
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let count = prop_oneof![Just(0u64), 0u64..50, 0u64..100_000, any::<u64>()];
    let failed = prop_oneof![Just(0u64), 0u64..50, any::<u64>()];
    (count, prop::option::of(failed), prop::option::of(any_number())).prop_map(|(count, failed, value)| Sample {
        count,
        failed,
        value,
    })
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    let metric = prop_oneof![
        Just(Signal::ErrorRate),
        any_number().prop_map(|percentile| Signal::Latency { percentile }),
        Just(Signal::Latency { percentile: 95.0 }),
        Just(Signal::RequestRate),
        Just(Signal::Healthy),
        Just(Signal::Restarts),
        Just(Signal::Metric { name: "m".to_owned() }),
        Just(Signal::Query { promql: "q".to_owned() }),
    ];
    let operator = prop::sample::select(vec![
        Comparison::Above,
        Comparison::AtLeast,
        Comparison::Below,
        Comparison::AtMost,
    ]);
    let purpose = prop::sample::select(vec![Purpose::Promote, Purpose::Rollback]);
    (
        metric,
        operator,
        any_number(),
        purpose,
        any_sample(),
        prop::option::of(any_sample()),
    )
        .prop_map(|(metric, operator, threshold, purpose, subject, baseline)| {
            evidence(condition(metric, operator, threshold), purpose, subject, baseline)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_passes_for_want_of_data(evidence in any_evidence()) {
        let Verdict { outcome, message, .. } = judge(&evidence, at());
        let decided = matches!(outcome, Outcome::Pass | Outcome::Fail);
        let subject = &evidence.subject;
        prop_assert!(!message.is_empty());
        prop_assert!(!(decided && subject.count == 0), "{}", message);
        prop_assert!(!(decided && subject.value.is_some_and(|value| !value.is_finite())), "{}", message);
        prop_assert!(!decided || evidence.condition.threshold.is_finite(), "{}", message);
        prop_assert!(!(decided && subject.value.is_none() && subject.failed.is_none()), "{}", message);
    }

    #[test]
    fn a_kept_evidence_gives_the_same_verdict(evidence in any_evidence()) {
        // Bounds that aren't numbers are refused before anything is measured.
        let mut evidence = evidence;
        let finite = |number: f64| if number.is_finite() { number } else { 0.5 };
        evidence.condition.threshold = finite(evidence.condition.threshold);
        if let Signal::Latency { percentile } = &mut evidence.condition.metric {
            *percentile = finite(*percentile);
        }
        let verdict = judge(&evidence, at());
        let kept: Verdict = serde_json::from_str(&serde_json::to_string(&verdict).unwrap()).unwrap();
        prop_assert_eq!(judge(&kept.evidence, kept.at), kept);
    }

    #[test]
    fn more_failures_never_make_it_better(count in 20u64..5000, a in 0u64..5000, b in 0u64..5000, bound in 1u32..500) {
        let rank = |failed: u64| match outcome(&on_below(f64::from(bound) / 1000.0, failed.min(count), count)) {
            Outcome::Pass => 0,
            Outcome::Insufficient | Outcome::Error => 1,
            Outcome::Fail => 2,
        };
        prop_assert!(rank(a.min(b)) <= rank(a.max(b)));
    }
}
