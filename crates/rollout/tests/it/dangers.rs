//! What is dangerous, contradictory or hopeless is refused or said, with its numbers.

use api::{
    Size,
    deploy::{Plan, Service},
};
use rollout::{
    intent::read,
    plan::{self, Facts},
};

use crate::{
    corpus::now,
    sentences::{facts, service},
};

/// What is said to a sentence: why it is refused, or what its plan warns of.
fn said(sentence: &str, replicas: u32, adjust: impl Fn(&mut Service)) -> Result<String, String> {
    let reading = read(sentence, &now()).map_err(|misread| misread.to_string())?;
    let mut there = service("model-server");
    there.replicas = replicas;
    adjust(&mut there);
    let facts = Facts {
        memory_used: Some(Size::gib(6)),
        ..facts(Some(&there), None)
    };
    plan::make(&reading.intent, &facts)
        .map(|plan| plan.warnings.join("\n"))
        .map_err(|error| format!("{} {}", error.message, error.hint.unwrap_or_default()))
}

fn as_it_is(_: &mut Service) {}

#[test]
fn what_can_not_be_is_refused() {
    for (sentence, words) in [
        ("scale model-server to 0 replicas", "nothing would be left running"),
        ("scale model-server to zero", "nothing would be left running"),
        (
            "deploy model-server v3, max unavailable 9",
            "with 9 unavailable none of",
        ),
        ("scale model-server down to 0", "nothing would be left running"),
        (
            "remove 4 replicas from model-server",
            "nothing of 'model-server' would be left",
        ),
        (
            "scale model-server with at most 0 replicas",
            "nothing would be left running",
        ),
        ("deploy model-server v3, canary 100%", "100% is all"),
        ("deploy model-server v3, canary 150%", "150% is more than all"),
        ("deploy model-server v3, canary 0%", "gets no requests"),
        (
            "deploy model-server v3, canary 50% then 10%",
            "the steps of a canary grow",
        ),
        ("deploy model-server v3, 100% at a time", "replaces all at once"),
        ("deploy model-server v3, 120% at a time", "replaces all at once"),
        ("autoscale model-server 2-10 on cpu 170%", "can't be aimed at"),
        (
            "deploy model-server v3, rollback if errors > 101%",
            "isn't a share of requests",
        ),
        ("deploy model-server v3 on 2020-01-01 at 9:00", "is past"),
        ("deploy model-server v3 today at 9am", "is past"),
        (
            "scale model-server between 10 and 2 replicas",
            "at least 10 and at most 2 replicas can't be",
        ),
        (
            "deploy model-server v3, promote if errors < 2%, rollback if errors > 1%",
            "can hold at the same time",
        ),
        ("deploy model-server v3, safely, immediate", "contradicts"),
        ("update model-server, memory 1Mi", "hold no process"),
    ] {
        match said(sentence, 4, as_it_is) {
            Err(why) => assert!(why.contains(words), "{sentence}: {why}"),
            Ok(warnings) => panic!("{sentence}: not refused; {warnings}"),
        }
    }
}

#[test]
fn what_is_dangerous_is_said() {
    for (sentence, replicas, words) in [
        (
            "update model-server, memory 2Gi",
            4,
            "measured to use 6Gi of memory: with 2Gi",
        ),
        (
            "update model-server, memory times 0.5",
            4,
            "measured to use 6Gi of memory: with 4Gi",
        ),
        // All are stopped before any is started.
        (
            "deploy model-server v3, immediate",
            4,
            "below the floor of healthy replicas: all 4 stop before any new one starts",
        ),
        (
            "deploy model-server v3, immediate",
            4,
            "'rolling' never has fewer than 3 ready",
        ),
        (
            "roll back model-server immediately",
            8,
            "all 8 stop before any new one starts",
        ),
        // A part of one replica is one more.
        (
            "deploy model-server v3, canary 10%",
            1,
            "a canary of 10 % is 1 more that runs beside it, 50 % of the two",
        ),
        (
            "deploy model-server v3, canary 90%",
            1,
            "a canary of 90 % is 1 more that runs beside it, 50 % of the two",
        ),
        // As many at a time as there are.
        (
            "deploy model-server v3, 8 at a time",
            8,
            "8 at a time is all of them: every new replica starts beside the old 8",
        ),
        (
            "deploy model-server v3, 99% at a time",
            8,
            "99 % at a time is all of them",
        ),
        // Each round is 3 s at least: found ready, counted, the old one out of use.
        (
            "deploy model-server v3, one at a time",
            600,
            "in 600 rounds of at least 3s, so in 30m at the very least",
        ),
        (
            "deploy model-server v3, one at a time",
            600,
            "leaves little of its timeout of 30m",
        ),
        (
            "deploy model-server v3, one at a time, timeout 5m",
            200,
            "in 10m at the very least, more than its timeout of 5m",
        ),
        (
            "deploy model-server v3, 2 at a time, timeout 4m",
            100,
            "in 50 rounds of at least 3s, so in 2m30s",
        ),
        (
            "deploy model-server v3, canary 10%, one at a time, timeout 1m",
            50,
            "in 46 rounds of at least 3s",
        ),
        // Waits that the sentence asks for.
        (
            "deploy model-server v3, canary 10%, promote after 1h",
            4,
            "'promote after 1h' is longer than its timeout of 30m",
        ),
        (
            "deploy model-server v3, canary 10%, promote after 1h",
            4,
            "so that it may take 1h30m in all",
        ),
        (
            "deploy model-server v3, canary 10% then 50%, promote after 20m",
            4,
            "its own waits are 40m, longer than its timeout of 30m",
        ),
        (
            "deploy model-server v3, one at a time, waiting 10m between batches",
            4,
            "its own waits are 40m",
        ),
        (
            "blue-green deploy model-server v3, keep the old one for 2h",
            4,
            "longer than its timeout of 30m",
        ),
    ] {
        match said(sentence, replicas, as_it_is) {
            Ok(warnings) => assert!(
                warnings.contains(words),
                "{sentence}: '{words}' isn't said:\n{warnings}"
            ),
            Err(why) => panic!("{sentence}: refused: {why}"),
        }
    }
}

