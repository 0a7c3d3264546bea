//! Commands against a real gateway, without nodes.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::{
    cluster::post,
    world::{Fleet, Home},
};

#[test]
fn the_local_admin_token_is_found_and_others_are_made_from_it() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let who = home.run("auth whoami --json").json();
    assert_eq!(who["role"], "admin");
    let status = home.run("auth status").ok().to_owned();
    assert!(status.contains(".token"), "{status}");

    let viewer = home
        .run("auth token create alice --role viewer --expires 1h")
        .ok()
        .to_owned();
    assert_eq!(viewer.lines().count(), 1);
    let other = Home::at(fleet.address());
    other.run("status").failed(4, "AUTH_FAILED");
    other.run("status --token nonsense").failed(4, "AUTH_FAILED");
    other.input("auth login", &format!("{viewer}\n")).ok();
    assert_eq!(other.run("auth whoami --json").json()["name"], "alice");
    assert!(!other.run("auth status --json").out.contains(&viewer));
    other
        .run("run --image busybox --gpus 0 --timeout 1m")
        .failed(4, "PERMISSION_DENIED");
    other.run("auth token list").failed(4, "PERMISSION_DENIED");
    other.input("auth login", "wrong\n").failed(4, "AUTH_FAILED");
    assert_eq!(
        other.run("auth whoami --json").json()["name"],
        "alice",
        "a wrong token isn't kept"
    );

    let tokens = home.run("auth token list --json").json();
    let alice = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "alice")
        .unwrap();
    let id = alice["id"].as_str().unwrap();
    home.run(&format!("auth token revoke {id}")).failed(2, "--yes");
    home.run(&format!("auth token revoke {id} --yes")).ok();
    other.run("status").failed(4, "AUTH_FAILED");
    home.run("auth token revoke nobody --yes").failed(3, "NOT_FOUND");

    let join = home.run("auth join-token --expires 5m --uses 2").ok().to_owned();
    assert!(!join.contains(char::is_whitespace), "{join}");
    let created = home.run("auth token create --role operator --json").json();
    assert!(created["token"].is_string());
}

#[test]
fn an_empty_fleet_can_be_looked_at() {
    let fleet = Fleet::start();
    let home = fleet.home();
    assert_eq!(home.run("gateway ping --json").json()["leader"], true);
    home.run("gateway ping").ok();
    let status = home.run("status --json").json();
    assert_eq!(status["cluster"]["totalNodes"], 0);
    assert!(home.run("status").ok().contains("No nodes yet"));
    assert_eq!(home.run("node list --json").json(), serde_json::json!([]));
    assert_eq!(home.run("workload list -o yaml").ok(), "[]");
    assert_eq!(home.run("workload usage --json").json(), serde_json::json!([]));
    for line in [
        "node info gpu-7",
        "node drain gpu-7",
        "node undrain gpu-7",
        "node label gpu-7 a=b",
        "node taint gpu-7 a:NoSchedule",
        "node remove gpu-7 --yes",
        "node events gpu-7",
        "workload status x",
        "workload logs x",
        "workload cancel x",
        "workload wait x",
        "workload exec x -- true",
        "workload update x --timeout 1h",
        "workload migrate x",
        "workload explain x",
    ] {
        home.run(line).failed(3, "NOT_FOUND");
    }
}

#[test]
fn a_workload_waits_is_explained_and_is_cancelled() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let done = home.words(&[
        "run",
        "--image",
        "busybox",
        "--gpus",
        "1",
        "--name",
        "train",
        "--timeout",
        "1h",
        "--command",
        "sleep 5",
    ]);
    let id = done.ok().to_owned();
    assert!(id.starts_with("wl-") && id.lines().count() == 1, "{done:?}");
    assert!(done.err.contains("NO_GPUS_AVAILABLE"), "{done:?}");

    let detail = home.run("workload status train --json").json();
    assert_eq!(detail["id"], id.as_str());
    assert_eq!(detail["phase"], "pending");
    assert!(detail["explanation"]["summary"].is_string());
    let shown = home.run("workload status train").ok().to_owned();
    for part in ["WHY IT WAITS", "TIMELINE", "sleep 5", "pending"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    home.run("workload explain train").ok();
    assert_eq!(home.run("workload list --pending -o name").ok(), id);
    assert_eq!(home.run("workload list --running --json").json(), serde_json::json!([]));
    assert_eq!(home.run("workload list -n other --json").json(), serde_json::json!([]));
    assert_eq!(home.run("workload status train -n other").code, 3);
    home.run("run --image busybox --gpus 1 --name train --timeout 1h")
        .failed(8, "ALREADY_EXISTS");
    home.run("run --image busybox --gpus 1 --no-queue --timeout 1h")
        .failed(6, "NO_GPUS_AVAILABLE");
    home.run("workload exec train -- true").failed(8, "CONFLICT");
    home.run("workload migrate train").failed(8, "CONFLICT");
    home.run("workload wait train --timeout 100ms").failed(7, "TIMED_OUT");
    home.run("workload update train --priority high").ok();
    assert_eq!(home.run("workload list --json").json()[0]["priority"], "high");
    assert_eq!(home.run("workload logs train").ok(), "");

    home.run(&format!("workload cancel {id}")).ok();
    assert_eq!(home.run("workload status train --json").json()["phase"], "cancelled");
    assert_eq!(home.run("workload wait train").code, 125, "it never started");
    assert_eq!(home.run("workload logs train -f").ok(), "");
    // The same by its short name, with filters.
    assert_eq!(
        home.run("logs train --level error --since 1h --tail --context 2").ok(),
        ""
    );
    let wrong = home.run("logs train --search (loss[");
    wrong.failed(2, "INVALID_ARGUMENT");
    assert!(wrong.err.contains("    (loss[\n         ^"), "{}", wrong.err);
    home.run("logs train --search x --context 1001")
        .failed(2, "INVALID_ARGUMENT");
    home.run("logs train --context 1").failed(2, "--search");
    home.run("logs train --level loud").failed(2, "possible values");
    home.run("logs nosuch --level error").failed(3, "NOT_FOUND");
    home.run("workload cancel train").failed(8, "CONFLICT");
    let events = home.run("events --workload train --json").json();
    assert!(events.as_array().unwrap().len() >= 2, "{events}");
}

