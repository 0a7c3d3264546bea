//! The agent against a model of disk, engine and gateway, with crashes between any two effects.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    Span, Timestamp,
    secret::{SecretTarget, SecretUse, SecretValue},
    wire::{Assignment, Desired, Observation, PullProgress, SecretsAnswer, Seen, Stop},
    workload::{HealthCheck, HeldGpu, JobKey, Outcome, Port, Probe, StopReason, Usage},
};
use proptest::prelude::*;

use super::*;
use crate::engine::{EngineEvent, Found, What};

pub(crate) fn assignment(job: &str, gpus: &[u32]) -> Assignment {
    Assignment {
        job: job.parse().unwrap(),
        name: "train".to_owned(),
        namespace: "default".to_owned(),
        image: "host".to_owned(),
        command: vec!["true".to_owned()],
        env: Vec::new(),
        secrets: Vec::new(),
        volumes: Vec::new(),
        gpus: gpus
            .iter()
            .map(|index| HeldGpu {
                index: *index,
                uuid: format!("GPU-{index}"),
            })
            .collect(),
        cpu: None,
        memory: None,
        timeout: None,
        grace: Span::secs(10),
        checkpointing: None,
        gang: None,
        ports: Vec::new(),
        dynamic_ports: false,
        host_ports: Vec::new(),
        health_check: None,
        readiness: None,
        hooks: None,
        metrics_port: None,
        stop: None,
    }
}

/// A job that gets a secret in `TOKEN`.
fn secretive(job: &str, gpus: &[u32]) -> Assignment {
    Assignment {
        secrets: vec![SecretUse {
            secret: "token".to_owned(),
            key: None,
            to: SecretTarget::Env("TOKEN".to_owned()),
        }],
        ..assignment(job, gpus)
    }
}

/// A job with two ports that are to be picked.
fn dynamic(job: &str) -> Assignment {
    let port = |port| Port {
        name: String::new(),
        port,
        protocol: "TCP".to_owned(),
    };
    Assignment {
        ports: vec![port(8000), port(9000)],
        dynamic_ports: true,
        ..assignment(job, &[])
    }
}

/// A job whose readiness is asked for.
fn watched(job: &str) -> Assignment {
    Assignment {
        readiness: Some(HealthCheck {
            probe: Probe::Tcp(8000),
            interval: Span::secs(1),
            timeout: Span::secs(1),
            failures: 1,
        }),
        ..assignment(job, &[])
    }
}

/// What of its readiness waits to be acknowledged, with the numbers.
fn unacked_readiness(agent: &Agent) -> Vec<(u64, bool, Option<String>)> {
    let said = |o: &Observation| match &o.seen {
        Seen::Readiness { ready, why } => Some((o.number, *ready, why.clone())),
        _ => None,
    };
    agent.unacknowledged().filter_map(said).collect()
}

/// Which ports are looked for.
fn looks(effects: &Effects) -> Vec<(JobKey, usize, Vec<u16>)> {
    let look = |effect: &Effect| match effect {
        Effect::FindPorts { job, count, taken } => Some((job.clone(), *count, taken.iter().copied().collect())),
        _ => None,
    };
    effects.then.iter().filter_map(look).collect()
}

const VALUE: &[u8] = b"hunter2-hunter2";

fn values() -> SecretsAnswer {
    SecretsAnswer::Values {
        values: vec![SecretValue::from(VALUE.to_vec())],
        mask: Vec::new(),
    }
}

fn refused(code: ErrorCode) -> SecretsAnswer {
    SecretsAnswer::Refused {
        error: ApiError::new(code, "no such secret"),
    }
}

fn asks(job: &str) -> Effect {
    Effect::AskSecrets(key(job))
}

/// Whether it is started with its secret, and nothing else is.
fn starts(effects: &Effects, job: &str) -> bool {
    let mut starts = effects.then.iter().filter_map(|effect| match effect {
        Effect::Start(assignment, secrets) => Some((assignment, secrets.as_ref())),
        _ => None,
    });
    let first = starts.next();
    assert!(starts.next().is_none());
    first.is_some_and(|(assignment, secrets)| {
        assignment.job == key(job) && secrets.is_some_and(|secrets| secrets.env()[0].1.expose() == VALUE)
    })
}

/// A whole message of the gateway.
fn said(generation: u64, base: Option<u64>, put: Vec<Assignment>, forget: &[JobKey]) -> Desired {
    Desired {
        generation,
        base,
        piece: 0,
        more: false,
        put,
        forget: forget.to_vec(),
    }
}

fn now(mono_ms: u64) -> Now {
    Now {
        mono_ms,
        boot: 1,
        wall: Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(mono_ms).unwrap()).unwrap(),
    }
}

fn lines(last_line: u64) -> Left {
    Left {
        last_line,
        fenced: false,
    }
}

fn key(text: &str) -> JobKey {
    text.parse().unwrap()
}

fn event(job: &str, what: What) -> EngineEvent {
    EngineEvent { job: key(job), what }
}

fn exit(at: Now, code: i32) -> What {
    What::Ended {
        at: at.wall,
        outcome: Outcome::Exited { code },
        usage: Usage::default(),
    }
}

/// A new agent with a session, and what its first whole set led to.
fn agent_with(put: Vec<Assignment>) -> (Agent, Effects) {
    let (mut agent, first) = Agent::new([], [], |_| Left::default(), now(0)).unwrap();
    assert!(first.is_empty());
    drop(agent.connected(Span::secs(300), false, 0));
    let effects = agent.desired(said(1, None, put, &[]), now(0));
    (agent, effects)
}

/// The records that these effects leave.
fn records(all: &[&Effects]) -> Vec<(String, Vec<u8>)> {
    let mut disk = BTreeMap::new();
    for effects in all {
        apply(&mut disk, &effects.persist);
    }
    disk.into_iter().collect()
}

fn apply(disk: &mut BTreeMap<String, Vec<u8>>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put { key, value } => drop(disk.insert(key.clone(), value.clone())),
            Write::Delete { key } => drop(disk.remove(key)),
        }
    }
}

fn ends(agent: &Agent) -> Vec<(String, Outcome, Option<StopReason>)> {
    let ended = |o: &Observation| match &o.seen {
        Seen::Ended { outcome, stop, .. } => Some((o.job.to_string(), outcome.clone(), *stop)),
        _ => None,
    };
    agent.unacknowledged().filter_map(ended).collect()
}

#[test]
fn a_gpu_is_given_on_only_after_its_holder_has_ended() {
    let (mut agent, effects) = agent_with(vec![assignment("wl-a.1.0", &[0, 1]), assignment("wl-b.1.0", &[1])]);
    assert_eq!(
        effects.then,
        [Effect::Start(Arc::new(assignment("wl-a.1.0", &[0, 1])), None)]
    );
    assert_eq!(effects.persist.len(), 2, "both are accepted");
    let effects = agent.engine_event(event("wl-a.1.0", exit(now(5), 0)), Left::default(), now(5));
    assert_eq!(
        effects.then,
        [
            Effect::SendObservations,
            Effect::Start(Arc::new(assignment("wl-b.1.0", &[1])), None)
        ]
    );
}

