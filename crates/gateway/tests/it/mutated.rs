//! Credentials and frames with a few bytes changed: nothing breaks, and nobody comes in.

use std::sync::Arc;

use api::{
    Timestamp,
    wire::{FromNode, MetricBatch, SERIES_MAX, SeriesKey, Tick, ToNode},
};
use gateway::{auth, view::View};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Of each kind.
const MUTATIONS: usize = 100_000;
const SEED: u64 = 0x5eed_0f7e;

/// Numbers from a seed: SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// The same bytes with one to four changes: one replaced, flipped, left out, put in, or a part moved.
    fn mutate(&mut self, bytes: &[u8], alphabet: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let letter = alphabet[self.below(alphabet.len())];
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] = letter,
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.insert(at, letter),
                4 => bytes.truncate(at),
                _ => bytes.rotate_left(at),
            }
        }
        bytes
    }
}

fn none_comes_in(view: &View, credentials: &[String]) {
    let now = Timestamp::now();
    for credential in credentials {
        // What is changed below is what is let in.
        auth::identify(view, credential, now).unwrap();
    }
    let mut dice = Dice(SEED);
    for round in 0..MUTATIONS * credentials.len() {
        let credential = &credentials[round % credentials.len()];
        let changed = dice.mutate(credential.as_bytes(), b"0123456789abcdef_.cbtjnA\0\xff ");
        let changed = String::from_utf8_lossy(&changed);
        if changed == credential.as_str() {
            continue;
        }
        let Err(error) = auth::identify(view, &changed, now) else {
            panic!("{changed:?} came in for {credential:?} (seed {SEED}, round {round})");
        };
        let told = format!("{error:?}");
        let (_, secret) = credential.rsplit_once('_').unwrap();
        assert!(!told.contains(&secret[..16]), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_changed_credential_is_anybodys() {
    let fixture = Fixture::start().await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let viewer = fixture
        .admin("auth.token.create", &json!({"name": "v", "role": "viewer"}))
        .await;
    let join = fixture.admin("auth.join-token", &json!({"expires": "1h"})).await;
    let node = fixture
        .admin("node.join", &json!({"name": "gpu-7.lab", "exact": true}))
        .await;
    let credentials = [
        fixture.gateway.admin_token.clone().unwrap(),
        text(&viewer.body["token"]),
        text(&join.body["token"]),
        text(&node.body["credential"]),
    ]
    // The fingerprint behind it is for its bearer: the gateway doesn't look at it.
    .map(|token| match token.rsplit_once('.') {
        Some((credential, fingerprint)) if fingerprint.len() == 64 => credential.to_owned(),
        _ => token,
    });
    none_comes_in(&fixture.gateway.hub.view(), &credentials);
    fixture.gateway.stop().await;
}

fn frames() -> (Vec<Value>, Vec<Value>) {
    let job = json!({"workload": "w1", "attempt": 1, "rank": 0});
    let from_node = vec![
        json!({"type": "hello", "protocol": 3, "name": "n1", "labels": {"a": "b"}, "jobs": [job], "inventory": {
            "hostname": "h", "cpu": 4, "memoryTotalBytes": 1 << 30, "arch": "x86_64", "agentVersion": "0", "cpuModel": null,
            "os": null, "kernel": null, "bootId": null, "gpus": [], "links": [], "notes": [],
            "engines": [{"kind": "native", "version": null, "limitations": []}],
        }}),
        json!({"type": "observations", "observations": [{"number": 1, "job": job, "seen": {
            "what": "ended", "startedAt": null, "at": "2026-01-01T00:00:00Z", "outcome": {"kind": "exited", "code": 9},
            "stop": null, "usage": {"cpuMs": null, "memoryPeakBytes": null}, "lastLine": 1,
        }}]}),
        json!({"type": "logs", "streams": [[job, [{"n": 1, "t": 0, "s": "stdout", "m": "said"}]]]}),
        json!({"type": "secretsWanted", "job": job}),
        json!({"type": "resync"}),
        json!({"type": "metrics", "batch": {"anew": true, "define": [{"m": "cpu", "l": {"gpu": "0"}}], "ticks": [
            {"n": 1, "t": 5, "v": [1.5]}, {"n": 2, "t": 6, "v": [null]},
        ]}}),
    ];
    let to_node = vec![
        json!({"type": "welcome", "protocol": 3, "at": "2026-01-01T00:00:00Z", "heartbeat": "10s", "fence": "30s", "alone": false}),
        json!({"type": "refused", "error": {"code": "AUTH_FAILED", "reason": "certificate-revoked", "message": "no"}}),
        json!({"type": "logsAck", "through": [[job, 7]]}),
        json!({"type": "desired", "generation": 3, "base": 2, "piece": 0, "more": false, "put": [], "forget": [job]}),
        json!({"type": "secrets", "job": job, "answer": {"is": "values", "values": ["Y2FuYXJ5"], "mask": []}}),
    ];
    (from_node, to_node)
}

/// Whatever can be read can be written, and is read again as the same.
fn read_again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(frame: &T) {
    let written = serde_json::to_vec(frame).unwrap();
    assert_eq!(&serde_json::from_slice::<T>(&written).unwrap(), frame);
}

#[test]
fn changed_frames_are_read_or_refused() {
    let (from_node, to_node) = frames();
    for frame in &from_node {
        serde_json::from_value::<FromNode>(frame.clone()).unwrap_or_else(|e| panic!("{e}: {frame}"));
    }
    for frame in &to_node {
        serde_json::from_value::<ToNode>(frame.clone()).unwrap_or_else(|e| panic!("{e}: {frame}"));
    }
    let alphabet = b"{}[]\",:0123456789-+.eE nulltruefalse\\u\0\xff";
    let mut dice = Dice(SEED);
    let mut read = (0, 0);
    for round in 0..MUTATIONS {
        let changed = dice.mutate(from_node[round % from_node.len()].to_string().as_bytes(), alphabet);
        if let Ok(frame) = serde_json::from_slice::<FromNode>(&changed) {
            read.0 += 1;
            read_again(&frame);
            if let FromNode::Metrics { batch } = &frame {
                let _ = batch.check(dice.below(SERIES_MAX * 2));
            }
        }
        let changed = dice.mutate(to_node[round % to_node.len()].to_string().as_bytes(), alphabet);
        if let Ok(frame) = serde_json::from_slice::<ToNode>(&changed) {
            read.1 += 1;
            read_again(&frame);
            let shown = format!("{frame:?}");
            assert!(!shown.contains("canary") && !shown.contains("Y2FuYXJ5"), "{shown}");
        }
    }
    // Some changes do no harm; most do.
    assert!(
        (1..MUTATIONS).contains(&read.0) && (1..MUTATIONS).contains(&read.1),
        "{read:?}"
    );
}

#[test]
fn changed_batches_keep_their_bounds() {
    let mut dice = Dice(SEED);
    let (mut fine, mut refused) = (0, 0);
    for _ in 0..MUTATIONS {
        let define = (0..dice.below(4))
            .map(|_| {
                let name = |dice: &mut Dice| "x".repeat(dice.below(8) * dice.below(45));
                let labels = (0..dice.below(3))
                    .map(|n| (format!("{n}{}", name(&mut dice)), name(&mut dice)))
                    .collect();
                Arc::new(SeriesKey {
                    metric: name(&mut dice),
                    labels,
                    unit: None,
                    kind: None,
                })
            })
            .collect();
        let ticks = (0..dice.below(3))
            .map(|_| Tick {
                number: dice.next() >> dice.below(64),
                at_ms: dice.next().cast_signed(),
                values: vec![Some(1.0); dice.below(5)],
            })
            .collect();
        let batch = MetricBatch {
            anew: dice.below(2) == 0,
            define,
            ticks,
            dropped: dice.next(),
        };
        let known = [0, 2, SERIES_MAX, usize::MAX][dice.below(4)];
        match batch.check(known) {
            Err(_) => refused += 1,
            Ok(series) => {
                fine += 1;
                assert!(series <= SERIES_MAX, "{batch:?}");
                assert!(batch.ticks.iter().all(|tick| tick.values.len() <= series), "{batch:?}");
                assert!(batch.ticks.is_sorted_by(|a, b| a.number < b.number), "{batch:?}");
                assert!(
                    batch.define.iter().all(|key| (1..=256).contains(&key.metric.len())),
                    "{batch:?}"
                );
            }
        }
    }
    assert!(fine > 0 && refused > 0, "{fine} {refused}");
}
