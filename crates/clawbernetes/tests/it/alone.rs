//! What works, and how it fails, without a gateway.

use std::{
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use crate::world::{Home, free_port};

/// A home whose gateway is a port on which nothing listens.
fn nowhere() -> Home {
    Home::at(SocketAddr::from(([127, 0, 0, 1], free_port())))
}

#[test]
fn a_refused_connection_says_how_to_start_the_gateway() {
    let home = nowhere();
    for line in [
        "status",
        "gateway ping",
        "node list",
        "workload list",
        "run --image host --gpus 0",
        "events -f",
        "workload logs x -o jsonl",
        "workload exec x -- true",
        "auth whoami",
    ] {
        let done = home.run(line);
        let err = done.failed(5, "ECONNREFUSED");
        if line != "workload logs x -o jsonl" {
            assert!(
                err.starts_with("error[ECONNREFUSED]: no gateway answers at ws://127.0.0.1:"),
                "{err}"
            );
            assert!(
                err.contains("\ncause: ") && err.contains("clawbernetes gateway serve"),
                "{err}"
            );
        }
        assert_eq!(done.out, "", "{line}");
    }
    let told: serde_json::Value = serde_json::from_str(&home.run("status --json").err).unwrap();
    assert_eq!(told["error"]["code"], "ECONNREFUSED");
    assert!(told["error"]["hint"].as_str().unwrap().contains("gateway serve"));
}

#[test]
fn wrong_words_are_told_with_the_nearest_right_ones() {
    let home = Home::new();
    home.run("statis").failed(2, "'status'");
    home.run("run --image host --gpuz 1").failed(2, "'--gpus'");
    home.run("run --image host").failed(2, "--gpus");
    home.run("workload update x").failed(2, "--memory");
    home.run("workload list --sort nam").failed(2, "'name'");
    home.run("node taint n k=v:NoSchedul").failed(2, "NoSchedule");
    home.run("workload usage --by label").failed(2, "label:KEY");
    home.run("auth token create --role root").failed(2, "admin");
    home.words(&["events", "--since", "soonish"]).failed(2, "accepted:");
    let done = home.run("node list --jsn --json");
    let told: serde_json::Value = serde_json::from_str(&done.err).unwrap();
    assert_eq!((done.code, &told["error"]["code"]), (2, &"INVALID_ARGUMENT".into()));
    home.run("--gateway ws://203.0.113.1:9000 status")
        .failed(2, "unencrypted");
    home.run("--gateway ftp://host status").failed(2, "ws://");
}

#[test]
fn a_manifest_is_checked_before_anything_is_sent() {
    let home = nowhere();
    home.write(
        "bad.yaml",
        "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  imgae: host\n",
    );
    let done = home.run("run --file bad.yaml");
    let err = done.failed(2, "INVALID_ARGUMENT");
    assert!(
        err.contains("bad.yaml:4") && err.contains("did you mean 'image'?"),
        "{err}"
    );
    home.run("run --file missing.yaml").failed(3, "NOT_FOUND");
    home.input("run --file -", "kind: Workload\nspec: {}\n")
        .failed(2, "standard input");
    home.run("run --image host --gpus 0 --secret Wandb")
        .failed(2, "--secret");
}

#[test]
fn contexts_are_kept_privately_and_used() {
    let home = Home::new();
    home.run("context set lab --gateway ws://127.0.0.1:1 --namespace research --token t0ken")
        .ok();
    home.run("context set prod --gateway ws://127.0.0.1:2").ok();
    let file = home.path(".config/clawbernetes/config.yaml");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);

    let listed = home.run("context list --json").json();
    assert_eq!(listed[0]["name"], "lab");
    assert_eq!(listed[0]["current"], true);
    assert!(!listed.to_string().contains("t0ken"));
    home.run("status").failed(5, "ws://127.0.0.1:1");
    home.run("status --use-context prod").failed(5, "ws://127.0.0.1:2");
    home.run("context use prod").ok();
    home.run("status").failed(5, "ws://127.0.0.1:2");
    home.run("context use pord").failed(3, "'prod'");
    home.run("context set prod").failed(2, "nothing to set");
    home.run("context set prod --gateway nonsense://x")
        .failed(2, "INVALID_ARGUMENT");

    let status = home.run("auth status --use-context lab --json");
    assert_eq!(status.code, 5);
    let told: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(told["gateway"]["source"], "context lab");
    assert_eq!(told["namespace"]["value"], "research");
    assert_eq!(told["token"]["source"], "context lab");
    assert!(!status.out.contains("t0ken") && !status.err.contains("t0ken"));

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    home.run("status").failed(4, "chmod 600");
}

#[test]
fn another_place_for_the_context_file_can_be_named() {
    let home = Home::new();
    let file = home.path("elsewhere/c.yaml");
    let mut command = home.command(["context", "set", "a", "--gateway", "ws://127.0.0.1:1"]);
    assert!(command.env("CLAWBERNETES_CONFIG", &file).status().unwrap().success());
    assert!(file.exists());
    assert!(!home.path(".config").exists());
}

#[test]
fn a_local_token_that_others_can_read_is_refused() {
    let home = nowhere();
    let port = home
        .run("status")
        .err
        .split("127.0.0.1:")
        .nth(1)
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .to_owned();
    let port = port.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let path = home.write(&format!(".local/state/clawbernetes/gateways/{port}.token"), "t0ken");
    home.run("status").failed(5, "ECONNREFUSED");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = home.run("status");
    let err = done.failed(4, "chmod 600");
    assert!(!err.contains("t0ken"));
    home.run("status --token given").failed(5, "ECONNREFUSED");
}

#[test]
fn help_completions_and_manual_come_from_the_binary() {
    let home = Home::new();
    assert!(home.run("run --help").ok().contains("Examples:"));
    assert!(home.run("--version").ok().starts_with("clawbernetes "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            home.run(&format!("completions {shell}")).ok().contains("clawbernetes"),
            "{shell}"
        );
    }
    assert!(home.run("man").ok().contains(".TH"));
    home.run("man --out pages").ok();
    assert!(home.path("pages/clawbernetes-node-drain.1").exists());
    let completed = home
        .command(["--", "clawbernetes", "wor"])
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&completed.stdout).contains("workload"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = Home::new();
    let mut child = home
        .command(["man"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}