#[test]
fn a_grace_only_shortens_and_the_first_reason_stays() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[])]);
    let mut order = |generation: u64, grace: u64, reason: StopReason, at: u64| {
        let stop = Some(Stop {
            reason,
            grace: Span(grace),
        });
        let put = vec![Assignment {
            stop,
            ..assignment("wl-a.1.0", &[])
        }];
        let effects = agent.desired(said(generation, Some(generation - 1), put, &[]), now(at));
        effects.then
    };
    let stop = |grace| Effect::Stop {
        job: key("wl-a.1.0"),
        grace: Span(grace),
    };
    assert_eq!(order(2, 5_000, StopReason::Cancelled, 100), [stop(5_000)]);
    assert_eq!(order(3, 5_000, StopReason::Cancelled, 200), []);
    assert_eq!(order(4, 9_000, StopReason::Drained, 300), []);
    assert_eq!(order(5, 1_000, StopReason::Preempted, 400), [stop(1_000)]);
    drop(agent.engine_event(event("wl-a.1.0", exit(now(900), 0)), Left::default(), now(900)));
    let ended = (
        "wl-a.1.0".to_owned(),
        Outcome::Exited { code: 0 },
        Some(StopReason::Cancelled),
    );
    assert_eq!(ends(&agent), [ended], "it keeps its exit code");
}

#[test]
fn an_exit_before_the_order_is_its_own() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[])]);
    drop(agent.desired(said(2, None, vec![], &[]), now(500)));
    drop(agent.engine_event(event("wl-a.1.0", exit(now(499), 3)), Left::default(), now(501)));
    assert_eq!(ends(&agent)[0].2, None);
}

#[test]
fn a_timeout_counts_from_the_start_also_over_a_restart() {
    let mut job = assignment("wl-a.1.0", &[]);
    job.timeout = Some(Span::secs(60));
    let (mut agent, accepted) = agent_with(vec![job]);
    let started = agent.engine_event(
        event("wl-a.1.0", What::Started { at: now(7_000).wall }),
        Left::default(),
        now(7_000),
    );
    assert_eq!(agent.next_deadline(), Some(67_000));
    let found = Found {
        job: key("wl-a.1.0"),
        started_at: Some(now(7_000).wall),
        ended: None,
        wants_secrets: false,
    };
    let again = |now: Now| {
        let records = records(&[&accepted, &started]);
        Agent::new(records, [found.clone()], |_| Left::default(), now)
            .unwrap()
            .0
    };
    // Somebody has set the wall clock, which says nothing about how long it ran.
    for wall in [now(0).wall, now(3_000_000).wall] {
        let agent = again(Now { wall, ..now(50_000) });
        assert_eq!(agent.next_deadline(), Some(67_000));
    }
    // In another boot of the machine there is nothing but the wall clock.
    let wall = now(7_000 + 15_000).wall;
    let rebooted = again(Now {
        mono_ms: 40_000,
        boot: 2,
        wall,
    });
    assert_eq!(rebooted.next_deadline(), Some(40_000 - 15_000 + 60_000));
    let mut agent = again(now(50_000));
    assert_eq!(agent.next_deadline(), Some(67_000));
    assert!(agent.tick(now(66_999)).is_empty());
    let effects = agent.tick(now(67_000));
    assert!(matches!(&effects.then[..], [Effect::Stop { grace, .. }] if *grace == Span::secs(10)));
    assert_eq!(agent.job(&key("wl-a.1.0")).unwrap().stop, Some(StopReason::Timeout));
}

#[test]
fn a_job_that_its_engine_has_lost_ends_unless_it_never_started() {
    let put = vec![assignment("wl-a.1.0", &[0]), assignment("wl-b.1.0", &[1])];
    let (mut agent, accepted) = agent_with(put);
    let started = agent.engine_event(
        event("wl-a.1.0", What::Started { at: now(5).wall }),
        Left::default(),
        now(5),
    );
    let (agent, first) = Agent::new(records(&[&accepted, &started]), [], |_| lines(2), now(9)).unwrap();
    let start = Effect::Start(Arc::new(assignment("wl-b.1.0", &[1])), None);
    assert!(!first.then.contains(&start), "the gateway has yet to ask for it again");
    assert!(agent.known().contains(&key("wl-b.1.0")));
    let ends = ends(&agent);
    assert!(matches!(&ends[..], [(job, Outcome::Unknown { .. }, None)] if job == "wl-a.1.0"));
    assert_eq!(agent.job(&key("wl-a.1.0")).unwrap().last_line, Some(2));
}

#[test]
fn what_was_accepted_and_never_begun_waits_for_the_gateways_word() {
    let (_, accepted) = agent_with(vec![assignment("wl-a.1.0", &[0])]);
    let starts = |effects: &Effects| effects.then.iter().any(|e| matches!(e, Effect::Start(..)));
    // The machine was down for longer than the gateway waits; its clock began anew.
    let (mut agent, first) = Agent::new(records(&[&accepted]), [], |_| Left::default(), now(0)).unwrap();
    assert!(!starts(&first), "it may run elsewhere by now");
    drop(agent.connected(Span::secs(300), false, 0));
    let effects = agent.desired(said(1, None, vec![assignment("wl-a.1.0", &[0])], &[]), now(1));
    assert!(starts(&effects), "it is still this node's");
}

#[test]
fn silence_stops_everything_in_time() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[0]), assignment("wl-b.1.0", &[0])]);
    agent.heartbeat_sent(1, 10_000);
    agent.heartbeat_sent(2, 20_000);
    let lease = agent.heartbeat_acked(1).then;
    assert_eq!(lease, [Effect::Lease { stop_ms: 210_000 }]);
    agent.disconnected();
    assert_eq!(agent.next_deadline(), Some(210_000));
    let effects = agent.tick(now(210_000));
    let stop = Effect::Stop {
        job: key("wl-a.1.0"),
        grace: Span::secs(10),
    };
    assert!(effects.then.contains(&stop));
    assert_eq!(ends(&agent).len(), 1, "the one that waited never starts");
    drop(agent.engine_event(
        event(
            "wl-a.1.0",
            What::Ended {
                at: now(211_000).wall,
                outcome: Outcome::Signaled { signal: 15 },
                usage: Usage::default(),
            },
        ),
        Left::default(),
        now(211_000),
    ));
    let reasons: Vec<_> = ends(&agent).into_iter().map(|(_, _, stop)| stop).collect();
    assert_eq!(reasons, [Some(StopReason::Fenced); 2]);
}

#[test]
fn the_lease_leaves_room_for_the_longest_grace_before_it_is_needed() {
    let mut job = assignment("wl-a.1.0", &[]);
    job.grace = Span::secs(150);
    let (mut agent, effects) = agent_with(vec![job.clone()]);
    assert_eq!(
        effects.then,
        [Effect::Lease { stop_ms: 145_000 }, Effect::Start(Arc::new(job), None)]
    );
    // An agent that was dead when it ran out learns it from the engine.
    let left = Left {
        last_line: 0,
        fenced: true,
    };
    drop(agent.engine_event(event("wl-a.1.0", exit(now(5), 143)), left, now(5)));
    assert_eq!(ends(&agent)[0].2, Some(StopReason::Fenced));
}