#[test]
fn what_is_harmless_is_not_warned_of() {
    for (sentence, replicas) in [
        ("deploy model-server v3", 4),
        ("deploy model-server v3", 1),
        ("deploy model-server v3, one at a time", 200),
        ("deploy model-server v3, one at a time, waiting 1m between batches", 20),
        ("update model-server, memory 7Gi", 4),
        ("scale model-server to 8 replicas", 4),
        (
            "deploy model-server v3, canary 10%, promote after 15m if errors < 1%, rollback if errors > 2%",
            10,
        ),
        ("blue-green deploy model-server v3, switch after health check", 4),
        ("restart model-server", 4),
    ] {
        assert_eq!(said(sentence, replicas, as_it_is), Ok(String::new()), "{sentence}");
    }
}

#[test]
fn a_readiness_check_that_comes_more_often_makes_shorter_rounds() {
    let often = |there: &mut Service| {
        for revision in &mut there.revisions {
            let spec = std::sync::Arc::make_mut(&mut revision.spec);
            spec.readiness.as_mut().unwrap().interval = api::Span(200);
        }
    };
    let sentence = "deploy model-server v3, one at a time, timeout 5m";
    let warnings = said(sentence, 200, often).unwrap();
    assert!(
        warnings.contains("200 rounds of at least 2s200ms, so in 7m20s"),
        "{warnings}"
    );
}

/// Whatever is asked for, a rolling deployment never takes all out of use: only `immediate` does.
#[test]
fn rolling_never_takes_all_away() {
    let (mut plans, all) = (
        0,
        [
            "",
            ", quickly",
            ", slowly",
            ", 1 at a time",
            ", 100 at a time",
            ", 99% at a time",
            ", max unavailable 99%",
        ],
    );
    for replicas in (1..40).chain([100, 333, 1_000]) {
        for how in all {
            let sentence = format!("deploy model-server v3{how}");
            let mut there = service("model-server");
            there.replicas = replicas;
            let plan = plan::make(&read(&sentence, &now()).unwrap().intent, &facts(Some(&there), None));
            // Of one there is none to spare.
            if replicas == 1 && how.contains("unavailable") {
                assert!(plan.is_err(), "{sentence}");
                continue;
            }
            let plan = plan.unwrap();
            assert!(plan.rolling.max_unavailable < plan.replicas, "{sentence}: {replicas}");
            assert!(
                plan.rolling.max_unavailable > 0 || plan.rolling.max_surge > 0,
                "{sentence}: {replicas}"
            );
            plans += 1;
        }
    }
    assert_eq!(plans, 42 * all.len() - 1);
}

#[test]
fn more_gpus_than_the_fleet_has_are_said() {
    let plan = |sentence: &str| -> Plan {
        let there = service("model-server");
        plan::make(&read(sentence, &now()).unwrap().intent, &facts(Some(&there), None)).unwrap()
    };
    for (sentence, fleet, said) in [
        (
            "update model-server to v3 with 8 A100 GPUs",
            16,
            Some("4 replicas need 32 A100 GPUs, and the fleet has 16 in all: at most 2 can run at a time"),
        ),
        ("update model-server to v3 with 8 A100 GPUs", 32, None),
        (
            "update model-server to v3 with 8 A100 GPUs",
            31,
            Some("at most 3 can run"),
        ),
        (
            "update model-server to v3 with 2 GPUs and 100 replicas",
            64,
            Some("100 replicas need 200 GPUs, and the fleet has 64 in all"),
        ),
        (
            "update model-server to v3 with 1 GPU",
            0,
            Some("has 0 in all: at most 0 can run"),
        ),
        ("update model-server to v3", 0, None),
        ("scale model-server to 900 replicas", 0, None),
    ] {
        let warning = plan::beyond_fleet(&plan(sentence), fleet);
        match said {
            Some(words) => assert!(
                warning.as_ref().is_some_and(|w| w.contains(words)),
                "{sentence}: {warning:?}"
            ),
            None => assert_eq!(warning, None, "{sentence}"),
        }
    }
}
