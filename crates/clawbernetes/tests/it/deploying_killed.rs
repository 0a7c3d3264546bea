//! `kill -9` of the gateway at any moment of a rollout, in each of its ways: what it comes to is the same.

use std::{
    collections::BTreeMap,
    io::Write as _,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    answering::{Callers, Manners, Tally},
    cluster::wait_for,
    kill::Dice,
    stage::Stage,
};

/// Replicas of the service.
const REPLICAS: usize = 3;
/// Answers after which callers are taken to be back: some from each of them.
const BACK: u64 = 50;

/// A way to roll a version out.
struct Way {
    /// What is said; `V` is the version.
    sentence: &'static str,
    /// Of a hundred requests to the version so many fail.
    errors_percent: u64,
    /// What it comes to.
    end: &'static str,
}

const WAYS: [Way; 4] = [
    Way {
        sentence: "update api to V",
        errors_percent: 0,
        end: "complete",
    },
    Way {
        sentence: "blue-green deploy api V, keep the old one for 1s",
        errors_percent: 0,
        end: "complete",
    },
    Way {
        sentence: "update api to V, canary 34%, promote after 1s if error_rate < 20%",
        errors_percent: 0,
        end: "complete",
    },
    Way {
        sentence: "update api to V, canary 34%, rollback if errors > 20%",
        errors_percent: 60,
        end: "rolled-back",
    },
];

/// A number from the environment, or this one.
fn from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// `DEPLOYING_RUNS=20` for a long look; `DEPLOYING_SEED` for the pauses of an earlier one.
#[test]
fn a_gateway_killed_at_any_moment_comes_to_the_same_end() {
    let seed = from_env("DEPLOYING_SEED", std::process::id().into());
    let mut dice = Dice(seed);
    let mut rollouts = Rollouts::start();
    for run in 0..from_env("DEPLOYING_RUNS", 1) {
        for way in &WAYS {
            let since = Instant::now();
            let about = format!("{} (seed {seed}, run {run})", way.sentence);
            rollouts.go(way, &mut dice, &about);
            let took = since.elapsed();
            let _ = writeln!(std::io::stderr(), "killed: {about}: {took:.1?}");
        }
    }
    rollouts.end();
}

/// A service that is rolled out again and again.
struct Rollouts {
    stage: Stage,
    callers: Callers,
    /// The good version, and its revision.
    good: (String, Value),
    /// Deployments that ended, oldest first: id, version, phase.
    ended: Vec<(String, String, String)>,
}

impl Rollouts {
    fn start() -> Self {
        let stage = Stage::new();
        let address = stage.first();
        let callers = Callers::start(address, 4, 100);
        let first = stage.cluster.call("deploy.list", &json!({}))[0].clone();
        let text = |field: &str| first[field].as_str().unwrap().to_owned();
        Self {
            stage,
            callers,
            good: ("v1".to_owned(), first["revision"].clone()),
            ended: vec![(text("id"), text("version"), text("phase"))],
        }
    }

    /// Rolls a version out while the gateway is killed, and checks what it comes to.
    fn go(&mut self, way: &Way, dice: &mut Dice, about: &str) {
        let version = format!("v{}", self.ended.len() + 1);
        let manners = Manners {
            errors_percent: way.errors_percent,
            ..Manners::default()
        };
        self.stage.answering.set(&version, manners);
        let bad = (way.end == "rolled-back").then_some(version.as_str());
        let up = self.callers.tally();
        let id = self.stage.deploy(&way.sentence.replace('V', &version), &[]);
        let up = self.kills(dice, up, bad, about);
        let status = self.until_ended(&id, bad.is_some(), about);
        assert_eq!(status["phase"], way.end, "{about}: {status:#}");
        assert_eq!(status["version"], *version, "{about}: {status:#}");
        if bad.is_none() {
            self.good = (version.clone(), status["revision"].clone());
        }
        self.ended.push((id, version.clone(), way.end.to_owned()));
        self.settle(about);
        assert_calm(&up, &self.callers.tally(), bad, about);
        self.only_the_good_one_answers(about);
        self.history(about);
    }

    /// Kills while it is under way: soon after its beginning, and later ones. What callers saw when they were answered again.
    fn kills(&self, dice: &mut Dice, mut up: Tally, bad: Option<&str>, about: &str) -> Tally {
        let cluster = &self.stage.cluster;
        for most_ms in [300, 2_000, 6_000] {
            std::thread::sleep(Duration::from_millis(dice.below(most_ms)));
            assert_calm(&up, &self.callers.tally(), bad, about);
            cluster.kill_gateway();
            // Some don't live to see the end of their start.
            for _ in 0..dice.below(3) {
                cluster.start_gateway();
                std::thread::sleep(Duration::from_millis(dice.below(400)));
                cluster.kill_gateway();
            }
            let well = self.callers.tally().well();
            cluster.start_gateway();
            cluster.call("gateway.ping", &json!({}));
            let shown = Shown::new();
            up = wait_for(&format!("callers to be answered again: {about}"), || {
                let tally = self.callers.tally();
                shown.set(format!("{tally:?} {:#}", self.service()));
                (tally.well() >= well + BACK).then_some(tally)
            });
        }
        up
    }