#[test]
fn a_change_to_another_set_asks_for_the_whole_one() {
    let (mut agent, _) = agent_with(vec![]);
    let put = || vec![assignment("wl-a.1.0", &[])];
    assert_eq!(
        agent.desired(said(4, Some(3), put(), &[]), now(1)).then,
        [Effect::Resync]
    );
    assert_eq!(
        agent.desired(said(5, Some(4), put(), &[]), now(2)).then,
        [],
        "it has been asked"
    );
    assert!(
        agent.desired(said(1, None, put(), &[]), now(2)).is_empty(),
        "an old one"
    );
    assert_eq!(agent.desired(said(6, None, put(), &[]), now(3)).then.len(), 1);
    assert!(
        agent.desired(said(6, None, vec![], &[]), now(3)).is_empty(),
        "a doubled one"
    );
}

#[test]
fn pieces_of_a_set_do_nothing_until_the_last_one_is_there() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[0])]);
    let piece = |number, more, job: &str| Desired {
        piece: number,
        more,
        ..said(2, None, vec![assignment(job, &[])], &[])
    };
    // Half a set, and a connection that breaks: what it doesn't name isn't unwanted.
    assert!(agent.desired(piece(0, true, "wl-b.1.0"), now(1)).is_empty());
    agent.disconnected();
    drop(agent.connected(Span::secs(300), false, 2));
    assert_eq!(
        agent.desired(piece(1, false, "wl-c.1.0"), now(3)).then,
        [Effect::Resync]
    );
    assert!(agent.job(&key("wl-a.1.0")).unwrap().stop.is_none() && agent.job(&key("wl-b.1.0")).is_none());

    assert!(agent.desired(piece(0, true, "wl-a.1.0"), now(4)).is_empty());
    let effects = agent.desired(piece(1, false, "wl-c.1.0"), now(5));
    assert_eq!(
        effects.then,
        [Effect::Start(Arc::new(assignment("wl-c.1.0", &[])), None)]
    );
    assert!(agent.job(&key("wl-a.1.0")).unwrap().stop.is_none());
    assert!(
        agent.desired(piece(1, false, "wl-c.1.0"), now(6)).is_empty(),
        "a doubled one"
    );
}

#[test]
fn changed_memory_is_applied_and_the_rest_is_settled() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[0])]);
    let mut changed = assignment("wl-a.1.0", &[1]);
    changed.memory = Some(Size::mib(64));
    let effects = agent.desired(said(2, Some(1), vec![changed], &[]), now(1));
    let set = Effect::SetMemory {
        job: key("wl-a.1.0"),
        limit: Some(Size::mib(64)),
    };
    assert_eq!(effects.then, [set]);
    let job = agent.job(&key("wl-a.1.0")).unwrap();
    assert_eq!(job.assignment.gpus[0].index, 0);
}

#[test]
fn output_is_kept_until_the_gateway_has_it() {
    let (mut agent, _) = agent_with(vec![assignment("wl-a.1.0", &[])]);
    drop(agent.engine_event(event("wl-a.1.0", exit(now(1), 0)), lines(9), now(1)));
    assert_eq!(agent.desired(said(2, None, vec![], &[]), now(2)).then, []);
    assert_eq!(agent.logs_acked(&[(key("wl-a.1.0"), 8)], now(3)).then, []);
    let forget = Effect::Forget(key("wl-a.1.0"));
    assert_eq!(agent.logs_acked(&[(key("wl-a.1.0"), 9)], now(3)).then, [forget]);
    assert!(agent.known().is_empty());
    let effects = agent.forgotten(&key("wl-a.1.0"));
    assert!(matches!(&effects.persist[..], [Write::Delete { key }] if key == "job/wl-a.1.0"));
    assert_eq!(ends(&agent).len(), 1, "its end is still reported");
}

#[test]
fn a_job_without_a_record_goes_on_if_it_is_wanted() {
    let found = |job: &str, ended| Found {
        job: key(job),
        started_at: Some(now(1).wall),
        ended,
        wants_secrets: false,
    };
    let end = (now(2).wall, Outcome::Exited { code: 0 }, Usage::default());
    let all = [
        found("wl-a.1.0", None),
        found("wl-b.1.0", Some(end.clone())),
        found("wl-c.1.0", None),
        found("wl-d.1.0", Some(end)),
    ];
    let (mut agent, first) = Agent::new([], all, |_| Left::default(), now(10)).unwrap();
    assert!(first.is_empty());
    assert_eq!(agent.known().len(), 4);
    drop(agent.connected(Span::secs(300), false, 10));
    let put = vec![
        assignment("wl-a.1.0", &[0]),
        assignment("wl-b.1.0", &[1]),
        assignment("wl-e.1.0", &[7]),
    ];
    let effects = agent.desired(said(1, None, put, &[]), now(11));
    let stop = Effect::Stop {
        job: key("wl-c.1.0"),
        grace: Span(0),
    };
    assert_eq!(
        effects.then,
        [stop, Effect::Forget(key("wl-d.1.0")), Effect::SendObservations],
        "no GPU is given away while one of unknown GPUs lives"
    );
    assert_eq!(ends(&agent)[0].0, "wl-b.1.0");
    let effects = agent.engine_event(event("wl-c.1.0", exit(now(12), 1)), Left::default(), now(12));
    let start = Effect::Start(Arc::new(assignment("wl-e.1.0", &[7])), None);
    assert_eq!(effects.then, [Effect::Forget(key("wl-c.1.0")), start]);
}

#[test]
fn a_start_waits_for_secrets_and_asks_again_in_each_session() {
    let (mut agent, effects) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
    assert_eq!(effects.then, [asks("wl-a.1.0")]);
    agent.disconnected();
    let effects = agent.connected(Span::secs(300), false, 2);
    assert!(effects.then.contains(&asks("wl-a.1.0")));
    let effects = agent.secrets(&key("wl-a.1.0"), values(), now(3));
    assert!(starts(&effects, "wl-a.1.0"), "{effects:?}");
    assert!(effects.persist.is_empty() && !format!("{effects:?}").contains("hunter2"));
    assert!(
        agent.secrets(&key("wl-a.1.0"), values(), now(4)).is_empty(),
        "a doubled answer"
    );
    assert_eq!(agent.held().len(), 1);
}

#[test]
fn an_answer_nobody_asked_for_starts_nothing() {
    let (mut agent, _) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
    assert!(agent.secrets(&key("wl-x.1.0"), values(), now(1)).is_empty());
    agent.disconnected();
    drop(agent.connected(Span::secs(300), false, 2));
    let jobs = vec![secretive("wl-a.1.0", &[0]), secretive("wl-b.1.0", &[0])];
    assert_eq!(agent.desired(said(1, None, jobs, &[]), now(3)).then, [asks("wl-b.1.0")]);
    assert!(starts(&agent.secrets(&key("wl-b.1.0"), values(), now(4)), "wl-b.1.0"));
    // Its GPU is another's by now: what it was given is dropped, and asked for when its turn has come.
    assert!(agent.secrets(&key("wl-a.1.0"), values(), now(5)).is_empty());
    let effects = agent.engine_event(event("wl-b.1.0", exit(now(6), 0)), Left::default(), now(6));
    assert_eq!(effects.then, [Effect::SendObservations, asks("wl-a.1.0")]);
}