#[test]
fn dry_runs_and_manifests_of_several_workloads() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let preview = home.run("run --image busybox --gpus 2 --dry-run --timeout 1h");
    assert!(preview.ok().contains("would wait"), "{preview:?}");
    let preview = home
        .run("run --image busybox --gpus 2 --dry-run --timeout 1h --json")
        .json();
    assert!(preview["preview"]["summary"].is_string(), "{preview}");
    assert_eq!(home.run("workload list --json").json(), serde_json::json!([]));

    let one = |name: &str| {
        format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec:\n  image: busybox\n  gpus: 1\n  constraints: {{timeout: 0}}\n"
        )
    };
    let done = home.input("run --file -", &format!("{}---\n{}", one("a"), one("b")));
    assert_eq!(done.ok().lines().count(), 2);
    assert!(!done.err.contains("no timeout"), "{done:?}");
    home.input("run --file -", &format!("{}---\n{}", one("c"), one("a")))
        .failed(8, "ALREADY_EXISTS");
    home.run("workload status c").failed(3, "NOT_FOUND");
    assert_eq!(home.run("workload cancel a b").ok().lines().count(), 2);
    let warned = home.run("run --image busybox --gpus 0");
    assert!(warned.err.contains("warning: no timeout"), "{warned:?}");
}

#[test]
fn followers_go_on_when_the_gateway_comes_back() {
    // The gateway is away at whatever moment: also between what was and what follows.
    let mut fleet = Fleet::start();
    let home = fleet.home();
    let id = home
        .run("run --image busybox --gpus 1 --name first --timeout 1h")
        .ok()
        .to_owned();
    let mut follower = home
        .command(["events", "-f", "-o", "jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut waiter = home
        .command(["workload", "wait", &id])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut ids: Vec<String> = Vec::new();
    let mut until = |subject: &str, reason: &str| {
        loop {
            let line = lines.next().unwrap().unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            ids.push(event["id"].as_str().unwrap().to_owned());
            if event["subject"] == subject && event["reason"] == reason {
                return;
            }
        }
    };
    until(&id, "Submitted");
    fleet.start_again();
    let second = home
        .run("run --image busybox --gpus 1 --name second --timeout 1h")
        .ok()
        .to_owned();
    until(&second, "Submitted");
    fleet.start_again();
    home.run(&format!("workload cancel {id}")).ok();
    until(&id, "Cancelled");
    follower.kill().unwrap();
    follower.wait().unwrap();
    let waited = match waiter.wait().unwrap().code() {
        // It came while the gateway was away: there was nothing to go on with.
        Some(5) => home.run(&format!("workload wait {id}")).code,
        code => code.unwrap_or(-1),
    };
    assert_eq!(waited, 125);
    let mut unique = ids.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "no event came twice: {ids:?}");
    let listed = home.run("events --json").json();
    let listed: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["id"].as_str().unwrap())
        .collect();
    let last = listed.iter().position(|id| *id == ids.last().unwrap()).unwrap();
    let first = listed.iter().position(|id| id == &ids[0]).unwrap();
    assert_eq!(listed[first..=last], ids, "and none was missed");
}

#[test]
fn a_repeated_submission_answers_what_the_first_one_did() {
    let mut fleet = Fleet::start();
    let submit = |fleet: &Fleet, key: &str, more: &str| {
        let body =
            format!(r#"{{"workloads":[{{"name":"once","spec":{{"image":"busybox","gpus":{{"count":1}}}}}}]{more}}}"#);
        let headers = [("idempotency-key", key)];
        post(
            fleet.address(),
            "workload.submit",
            &fleet.token(),
            &headers,
            body.as_bytes(),
        )
        .unwrap()
    };
    let first = submit(&fleet, "a", "").json()[0]["id"].clone();
    assert_eq!(submit(&fleet, "a", "").json()[0]["id"], first);
    submit(&fleet, "b", "").refused(409, "ALREADY_EXISTS");
    fleet.start_again();
    assert_eq!(submit(&fleet, "a", "").json()[0]["id"], first);
    assert_eq!(submit(&fleet, "a", r#","noQueue":true"#).json()[0]["id"], first);
    let listed = fleet.home().run("workload list -o name").ok().to_owned();
    assert_eq!(listed, first.as_str().unwrap());
}
