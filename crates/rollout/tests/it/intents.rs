//! Intents made up, written and read again; and clauses in any order.

use api::{
    Cpu, DeploymentId, Size, Span, Timestamp,
    deploy::{Comparison, Condition, Load, Signal, Strategy as Way},
    workload::{EnvVar, Priority},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use rollout::intent::{Amount, Batch, Care, Intent, Verb, When, read};

use crate::{corpus, random::Random};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,6}){0,2}",
        // Names that are words of the grammar, or look like versions.
        select(vec![
            "canary",
            "deploy",
            "memory",
            "v2",
            "2024-11-01",
            "a",
            "to",
            "errors",
            "job",
            "production"
        ])
        .prop_map(str::to_owned),
    ]
}

fn version() -> impl Strategy<Value = String> {
    prop_oneof![
        "v[0-9]{1,2}(\\.[0-9]{1,2}){0,2}",
        "[0-9]{1,2}\\.[0-9]{1,2}(-rc[0-9])?",
        "sha-[0-9a-f]{6}",
        "[A-Za-z0-9][A-Za-z0-9._-]{0,12}",
        Just("2024-11-01".to_owned()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,30}", "[a-zäöü\u{4f60}\"\\\\ ,]{1,12}"]
        .prop_filter("it says something", |text| !text.trim().is_empty())
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![(1u64..500_000).prop_map(Span::secs), (1u64..10_000).prop_map(Span)]
}

fn amount<T: std::fmt::Debug + Clone + 'static>(
    value: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Amount<T>> {
    prop_oneof![
        value.clone().prop_map(Amount::To),
        value.clone().prop_map(Amount::More),
        value.prop_map(Amount::Fewer),
        select(vec![2.0, 3.0, 0.5, 1.5, 1.25]).prop_map(Amount::Times),
    ]
}

fn size() -> impl Strategy<Value = Size> + Clone {
    prop_oneof![
        (1u64..2000).prop_map(Size::gib),
        (1u64..2000).prop_map(Size::mib),
        (1u64..2000).prop_map(|n| Size(n * 1_000_000_000)),
        (1u64..1 << 50).prop_map(Size),
    ]
}

/// Conditions that face the right way: `bad` for going back.
fn condition(bad: bool) -> impl Strategy<Value = Condition> {
    let signs = if bad {
        [Comparison::Above, Comparison::AtLeast]
    } else {
        [Comparison::Below, Comparison::AtMost]
    };
    let judged = prop_oneof![
        (0u32..1000).prop_map(|n| (Signal::ErrorRate, f64::from(n) / 1000.0)),
        (select(vec![50.0, 90.0, 95.0, 99.0, 99.9]), 1u32..20_000)
            .prop_map(|(percentile, ms)| (Signal::Latency { percentile }, f64::from(ms) / 1000.0)),
        (0u32..50).prop_map(|n| (Signal::Restarts, f64::from(n))),
    ];
    let judged =
        (judged, select(signs.to_vec())).prop_map(|((metric, threshold), operator)| (metric, operator, threshold));
    let any = select(vec![
        Comparison::Above,
        Comparison::AtLeast,
        Comparison::Below,
        Comparison::AtMost,
    ]);
    let plain = prop_oneof![
        Just(Signal::RequestRate),
        "[a-z]{2,6}[._][a-z]{2,6}".prop_map(|name| Signal::Metric { name }),
        "[ -~]{1,20}".prop_map(|promql| Signal::Query { promql }),
    ];
    let plain = (plain, any, 0u32..10_000).prop_map(|(metric, operator, n)| (metric, operator, f64::from(n) / 8.0));
    let healthy = Just((
        Signal::Healthy,
        if bad { Comparison::Below } else { Comparison::AtLeast },
        1.0,
    ));
    (prop_oneof![3 => judged, 2 => plain, 1 => healthy], option::of(span())).prop_map(
        |((metric, operator, threshold), window)| Condition {
            metric,
            operator,
            threshold,
            window,
        },
    )
}

fn distinct(conditions: Vec<Condition>) -> Vec<Condition> {
    let mut all: Vec<Condition> = Vec::new();
    for condition in conditions {
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    all
}

fn when() -> impl Strategy<Value = When> {
    let zone = select(vec![
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "+05:30",
        "-03:00",
    ]);
    prop_oneof![
        // From a day after the corpus is read, over three years: all changes of the clocks.
        (1_795_300_000i64..1_890_000_000, zone).prop_map(|(second, zone)| When::At {
            time: Timestamp::from_second(second).unwrap(),
            zone: zone.to_owned()
        }),
        // The hour that comes twice.
        (1_824_940_000i64..1_824_950_000).prop_map(|second| When::At {
            time: Timestamp::from_second(second).unwrap(),
            zone: "Europe/Berlin".to_owned()
        }),
        any::<u64>().prop_map(|random| When::After(DeploymentId::from_random(random))),
    ]
}

prop_compose! {
    /// What a replica is and gets.
    fn revision()(
        version in option::of(version()),
        image in option::of(select(vec!["nginx:1.27", "ghcr.io/acme/web:v2", "registry.local:5000/a/b_c@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "web"])),
        command in prop_oneof![Just(Vec::new()), vec("[ -~]{0,10}", 1..4)],
        gpus in option::of(amount(1u32..1000)),
        gpu_model in option::of(select(vec!["A100", "H100", "RTX 4090", "L40S", "MI300X", "A100-SXM4"])),
        gpu_memory in option::of(size()),
        memory in option::of(amount(size())),
        cpu in option::of(amount((1u32..1_000_000).prop_map(Cpu))),
        priority in option::of(select(vec![Priority::Low, Priority::Normal, Priority::High])),
        env in vec(("[A-Z_][A-Z0-9_]{0,6}", "[ -~äö]{0,12}"), 0..3),
        port in option::of(1u16..),
    ) -> Intent {
        let mut seen = Vec::new();
        Intent {
            version, image: image.map(str::to_owned), gpus, gpu_model: gpu_model.map(str::to_owned), gpu_memory, memory, cpu, priority, port,
            command: if command.first().is_some_and(|first| first.is_empty()) { Vec::new() } else { command },
            env: env.into_iter().filter(|(name, _)| { let new = !seen.contains(name); seen.push(name.clone()); new }).map(|(name, value)| EnvVar { name, value }).collect(),
            ..Intent::new(Verb::Deploy, "x")
        }
    }
}

prop_compose! {
    /// How many replicas there are.
    fn numbers()(
        replicas in option::of(amount(1u32..10_000)),
        min in option::of(1u32..100),
        more in 0u32..100,
        max in any::<bool>(),
        follow in option::of((select(vec![Load::Cpu, Load::Gpu, Load::RequestRate, Load::Queue]), 1u32..100)),
    ) -> (Option<Amount<u32>>, Option<u32>, Option<u32>, Option<(Load, f64)>) {
        let max = max.then(|| min.unwrap_or(1) + more);
        let replicas = match replicas {
            Some(Amount::To(count)) => Some(Amount::To(count.clamp(min.unwrap_or(1), max.unwrap_or(u32::MAX)))),
            other => other,
        };
        (replicas, min, max, follow.map(|(load, target)| (load, f64::from(target))))
    }
}

prop_compose! {
    /// Any intent that a sentence can say.
    fn intent()(
        verb in select(vec![Verb::Deploy, Verb::Deploy, Verb::Update, Verb::Update, Verb::Scale, Verb::Rollback, Verb::Abort, Verb::Restart]),
        target in name(),
        revision in revision(),
        numbers in numbers(),
        way in option::of(select(vec![Way::Canary, Way::BlueGreen, Way::Rolling, Way::Immediate])),
        steps in vec(1u32..200, 0..4),
        batch in option::of(prop_oneof![(1u32..100).prop_map(Batch::Count), (1u32..100).prop_map(|n| Batch::Percent(f64::from(n))), (1u32..100).prop_map(Batch::Fewer), (1u32..100).prop_map(|n| Batch::FewerPercent(f64::from(n)))]),
        (pause, promote_after, keep, timeout) in (option::of(span()), option::of(span()), option::of(span()), option::of(span())),
        promote_if in vec(condition(false), 0..3),
        rollback_if in vec(condition(true), 0..3),
        (by_hand, job, from) in (any::<bool>(), any::<bool>(), option::of(version())),
        care in option::of(select(vec![Care::Safely, Care::Slowly, Care::Quickly, Care::Emergency])),
        when in option::of(when()),
        namespace in option::of(name()),
        reason in option::of(text()),
    ) -> Intent {
        let new_revision = matches!(verb, Verb::Deploy | Verb::Update);
        let mut intent = if new_revision { revision } else { Intent::new(verb, "x") };
        intent.verb = verb;
        intent.target = target;
        intent.namespace = namespace;
        intent.reason = reason;
        intent.care = care;
        if verb != Verb::Abort {
            intent.when = when;
            intent.timeout = timeout;
        }
        if new_revision || verb == Verb::Scale {
            (intent.replicas, intent.min_replicas, intent.max_replicas, intent.follow) = numbers;
            intent.rollback_if = distinct(rollback_if);
        }
        if verb == Verb::Scale && intent.replicas.is_none() && intent.min_replicas.is_none() && intent.max_replicas.is_none() && intent.follow.is_none() {
            intent.replicas = Some(Amount::To(3));
        }
        if verb == Verb::Update && intent.version.is_none() {
            intent.version = Some("v2".to_owned());
        }
        if verb == Verb::Rollback {
            intent.back_to = from.clone();
        }
        if intent.version.is_some() && intent.version != from {
            intent.from_version = from;
        }
        let ways: &[Way] = match verb {
            Verb::Deploy | Verb::Update => &[Way::Canary, Way::BlueGreen, Way::Rolling, Way::Immediate],
            Verb::Rollback | Verb::Restart => &[Way::Rolling, Way::Immediate],
            Verb::Scale | Verb::Abort => &[],
        };
        intent.strategy = way.filter(|way| ways.contains(way));
        match intent.strategy {
            Some(Way::Canary) => {
                let mut steps: Vec<f64> = steps.into_iter().map(|n| f64::from(n) / 2.0).filter(|step| *step < 100.0).collect();
                steps.sort_by(f64::total_cmp);
                steps.dedup();
                intent.canary_steps = steps;
                (intent.batch, intent.pause_between) = (batch, pause);
            }
            Some(Way::BlueGreen) => intent.keep_old_for = keep,
            Some(Way::Rolling) => (intent.batch, intent.pause_between) = (batch, pause),
            Some(Way::Immediate) if matches!(intent.care, Some(Care::Safely | Care::Slowly)) => intent.care = None,
            _ => {}
        }
        if matches!(intent.strategy, Some(Way::Canary | Way::BlueGreen)) {
            if by_hand {
                intent.promote_by_hand = true;
            } else {
                intent.promote_after = promote_after;
                intent.promote_if = distinct(promote_if);
            }
        }
        // What would promote and roll back at once is refused; where both are made up here, one stays.
        if intent.promote_if.iter().any(|a| intent.rollback_if.iter().any(|b| a.metric == b.metric)) {
            intent.rollback_if.clear();
        }
        if job && verb == Verb::Deploy && intent.strategy.is_none() && intent.rollback_if.is_empty() && intent.replicas.is_none()
            && intent.min_replicas.is_none() && intent.max_replicas.is_none() && intent.follow.is_none() {
            intent.batch_job = true;
        }
        if intent.gpus == Some(Amount::To(0)) {
            intent.gpus = None;
        }
        intent
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 300 } else { 20_000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(intent in intent()) {
        let written = intent.to_string();
        prop_assume!(written.chars().count() <= 2_000);
        match read(&written, &corpus::now()) {
            Ok(reading) => prop_assert_eq!(reading.intent, intent, "{}", written),
            Err(misread) => prop_assert!(false, "{}\n{}", written, misread),
        }
    }

    #[test]
    fn clauses_come_in_any_order(intent in intent(), seed in any::<u64>()) {
        let written = intent.to_string();
        prop_assume!(written.chars().count() <= 2_000);
        let mut clauses = parted(&written);
        let mut dice = Random(seed);
        for i in (1..clauses.len()).rev() {
            clauses.swap(i, dice.place(i + 1));
        }
        let shuffled = clauses.join(dice.pick(&[", ", " and ", "; ", ", then "]));
        match read(&shuffled, &corpus::now()) {
            Ok(reading) => prop_assert_eq!(reading.intent, intent, "{}", shuffled),
            Err(misread) => prop_assert!(false, "{}\n{}", shuffled, misread),
        }
    }
}

/// The clauses of a canonical sentence: parted by commas that aren't in quotes.
fn parted(sentence: &str) -> Vec<String> {
    let mut clauses = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in sentence.chars() {
        if c == ',' && !quoted {
            clauses.push(String::new());
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped && quoted;
        clauses.last_mut().unwrap().push(c);
    }
    clauses.into_iter().map(|clause| clause.trim().to_owned()).collect()
}