#[test]
fn a_job_without_its_secrets_ends_with_the_gateways_word() {
    for (code, again) in [(ErrorCode::NotFound, false), (ErrorCode::TimedOut, true)] {
        let (mut agent, _) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
        drop(agent.secrets(&key("wl-a.1.0"), refused(code), now(1)));
        let outcome = Outcome::StartFailed {
            code,
            message: "no such secret".to_owned(),
            retryable: again,
        };
        assert_eq!(ends(&agent), [("wl-a.1.0".to_owned(), outcome, None)]);
    }
    // One that can't be what it is to be.
    let (mut agent, _) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
    let answer = SecretsAnswer::Values {
        values: vec![SecretValue::from(b"hunter2\0".to_vec())],
        mask: Vec::new(),
    };
    let effects = agent.secrets(&key("wl-a.1.0"), answer, now(1));
    let Outcome::StartFailed { code, message, .. } = &ends(&agent)[0].1 else {
        panic!("{:?}", ends(&agent));
    };
    assert_eq!(*code, ErrorCode::InvalidArgument);
    assert!(message.contains("TOKEN") && message.contains("token") && !message.contains("hunter2"));
    assert!(
        !records(&[&effects])
            .iter()
            .any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("hunter2"))
    );
}

#[test]
fn a_stop_ends_what_waits_for_secrets() {
    let (mut agent, _) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
    let stop = Some(Stop {
        reason: StopReason::Cancelled,
        grace: Span(0),
    });
    let put = vec![Assignment {
        stop,
        ..secretive("wl-a.1.0", &[0])
    }];
    drop(agent.desired(said(2, Some(1), put, &[]), now(1)));
    assert!(matches!(
        &ends(&agent)[..],
        [(_, Outcome::StartFailed { .. }, Some(StopReason::Cancelled))]
    ));
    assert!(agent.secrets(&key("wl-a.1.0"), values(), now(2)).is_empty());
}

#[test]
fn an_agent_that_restarts_while_it_waits_asks_again() {
    let (_, accepted) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
    let (mut agent, first) = Agent::new(records(&[&accepted]), [], |_| Left::default(), now(9)).unwrap();
    assert!(first.then.is_empty());
    assert_eq!(
        agent.connected(Span::secs(300), false, 9).then.len(),
        1,
        "a lease; it may not be wanted any more"
    );
    let effects = agent.desired(said(1, None, vec![secretive("wl-a.1.0", &[0])], &[]), now(10));
    assert_eq!(effects.then, [asks("wl-a.1.0")]);
    assert!(starts(&agent.secrets(&key("wl-a.1.0"), values(), now(11)), "wl-a.1.0"));
}

#[test]
fn what_an_engine_waits_for_is_asked_for_until_there_is_an_answer_or_none_can_be() {
    let found = |started| Found {
        job: key("wl-a.1.0"),
        started_at: Some(started),
        ended: None,
        wants_secrets: true,
    };
    let told = |effects: &Effects| {
        effects.then.iter().find_map(|effect| match effect {
            Effect::Secrets { answer, .. } => Some(answer.is_ok()),
            _ => None,
        })
    };
    let restarted = || {
        let (mut agent, accepted) = agent_with(vec![secretive("wl-a.1.0", &[0])]);
        let begun = agent.secrets(&key("wl-a.1.0"), values(), now(1));
        let (agent, first) = Agent::new(
            records(&[&accepted, &begun]),
            [found(now(2).wall)],
            |_| Left::default(),
            now(9),
        )
        .unwrap();
        assert_eq!(told(&first), None);
        agent
    };
    let asked = || {
        let mut agent = restarted();
        assert!(
            agent
                .connected(Span::secs(300), false, 9)
                .then
                .contains(&asks("wl-a.1.0"))
        );
        agent
    };
    let job = key("wl-a.1.0");
    let mut agent = asked();
    agent.disconnected();
    assert!(
        agent
            .connected(Span::secs(300), false, 10)
            .then
            .contains(&asks("wl-a.1.0"))
    );
    assert_eq!(told(&agent.secrets(&job, values(), now(11))), Some(true));
    assert!(agent.secrets(&job, values(), now(12)).is_empty());
    agent.disconnected();
    assert!(
        !agent
            .connected(Span::secs(300), false, 13)
            .then
            .contains(&asks("wl-a.1.0"))
    );

    let mut agent = asked();
    assert_eq!(
        told(&agent.secrets(&job, refused(ErrorCode::NotFound), now(11))),
        Some(false)
    );

    // What passes is waited for.
    let mut agent = asked();
    assert!(agent.secrets(&job, refused(ErrorCode::TimedOut), now(11)).is_empty());
    let due = agent.next_deadline().unwrap();
    assert_eq!(agent.tick(now(due)).then, [asks("wl-a.1.0")]);

    // Whom nobody wants, or who is cut off, needs none.
    let mut agent = asked();
    assert_eq!(told(&agent.desired(said(1, None, vec![], &[]), now(11))), Some(false));
    let mut agent = asked();
    agent.disconnected();
    let due = agent.next_deadline().unwrap();
    assert_eq!(told(&agent.tick(now(due))), Some(false));

    // Without a record.
    let (mut agent, _) = Agent::new([], [found(now(2).wall)], |_| Left::default(), now(9)).unwrap();
    assert!(
        !agent
            .connected(Span::secs(300), false, 9)
            .then
            .contains(&asks("wl-a.1.0"))
    );
    let effects = agent.desired(said(1, None, vec![secretive("wl-a.1.0", &[0])], &[]), now(10));
    assert!(effects.then.contains(&asks("wl-a.1.0")));
    assert_eq!(told(&agent.secrets(&job, values(), now(11))), Some(true));
}