    /// Waits for a deployment's end. Meanwhile there is one good revision: the one before, and only of a deployment that
    /// isn't bad the new one.
    fn until_ended(&self, id: &str, bad: bool, about: &str) -> Value {
        wait_for(&format!("the end of {id}: {about}"), || {
            let service = self.service();
            let status = self.stage.cluster.call("deploy.get", &json!({ "id": id }));
            let (stable, new) = (&service["revision"], &status["revision"]);
            assert!(
                *stable == self.good.1 || (!bad && stable == new),
                "{about}: {service:#} {status:#}"
            );
            let over = ["complete", "failed", "rolled-back", "paused"];
            over.contains(&status["phase"].as_str()?).then_some(status)
        })
    }

    fn service(&self) -> Value {
        self.stage.cluster.call("service.get", &json!({ "name": "api" }))
    }

    /// Waits until there is the good version and nothing else: in the service's record, among workloads, and among processes.
    fn settle(&self, about: &str) {
        let (good, number) = &self.good;
        let whole = json!([{"revision": number, "version": good, "standing": "good", "ready": REPLICAS, "total": REPLICAS,
            "trafficPercent": 100.0}]);
        let shown = Shown::new();
        wait_for(&format!("nothing but {good}: {about}"), || {
            let service = self.service();
            let processes = self.stage.answering.processes();
            let workloads = self.live();
            let mut members: Vec<String> = service["checks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|check| check["workload"].as_str().unwrap().to_owned())
                .collect();
            members.sort_unstable();
            let settled = service["revisions"] == whole
                && service["revision"] == *number
                && service["deployment"].is_null()
                && members.len() == REPLICAS
                && members == workloads
                && processes == REPLICAS;
            shown.set(format!("{processes} processes, workloads {workloads:?}, {service:#}"));
            settled.then_some(())
        });
    }

    /// The ids of workloads that haven't ended.
    fn live(&self) -> Vec<String> {
        let all = self.stage.cluster.call("workload.list", &json!({}));
        let live = ["pending", "scheduled", "pulling", "running"];
        let mut ids: Vec<String> = all
            .as_array()
            .unwrap()
            .iter()
            .filter(|workload| live.contains(&workload["phase"].as_str().unwrap()))
            .map(|workload| workload["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort_unstable();
        ids
    }

    fn only_the_good_one_answers(&self, about: &str) {
        let before = self.callers.tally();
        let after = wait_for(&format!("more answers: {about}"), || {
            let tally = self.callers.tally();
            (tally.all() >= before.all() + BACK).then_some(tally)
        });
        assert_calm(&before, &after, None, about);
        let others = |tally: &Tally| {
            let mut good = tally.good.clone();
            good.remove(&self.good.0);
            good
        };
        assert_eq!(
            others(&before),
            others(&after),
            "{about}: another one than {} answers",
            self.good.0
        );
    }

    /// Each deployment is there once, as it ended.
    fn history(&self, about: &str) {
        let listed = self.stage.cluster.call("deploy.list", &json!({}));
        let text = |of: &Value, field: &str| of[field].as_str().unwrap().to_owned();
        let mut listed: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|d| (text(d, "id"), text(d, "version"), text(d, "phase")))
            .collect();
        listed.reverse();
        assert_eq!(listed, self.ended, "{about}");
    }

    /// Each end was told once; then all goes.
    fn end(self) {
        let events = self
            .stage
            .cluster
            .call("event.list", &json!({ "kind": "deployment", "limit": 100_000 }));
        let mut ends: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for event in events.as_array().unwrap() {
            let reason = event["reason"].as_str().unwrap();
            if ["DeploymentComplete", "DeploymentRolledBack", "DeploymentFailed"].contains(&reason) {
                *ends.entry((event["subject"].as_str().unwrap(), reason)).or_default() += 1;
            }
        }
        for (id, _, phase) in &self.ended {
            let of: Vec<_> = ends.iter().filter(|((subject, _), _)| subject == id).collect();
            let reason = match phase.as_str() {
                "complete" => "DeploymentComplete",
                _ => "DeploymentRolledBack",
            };
            assert!(
                !of.is_empty() && of.iter().all(|((_, r), _)| *r == reason),
                "{id} {phase}: {of:?}"
            );
        }
        let tally = self.callers.stop();
        // Whoever is there to answer has replicas to send a request to: none was told that there is none.
        let told = tally.broken.keys().find(|why| why.contains("NO_ENDPOINT"));
        assert_eq!(told, None, "{tally:?}");
        let _ = writeln!(std::io::stderr(), "killed: callers saw {tally:?}");
        self.stage.end();
    }
}

/// What was seen last, shown if the test fails while it is waited for something else.
struct Shown(std::cell::RefCell<String>);

impl Shown {
    fn new() -> Self {
        Self(std::cell::RefCell::default())
    }

    fn set(&self, seen: String) {
        *self.0.borrow_mut() = seen;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "what there was instead: {}", self.0.borrow());
        }
    }
}

/// The gateway was up between both: no request went wrong but what a bad version got wrong itself.
#[track_caller]
fn assert_calm(since: &Tally, now: &Tally, bad: Option<&str>, about: &str) {
    assert_eq!(
        since.broken, now.broken,
        "{about}: requests broke though the gateway was up"
    );
    let failed = |tally: &Tally| {
        let mut failed = tally.failed.clone();
        failed.remove(bad.unwrap_or_default());
        failed
    };
    assert_eq!(
        failed(since),
        failed(now),
        "{about}: requests failed though the gateway was up"
    );
}
