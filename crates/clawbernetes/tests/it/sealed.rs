//! `kill -9` of the gateway while secrets, keys and certificates change: afterwards all is as before the change, or as
//! after it.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, wait_for},
    kill::Dice,
};

const ROUNDS: usize = 40;
/// More versions than this, and all of them are destroyed.
const VERSIONS_MAX: usize = 6;
/// Longest time from the beginning of a call to a kill, microseconds: about as long as a few calls take.
const KILL_WITHIN_US: u64 = 20_000;

/// What can be known from outside: the readable values in order, and the serials of certificates.
#[derive(Debug, Clone, PartialEq, Default)]
struct State {
    values: Vec<String>,
    certs: usize,
}

/// A change, as it is asked for.
#[derive(Debug)]
enum Change {
    Set(String),
    Rotate(String),
    Delete,
    DeleteAll,
    Rekey,
    Certificate,
}

impl Change {
    fn any(dice: &mut Dice, state: &State) -> Self {
        // Sixteen hex digits are twelve bytes of base64, which is how values travel.
        let value = format!("{:016x}", dice.below(u64::MAX));
        match dice.below(6) {
            0 => Self::Set(value),
            _ if state.values.is_empty() => Self::Set(value),
            _ if state.values.len() > VERSIONS_MAX => Self::DeleteAll,
            1 | 2 => Self::Rotate(value),
            3 => Self::Delete,
            4 => Self::Rekey,
            _ => Self::Certificate,
        }
    }

    fn request(&self) -> (&'static str, Value) {
        match self {
            Self::Set(value) => ("secret.set", json!({"name": "db", "value": value})),
            Self::Rotate(value) => (
                "secret.rotate",
                json!({"name": "db", "value": value, "keepVersions": 20}),
            ),
            Self::Delete => ("secret.delete", json!({"name": "db"})),
            Self::DeleteAll => ("secret.delete", json!({"name": "db", "allVersions": true})),
            Self::Rekey => ("vault.rekey", json!({})),
            Self::Certificate => ("cert.rotate", json!({"name": "api", "force": true})),
        }
    }

    fn applied(&self, state: &State) -> State {
        let mut after = state.clone();
        match self {
            Self::Set(value) | Self::Rotate(value) => after.values.push(value.clone()),
            Self::Delete => drop(after.values.pop()),
            Self::DeleteAll => after.values.clear(),
            Self::Rekey => {}
            Self::Certificate => after.certs += 1,
        }
        after
    }
}

/// What the gateway says that there is; each readable version opens.
fn seen(cluster: &Cluster) -> State {
    let listed = cluster.call("secret.list", &json!({}));
    let mut values = Vec::new();
    if !listed.as_array().unwrap().is_empty() {
        let versions = cluster.call("secret.versions", &json!({"name": "db"}));
        let mut readable: Vec<&Value> = versions
            .as_array()
            .unwrap()
            .iter()
            .filter(|version| version["state"] == "readable")
            .collect();
        readable.sort_by_key(|version| version["version"].as_u64());
        for version in &readable {
            let asked = json!({"name": "db", "version": version["version"]});
            let content = cluster.call("secret.get", &asked);
            values.push(content["value"].as_str().unwrap().to_owned());
        }
        let current: Vec<&&Value> = readable.iter().filter(|version| version["current"] == true).collect();
        assert_eq!(current.len(), usize::from(!readable.is_empty()), "{versions:#}");
        assert!(
            current.iter().all(|current| *current == readable.last().unwrap()),
            "{versions:#}"
        );
        assert_eq!(listed[0]["versions"], json!(readable.len()), "{listed:#} {versions:#}");
        assert_eq!(
            listed[0]["version"],
            current.first().map_or(Value::Null, |c| c["version"].clone())
        );
    }
    let certs = cluster.call("cert.list", &json!({}));
    let certs = certs.as_array().unwrap();
    let valid = certs.iter().filter(|cert| cert["status"] == "valid").count();
    assert_eq!(valid, 1, "{certs:#?}");
    State {
        values,
        certs: certs.len(),
    }
}

#[test]
fn a_change_that_is_cut_off_is_done_or_isnt() {
    let begun = Instant::now();
    let seed = match std::env::var("CLAWBERNETES_TEST_SEED") {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => u64::from(std::process::id()) << 20 | u64::from(begun.elapsed().subsec_nanos()),
    };
    // Past the capture of tests that pass.
    let _ = writeln!(std::io::stderr(), "sealed test: CLAWBERNETES_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let cluster = Cluster::start();
    cluster.call("cert.issue", &json!({"name": "api", "sans": ["api.example"]}));
    let mut state = seen(&cluster);
    let (mut done, mut undone, mut changes) = (0, 0, 0);
    for round in 0..ROUNDS {
        let wait = Duration::from_micros(dice.below(KILL_WITHIN_US));
        let mut cut_off = None;
        thread::scope(|scope| {
            let cluster = &cluster;
            let killing = scope.spawn(move || {
                thread::sleep(wait);
                cluster.kill_gateway();
            });
            while cut_off.is_none() {
                let change = Change::any(&mut dice, &state);
                let (operation, request) = change.request();
                match cluster.try_call(operation, &request) {
                    Some(_) => {
                        state = change.applied(&state);
                        changes += 1;
                    }
                    None => cut_off = Some(change),
                }
            }
            killing.join().unwrap();
        });
        cluster.start_gateway();
        let change = cut_off.unwrap();
        let now = seen(&cluster);
        let after = change.applied(&state);
        assert!(
            now == state || now == after,
            "round {round}, cut off in {change:?}:\nbefore {state:?}\nafter  {after:?}\nnow    {now:?}"
        );
        if now != after {
            undone += 1;
        } else if now != state {
            done += 1;
        }
        state = now;
        // A change of the master key that was cut off goes on.
        wait_for("the old master key to be out of use", || {
            let status = cluster.call("vault.status", &json!({}));
            (status["sealedByOld"] == 0).then_some(())
        });
        assert_eq!(seen(&cluster), state, "after the change of the master key went on");
        let verdict = cluster.call("audit.verify", &json!({}));
        assert_eq!(verdict["intact"], true, "{verdict:#}");
    }
    let _ = writeln!(
        std::io::stderr(),
        "sealed test: {changes} changes acknowledged; of those cut off, {done} are done and {undone} aren't"
    );
    cluster.end();
    assert!(changes > 0);
}