#[test]
fn a_job_begins_with_ports_that_are_on_disk_and_no_other_has() {
    let mut fixed = dynamic("wl-c.1.0");
    fixed.dynamic_ports = false;
    let mut claims = dynamic("wl-a.1.0");
    claims.host_ports = vec![1, 2];
    let (mut agent, effects) = agent_with(vec![claims, dynamic("wl-b.1.0"), fixed]);
    let declared = vec![8000, 9000];
    assert_eq!(
        looks(&effects),
        [
            (key("wl-a.1.0"), 2, declared.clone()),
            (key("wl-b.1.0"), 2, declared.clone())
        ],
        "nobody but the node itself picks ports"
    );
    let with = |job: &str, ports: [u16; 2]| Assignment {
        host_ports: ports.to_vec(),
        ..dynamic(job)
    };
    let begun = agent.ports(&key("wl-a.1.0"), Some(vec![20_001, 20_002]), now(1));
    let start = Effect::Start(Arc::new(with("wl-a.1.0", [20_001, 20_002])), None);
    assert_eq!(begun.then, [start]);
    let on_disk = |effects: &Effects| {
        let text: Vec<String> = records(&[effects])
            .into_iter()
            .map(|(_, value)| String::from_utf8(value).unwrap())
            .collect();
        text.iter()
            .any(|record| record.contains(r#""hostPorts":[20001,20002]"#))
    };
    assert!(on_disk(&begun), "before it begins");
    assert!(
        agent.ports(&key("wl-a.1.0"), Some(vec![7, 8]), now(1)).is_empty(),
        "doubled"
    );
    // What was found for the other before is partly taken by now.
    let again = agent.ports(&key("wl-b.1.0"), Some(vec![20_002, 20_003]), now(2));
    assert_eq!(looks(&again), [(key("wl-b.1.0"), 2, vec![8000, 9000, 20_001, 20_002])]);
    let begun_too = agent.ports(&key("wl-b.1.0"), Some(vec![20_003, 20_004]), now(3));
    assert_eq!(begun_too.then.len(), 1);
    let started = agent.engine_event(
        event("wl-a.1.0", What::Started { at: now(4).wall }),
        Left::default(),
        now(4),
    );
    let told = agent.unacknowledged().find_map(|o| match &o.seen {
        Seen::Started { endpoints, .. } => Some(endpoints.iter().map(|e| (e.port, e.host_port)).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(told, Some(vec![(8000, 20_001), (9000, 20_002)]));

    // Over a restart whoever began keeps its ports, and who didn't is given others.
    let found = Found {
        job: key("wl-a.1.0"),
        started_at: Some(now(4).wall),
        ended: None,
        wants_secrets: false,
    };
    let kept = records(&[&effects, &begun, &begun_too, &started]);
    let (mut agent, _) = Agent::new(kept, [found], |_| Left::default(), now(9)).unwrap();
    let ports = |agent: &Agent, job: &str| agent.job(&key(job)).unwrap().assignment.host_ports.clone();
    assert_eq!(ports(&agent, "wl-a.1.0"), [20_001, 20_002]);
    drop(agent.connected(Span::secs(300), false, 9));
    let put = vec![dynamic("wl-a.1.0"), dynamic("wl-b.1.0")];
    let effects = agent.desired(said(1, None, put.clone(), &[]), now(10));
    assert_eq!(
        looks(&effects),
        [(key("wl-b.1.0"), 2, vec![8000, 9000, 20_001, 20_002])]
    );
    // Ports of one that has ended are given to nobody before the gateway has let go of it.
    drop(agent.engine_event(event("wl-a.1.0", exit(now(11), 0)), Left::default(), now(11)));
    let effects = agent.ports(&key("wl-b.1.0"), Some(vec![20_001, 20_005]), now(12));
    assert_eq!(
        looks(&effects),
        [(key("wl-b.1.0"), 2, vec![8000, 9000, 20_001, 20_002])]
    );

    drop(agent.ports(&key("wl-b.1.0"), None, now(13)));
    let (_, outcome, _) = ends(&agent).pop().unwrap();
    assert!(
        matches!(outcome, Outcome::StartFailed { retryable: true, .. }),
        "{outcome:?}"
    );
}

#[test]
fn of_readiness_the_latest_is_told_and_never_more_than_once_a_second() {
    let (mut agent, accepted) = agent_with(vec![watched("wl-a.1.0")]);
    let job = key("wl-a.1.0");
    let why = |text: &str| Some(text.to_owned());
    let idle = agent.next_deadline();
    assert!(agent.readiness(&job, true, None, now(1)).is_empty(), "it hasn't begun");
    let started = agent.engine_event(
        event("wl-a.1.0", What::Started { at: now(1_000).wall }),
        Left::default(),
        now(1_000),
    );
    // Not ready is what everybody takes it for: only why is news, and can wait.
    assert!(agent.readiness(&job, false, why("refused"), now(1_100)).is_empty());
    assert_eq!(agent.next_deadline(), Some(6_000));
    let said_why = agent.tick(now(6_000));
    assert_eq!(unacked_readiness(&agent), [(2, false, why("refused"))]);
    // Until that is acknowledged nothing more is said, whatever happens.
    for (ms, ready) in [(6_100, true), (6_200, false), (6_300, true)] {
        assert!(agent.readiness(&job, ready, None, now(ms)).is_empty());
    }
    assert_eq!(unacked_readiness(&agent).len(), 1);
    let acked = agent.observations_acked(2, now(6_400));
    assert_eq!(
        (unacked_readiness(&agent).len(), agent.next_deadline()),
        (0, Some(7_000))
    );
    let said_ready = agent.tick(now(7_000));
    assert_eq!(unacked_readiness(&agent), [(3, true, None)]);
    let again = agent.observations_acked(3, now(7_050));
    // There and back within a second is no news.
    assert!(agent.readiness(&job, false, why("503"), now(7_100)).is_empty());
    assert!(agent.readiness(&job, true, None, now(7_200)).is_empty());
    assert_eq!(agent.next_deadline(), idle);
    assert!(agent.readiness(&job, false, why("503"), now(7_300)).is_empty());
    // The agent is killed before it was told: the next one finds out by itself, and knows what was said.
    let found = Found {
        job: job.clone(),
        started_at: Some(now(1_000).wall),
        ended: None,
        wants_secrets: false,
    };
    let kept = records(&[&accepted, &started, &said_why, &acked, &said_ready, &again]);
    let (mut agent, _) = Agent::new(kept, [found], |_| Left::default(), now(9_000)).unwrap();
    let view = agent.job(&job).unwrap();
    assert!(view.ready && view.was_ready);
    assert!(agent.readiness(&job, true, None, now(9_100)).is_empty());
    drop(agent.readiness(&job, false, why("503"), now(9_200)));
    assert_eq!(unacked_readiness(&agent), [(4, false, why("503"))]);
    let view = agent.job(&job).unwrap();
    assert!(!view.ready && view.was_ready);
    // Of one that has ended there is nothing to say.
    drop(agent.engine_event(event("wl-a.1.0", exit(now(9_300), 0)), Left::default(), now(9_300)));
    drop(agent.observations_acked(5, now(9_400)));
    assert!(agent.readiness(&job, true, None, now(20_000)).is_empty());
    assert_eq!(agent.next_deadline(), None);
}

// ---- The model ----------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    /// The gateway wants a job (with a timeout, if any) on GPUs.
    Want(usize, Option<u64>),
    /// The gateway orders a stop.
    Order(usize, u64),
    /// The gateway doesn't want a job any more.
    Drop(usize),
    /// The gateway says its last change again, or an old one.
    Double(usize),
    /// A change is lost on the way.
    Lose(usize),
    EnginePulls(usize),
    EngineStarts(usize),
    EngineEnds(usize, i32),
    /// The agent is killed, and the engine loses a job that had started.
    EngineLoses(usize),
    /// Events so far reach the agent.
    Deliver,
    AckObservations,
    AckLogs,
    /// The gateway answers what it was asked first: with values, or with a refusal that passes or doesn't.
    Answer(Option<bool>),
    /// Free ports are found for the job that has waited longest: these two of a few, or none.
    Find(Option<(u16, u16)>),
    /// A job's readiness check comes to this.
    Readiness(usize, bool),
    Heartbeat,
    Refused,
    Connect,
    Disconnect,
    Pass(u64),
    Unhealthy(usize),
    /// The agent is killed after so many of its next effects (0: before anything is on disk).
    CrashAfter(usize),
    Crash,
}

const JOBS: usize = 6;

fn step() -> impl Strategy<Value = Step> {
    let job = 0..JOBS;
    prop_oneof![
        4 => (job.clone(), proptest::option::of(1u64..60_000)).prop_map(|(j, t)| Step::Want(j, t)),
        2 => (job.clone(), 0u64..20_000).prop_map(|(j, g)| Step::Order(j, g)),
        2 => job.clone().prop_map(Step::Drop),
        2 => (0usize..8).prop_map(Step::Double),
        1 => job.clone().prop_map(Step::Lose),
        1 => job.clone().prop_map(Step::EnginePulls),
        4 => job.clone().prop_map(Step::EngineStarts),
        4 => (job.clone(), 0i32..3).prop_map(|(j, c)| Step::EngineEnds(j, c)),
        4 => Just(Step::Deliver),
        2 => Just(Step::AckObservations),
        2 => Just(Step::AckLogs),
        3 => proptest::option::of(any::<bool>()).prop_map(Step::Answer),
        1 => Just(Step::Answer(None)),
        4 => (0u16..8, 0u16..8).prop_map(|pair| Step::Find(Some(pair))),
        1 => Just(Step::Find(None)),
        4 => (job.clone(), any::<bool>()).prop_map(|(j, ready)| Step::Readiness(j, ready)),
        1 => job.clone().prop_map(Step::EngineLoses),
        1 => Just(Step::Heartbeat),
        1 => Just(Step::Refused),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        2 => (1u64..90_000).prop_map(Step::Pass),
        1 => job.prop_map(Step::Unhealthy),
        3 => (0usize..4).prop_map(Step::CrashAfter),
        1 => Just(Step::Crash),
    ]
}

struct Carried {
    gpus: Vec<u32>,
    ports: Vec<u16>,
    started_at: Option<Timestamp>,
    ended: Option<(Timestamp, Outcome, Usage)>,
    secretive: bool,
    wants_secrets: bool,
    /// How it ended, while its engine waits for secrets and so can't say so.
    unsaid: Option<Outcome>,
}

/// A message of desired jobs: generation, base, put, forget.
type Message = (u64, Option<u64>, Vec<Assignment>, Vec<JobKey>);

struct World {
    mono_ms: u64,
    agent: Agent,
    disk: BTreeMap<String, Vec<u8>>,
    crash_after: Option<usize>,
    // The engine.
    carried: BTreeMap<JobKey, Carried>,
    events: Vec<EngineEvent>,
    starts: BTreeMap<JobKey, u32>,
    lines: BTreeMap<JobKey, u64>,
    // The gateway.
    wanted: BTreeMap<JobKey, Assignment>,
    dropped: BTreeSet<JobKey>,
    /// Told to an agent that took it in.
    accepted: BTreeSet<JobKey>,
    connected: bool,
    generation: u64,
    sent: Vec<Message>,
    resync: bool,
    asked: Vec<JobKey>,
    /// Ports are looked for, for these.
    finding: Vec<JobKey>,
    /// What the readiness checks of jobs came to last.
    ready: BTreeMap<JobKey, bool>,
    /// When the agent last changed its word about a job's readiness, and what it was; in this life.
    told: BTreeMap<JobKey, (u64, u64)>,
    received: BTreeMap<u64, Observation>,
}

fn job(index: usize) -> Assignment {
    // Neighbours share a GPU, on purpose.
    let gpus = [u32::try_from(index / 2).unwrap(), u32::try_from(index % 3).unwrap() + 3];
    let name = format!("wl-{index}.1.0");
    let job = if index % 2 == 1 {
        secretive(&name, &gpus)
    } else {
        assignment(&name, &gpus)
    };
    // Half of them have ports picked, and most say when they are ready.
    let ports = if index < JOBS / 2 {
        dynamic(&name)
    } else {
        assignment(&name, &[])
    };
    Assignment {
        ports: ports.ports,
        dynamic_ports: ports.dynamic_ports,
        readiness: watched(&name).readiness.filter(|_| index % 3 != 2),
        ..job
    }
}

impl World {
    fn new() -> Self {
        let (agent, first) = Agent::new([], [], |_| Left::default(), now(0)).unwrap();
        assert!(first.is_empty());
        Self {
            mono_ms: 0,
            agent,
            disk: BTreeMap::new(),
            crash_after: None,
            carried: BTreeMap::new(),
            events: Vec::new(),
            starts: BTreeMap::new(),
            lines: BTreeMap::new(),
            wanted: BTreeMap::new(),
            dropped: BTreeSet::new(),
            accepted: BTreeSet::new(),
            connected: false,
            generation: 0,
            sent: Vec::new(),
            resync: false,
            asked: Vec::new(),
            finding: Vec::new(),
            ready: BTreeMap::new(),
            told: BTreeMap::new(),
            received: BTreeMap::new(),
        }
    }

    fn now(&self) -> Now {
        now(self.mono_ms)
    }

    fn crash(&mut self) {
        self.connected = false;
        self.crash_after = None;
        self.events.clear();
        self.asked.clear();
        self.finding.clear();
        self.told.clear();
        for carried in self.carried.values_mut() {
            carried.wants_secrets = carried.secretive && carried.ended.is_none();
        }
        let found: Vec<Found> = self
            .carried
            .iter()
            .map(|(job, c)| Found {
                job: job.clone(),
                started_at: c.started_at,
                ended: c.ended.clone(),
                wants_secrets: c.wants_secrets,
            })
            .collect();
        let lines = &self.lines;
        let last = |job: &JobKey| self::lines(lines.get(job).copied().unwrap_or(0));
        let (agent, effects) = Agent::new(self.disk.clone(), found, last, now(self.mono_ms)).unwrap();
        self.agent = agent;
        for (job, carried) in self.carried.iter().filter(|(_, carried)| carried.ended.is_none()) {
            let kept = self.agent.job(job).map(|job| job.assignment.host_ports.clone());
            assert!(
                kept.is_none_or(|kept| kept == carried.ports),
                "{job} has lost its ports"
            );
        }
        self.carry_out(effects);
        // Its checks begin anew.
        for (job, ready) in self.ready.clone() {
            self.check_says(&job, ready);
        }
    }

    /// A readiness check comes to this; only those of jobs that run are tried.
    fn check_says(&mut self, job: &JobKey, ready: bool) {
        if self.agent.job(job).is_some_and(|job| job.running()) {
            self.ready.insert(job.clone(), ready);
            let why = (!ready).then(|| "503".to_owned());
            let effects = self.agent.readiness(job, ready, why, self.now());
            self.carry_out(effects);
        }
    }

    fn find(&mut self, found: Option<(u16, u16)>) {
        if !self.finding.is_empty() {
            let job = self.finding.remove(0);
            let ports = found.map(|(a, b)| vec![20_000 + a, 20_000 + b]);
            let effects = self.agent.ports(&job, ports, self.now());
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        if effects.is_empty() {
            return;
        }
        let mut left = self.crash_after.take();
        let mut boundary = || match &mut left {
            Some(0) => true,
            Some(n) => {
                *n -= 1;
                false
            }
            None => false,
        };
        if boundary() {
            return self.crash();
        }
        apply(&mut self.disk, &effects.persist);
        for effect in effects.then {
            if boundary() {
                return self.crash();
            }
            self.carry_out_one(effect);
        }
        self.crash_after = left;
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::FindPorts { job, count, taken } => {
                assert_eq!(count, 2);
                for (other, carried) in self.carried.iter().filter(|(_, carried)| carried.ended.is_none()) {
                    let known = self.agent.job(other).is_some();
                    assert!(!known || carried.ports.iter().all(|port| taken.contains(port)));
                }
                self.finding.push(job);
            }
            Effect::AskSecrets(job) => {
                if self.connected {
                    self.asked.push(job);
                }
            }
            Effect::Secrets { job, .. } => {
                if let Some(carried) = self.carried.get_mut(&job) {
                    assert!(std::mem::take(&mut carried.wants_secrets), "{job} is told twice");
                    if let Some(outcome) = carried.unsaid.take() {
                        self.engine_ends(&job, outcome);
                    }
                }
            }
            Effect::Start(job, secrets) => {
                assert_eq!(secrets.is_some(), !job.secrets.is_empty());
                if self.carried.contains_key(&job.job) {
                    return;
                }
                let gpus: Vec<u32> = job.gpus.iter().map(|g| g.index).collect();
                assert_eq!(job.host_ports.len(), if job.dynamic_ports { 2 } else { 0 });
                for (other, carried) in &self.carried {
                    let shared = carried.ended.is_none() && carried.gpus.iter().any(|g| gpus.contains(g));
                    assert!(!shared, "{} and {other} on one GPU", job.job);
                    let shared = carried.ports.iter().any(|port| job.host_ports.contains(port));
                    assert!(!shared, "{} and {other} on one port", job.job);
                }
                *self.starts.entry(job.job.clone()).or_default() += 1;
                assert_eq!(self.starts[&job.job], 1, "{} was started again", job.job);
                let carried = Carried {
                    gpus,
                    ports: job.host_ports.clone(),
                    started_at: None,
                    ended: None,
                    secretive: secrets.is_some(),
                    wants_secrets: false,
                    unsaid: None,
                };
                self.carried.insert(job.job.clone(), carried);
            }
            Effect::Stop { job, grace } => {
                if grace.is_zero() {
                    self.engine_ends(&job, Outcome::Signaled { signal: 9 });
                }
            }
            Effect::Forget(job) => {
                let carried = self.carried.remove(&job);
                assert!(carried.is_none_or(|c| c.ended.is_some()), "{job} was forgotten alive");
                self.lines.remove(&job);
                let effects = self.agent.forgotten(&job);
                self.carry_out_here(effects);
            }
            Effect::SendObservations if self.connected => {
                for observation in self.agent.unacknowledged() {
                    let before = self.received.insert(observation.number, observation.clone());
                    assert!(before.is_none_or(|before| before == *observation), "renumbered");
                }
                let numbers: Vec<u64> = self.received.keys().copied().collect();
                let wanted: Vec<u64> = (1..).take(numbers.len()).collect();
                assert_eq!(numbers, wanted, "a hole");
            }
            Effect::SendObservations | Effect::SetMemory { .. } => {}
            Effect::Resync => self.resync = true,
            Effect::Lease { stop_ms } => assert!(stop_ms > 0),
        }
    }

    /// Effects within effects: only records.
    fn carry_out_here(&mut self, effects: Effects) {
        apply(&mut self.disk, &effects.persist);
        assert!(effects.then.is_empty());
    }

    fn engine_ends(&mut self, job: &JobKey, outcome: Outcome) {
        let at = self.now().wall;
        let Some(carried) = self.carried.get_mut(job).filter(|c| c.ended.is_none()) else {
            return;
        };
        if carried.wants_secrets {
            carried.unsaid.get_or_insert(outcome);
            return;
        }
        let usage = Usage::default();
        carried.ended = Some((at, outcome.clone(), usage));
        if carried.started_at.is_some() {
            self.lines.insert(job.clone(), 3);
        }
        self.events.push(EngineEvent {
            job: job.clone(),
            what: What::Ended { at, outcome, usage },
        });
    }

    fn tell(&mut self, message: Message) {
        if !self.connected {
            return;
        }
        let (generation, base, put, forget) = message;
        let now = self.now();
        let effects = self.agent.desired(said(generation, base, put, &forget), now);
        for write in &effects.persist {
            if let Some(job) = write.key().strip_prefix("job/") {
                // Accepted once it is on disk.
                if self.crash_after != Some(0) {
                    self.accepted.insert(key(job));
                }
            }
        }
        self.carry_out(effects);
        if std::mem::take(&mut self.resync) {
            self.tell_all();
        }
    }

    fn tell_all(&mut self) {
        self.generation += 1;
        let message: Message = (
            self.generation,
            None,
            self.wanted.values().cloned().collect(),
            Vec::new(),
        );
        self.sent.push(message.clone());
        self.tell(message);
    }

    fn tell_change(&mut self, put: Vec<Assignment>, forget: Vec<JobKey>, lost: bool) {
        let base = self.generation;
        self.generation += 1;
        let message: Message = (self.generation, Some(base), put, forget);
        if !lost {
            self.sent.push(message.clone());
            self.tell(message);
        }
    }

    fn connect(&mut self) {
        if self.connected {
            self.agent.disconnected();
        }
        self.connected = true;
        self.generation = 0;
        self.sent.clear();
        self.asked.clear();
        let effects = self.agent.connected(Span::secs(300), false, self.mono_ms);
        self.carry_out(effects);
        if self.connected {
            self.tell_all();
        }
    }

    fn deliver(&mut self) {
        while !self.events.is_empty() {
            let event = self.events.remove(0);
            let last = lines(self.lines.get(&event.job).copied().unwrap_or(0));
            let now = self.now();
            let effects = self.agent.engine_event(event, last, now);
            self.carry_out(effects);
        }
    }

    fn answer(&mut self, how: Option<bool>) {
        if !self.connected || self.asked.is_empty() {
            return;
        }
        let job = self.asked.remove(0);
        let answer = match how {
            _ if !self.wanted.contains_key(&job) => refused(ErrorCode::NotFound),
            None => values(),
            Some(true) => refused(ErrorCode::TimedOut),
            Some(false) => refused(ErrorCode::NotFound),
        };
        let effects = self.agent.secrets(&job, answer, self.now());
        self.carry_out(effects);
    }

    fn ack_observations(&mut self) {
        if self.connected
            && let Some(last) = self.received.keys().last().copied()
        {
            let effects = self.agent.observations_acked(last, self.now());
            self.carry_out(effects);
        }
    }

    fn ack_logs(&mut self) {
        if self.connected {
            let through: Vec<(JobKey, u64)> = self.lines.iter().map(|(job, n)| (job.clone(), *n)).collect();
            let now = self.now();
            let effects = self.agent.logs_acked(&through, now);
            self.carry_out(effects);
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now();
        match step {
            Step::Want(index, timeout) => {
                let mut job = job(index);
                job.timeout = timeout.map(Span);
                if !self.dropped.contains(&job.job) {
                    let stop = self.wanted.get(&job.job).and_then(|before| before.stop);
                    job.stop = stop;
                    self.wanted.insert(job.job.clone(), job.clone());
                    self.tell_change(vec![job], Vec::new(), false);
                }
            }
            Step::Order(index, grace) => {
                if let Some(wanted) = self.wanted.get_mut(&job(index).job) {
                    wanted.stop = Some(Stop {
                        reason: StopReason::Cancelled,
                        grace: Span(grace),
                    });
                    let wanted = wanted.clone();
                    self.tell_change(vec![wanted], Vec::new(), false);
                }
            }
            Step::Drop(index) => {
                let key = job(index).job;
                if self.wanted.remove(&key).is_some() {
                    self.dropped.insert(key.clone());
                    self.tell_change(Vec::new(), vec![key], false);
                }
            }
            Step::Double(back) => {
                let at = self.sent.len().checked_sub(back + 1);
                if let Some(message) = at.and_then(|at| self.sent.get(at)).cloned() {
                    self.tell(message);
                }
            }
            Step::Lose(index) => {
                if let Some(wanted) = self.wanted.get(&job(index).job).cloned() {
                    self.tell_change(vec![wanted], Vec::new(), true);
                }
            }
            Step::EnginePulls(index) => {
                let key = job(index).job;
                if self
                    .carried
                    .get(&key)
                    .is_some_and(|c| c.started_at.is_none() && c.ended.is_none())
                {
                    let what = What::Pulling(PullProgress::default());
                    self.events.push(EngineEvent { job: key, what });
                }
            }
            Step::EngineStarts(index) => {
                let key = job(index).job;
                if let Some(carried) = self.carried.get_mut(&key).filter(|c| c.ended.is_none())
                    && carried.started_at.is_none()
                {
                    carried.started_at = Some(now.wall);
                    let what = What::Started { at: now.wall };
                    self.events.push(EngineEvent { job: key, what });
                }
            }
            Step::EngineEnds(index, code) => self.engine_ends(&job(index).job, Outcome::Exited { code }),
            Step::EngineLoses(index) => {
                let key = job(index).job;
                let lost = self.agent.job(&key);
                if lost.is_some_and(|job| job.started_at.is_some() && job.last_line.is_none()) {
                    self.carried.remove(&key);
                    self.lines.remove(&key);
                    self.crash();
                }
            }
            Step::Deliver => self.deliver(),
            Step::AckObservations => self.ack_observations(),
            Step::AckLogs => self.ack_logs(),
            Step::Answer(how) => self.answer(how),
            Step::Find(found) => self.find(found),
            Step::Readiness(index, ready) => self.check_says(&job(index).job, ready),
            Step::Heartbeat => {
                if self.connected {
                    self.agent.heartbeat_sent(self.mono_ms, self.mono_ms);
                    let effects = self.agent.heartbeat_acked(self.mono_ms);
                    self.carry_out(effects);
                }
            }
            Step::Refused => {
                if !self.connected {
                    let effects = self.agent.connection_refused(now);
                    self.carry_out(effects);
                }
            }
            Step::Connect => self.connect(),
            Step::Disconnect => {
                self.connected = false;
                self.asked.clear();
                self.agent.disconnected();
            }
            Step::Pass(ms) => {
                let end = self.mono_ms + ms;
                while let Some(due) = self.agent.next_deadline().filter(|due| *due <= end) {
                    self.mono_ms = self.mono_ms.max(due);
                    let effects = self.agent.tick(self.now());
                    self.carry_out(effects);
                }
                self.mono_ms = end;
            }
            Step::Unhealthy(index) => {
                let effects = self.agent.unhealthy(&job(index).job, now);
                self.carry_out(effects);
            }
            Step::CrashAfter(effects) => self.crash_after = Some(effects),
            Step::Crash => self.crash(),
        }
    }

    fn check(&mut self) {
        let mut waiting = BTreeSet::new();
        let mut said = Vec::new();
        for observation in self.agent.unacknowledged() {
            if let Seen::Readiness { .. } = observation.seen {
                let job = &observation.job;
                assert!(waiting.insert(job.clone()), "{job}: more than one waits");
                said.push((job.clone(), observation.number));
            }
        }
        for (job, number) in said {
            let before = self.told.get(&job).copied();
            if before.is_none_or(|(before, _)| before != number) {
                let since = before.map_or(u64::MAX, |(_, at)| self.mono_ms - at);
                assert!(since >= 1_000, "{job}: said again after {since} ms");
                self.told.insert(job, (number, self.mono_ms));
            }
        }
        let mut ready = BTreeMap::new();
        for observation in self.received.values() {
            if let Seen::Readiness { ready: now, why } = &observation.seen {
                let before = ready.insert(observation.job.clone(), (*now, why.clone()));
                let before = before.unwrap_or((false, None));
                assert_ne!(before, (*now, why.clone()), "{} is no news", observation.job);
            }
        }
        let mut ended = BTreeSet::new();
        for observation in self.received.values() {
            assert!(
                !ended.contains(&observation.job),
                "{} was seen after its end",
                observation.job
            );
            if matches!(observation.seen, Seen::Ended { .. }) {
                ended.insert(observation.job.clone());
            }
        }
    }

    /// Lets everything come to its end.
    fn finish(mut self) {
        self.crash_after = None;
        self.connect();
        self.deliver();
        // What checks came to last is what the gateway has in the end.
        for _ in 0..2 {
            self.ack_observations();
            self.step(Step::Pass(5_000));
            self.check();
        }
        for (job, ready) in &self.ready {
            if self.agent.job(job).is_some_and(|job| job.last_line.is_none()) {
                let said = self.received.values().rev().find_map(|o| match &o.seen {
                    Seen::Readiness { ready, .. } if o.job == *job => Some(*ready),
                    _ => None,
                });
                assert_eq!(said.unwrap_or(false), *ready, "{job}: the gateway has something else");
            }
        }
        for round in 0..4 * JOBS {
            self.deliver();
            for port in 0..2 * self.finding.len() {
                let port = u16::try_from(100 * round + 2 * port).unwrap();
                self.find(Some((port, port + 1)));
            }
            while !self.asked.is_empty() {
                self.answer(None);
            }
            let alive: Vec<JobKey> = self.carried.keys().cloned().collect();
            for job in alive {
                self.engine_ends(&job, Outcome::Exited { code: 0 });
            }
        }
        self.deliver();
        self.check();
        let ended: BTreeSet<JobKey> = self
            .received
            .values()
            .filter(|o| matches!(o.seen, Seen::Ended { .. }))
            .map(|o| o.job.clone())
            .collect();
        assert_eq!(ended, self.accepted, "each accepted job ends");
        self.wanted.clear();
        self.tell_all();
        self.ack_logs();
        self.ack_observations();
        assert!(self.carried.is_empty(), "the engine has leftovers");
        assert!(self.agent.known().is_empty() && self.agent.jobs().next().is_none());
        let left: Vec<&String> = self.disk.keys().filter(|k| !k.starts_with("meta/")).collect();
        assert!(left.is_empty(), "left on disk: {left:?}");
        assert!(self.lines.is_empty());
        assert!(self.agent.held().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_job_ends_once_and_leaves_nothing(steps in proptest::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        world.connect();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}
