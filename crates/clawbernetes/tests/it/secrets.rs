//! Secrets on the command line: from the prompt to the end of the last version.

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    pty::Pty,
    world::{Done, Fleet, Home},
};

/// What must be nowhere but where it was asked for.
const CANARY: &str = "canary-4711";

/// Standard output of a command as bytes.
#[track_caller]
fn bytes(home: &Home, line: &str) -> Vec<u8> {
    let output = home.command(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_secret_is_kept_shown_rotated_and_destroyed() {
    let fleet = Fleet::start();
    let home = fleet.home();
    assert_eq!(home.run("secret list").ok(), "No secrets.");
    let done = home.input("secret set db-password - --description app", "hunter2\n");
    assert_eq!(done.ok(), "default/db-password is at version 1");
    assert_eq!(done.err, "");
    assert_eq!(
        bytes(&home, "secret get db-password"),
        b"hunter2\n",
        "every byte, and none more"
    );

    let warned = home.run("secret rotate db-password --value hunter3");
    assert_eq!(
        warned.ok(),
        "default/db-password is at version 2; 1 older one can be read"
    );
    assert_eq!(warned.err.matches("warning:").count(), 1, "{warned:?}");
    assert_eq!(bytes(&home, "secret get db-password"), b"hunter3");
    assert_eq!(bytes(&home, "secret get db-password --version 1"), b"hunter2\n");
    let shown = home.run("secret get db-password --output json").json();
    assert_eq!(
        (
            &shown["value"],
            &shown["encoding"],
            &shown["version"],
            &shown["namespace"]
        ),
        (&json!("hunter3"), &json!("text"), &json!(2), &json!("default"))
    );
    assert!(
        home.run("secret get db-password -o yaml")
            .ok()
            .contains("value: hunter3")
    );

    let made = home.run("secret rotate db-password --generate --json").json();
    assert_eq!((&made["version"], made.get("value")), (&json!(3), None));
    let value = bytes(&home, "secret get db-password");
    assert_eq!(value.len(), 43);
    assert!(value.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b)));

    let versions = home.run("secret versions db-password --json").json();
    let current: Vec<&Value> = versions.as_array().unwrap().iter().map(|v| &v["current"]).collect();
    assert_eq!(current, [false, false, true]);
    home.run("secret rotate db-password --value x --keep-versions 101")
        .failed(2, "INVALID_ARGUMENT");
    home.run("secret rotate db-password --value x --keep-versions 1").ok();
    home.run("secret get db-password --version 1").failed(3, "NOT_FOUND");
    assert_eq!(bytes(&home, "secret get db-password --version 3"), value);

    let unasked = home.run("secret delete db-password");
    let said = unasked.failed(2, "--force");
    assert!(said.contains("version 4 of the secret db-password"), "{said}");
    assert!(
        home.run("secret delete db-password --force")
            .ok()
            .contains("3 is read now")
    );
    assert_eq!(bytes(&home, "secret get db-password"), value);
    home.run("secret delete db-password --all-versions --yes").ok();
    home.run("secret get db-password").failed(3, "NOT_FOUND");
    assert_eq!(home.run("secret list --json").json(), json!([]));
}

#[test]
fn values_are_bytes_and_namespaces_keep_them_apart() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let key = b"-----BEGIN KEY-----\n\xff\x00\n";
    std::fs::write(home.path("tls.key"), key).unwrap();
    home.run("secret set tls-key --file tls.key --expires 90d -n prod").ok();
    home.input("secret set tls-key --file - -n test", "other").ok();
    assert_eq!(bytes(&home, "secret get tls-key -n prod"), key);
    assert_eq!(bytes(&home, "secret get tls-key -n test"), b"other");
    let shown = home.run("secret get tls-key -n prod --json").json();
    assert_eq!(
        (&shown["encoding"], &shown["value"]),
        (&json!("base64"), &json!("LS0tLS1CRUdJTiBLRVktLS0tLQr/AAo="))
    );
    home.run("secret get tls-key").failed(3, "NOT_FOUND");

    let names = |line: &str| home.run(line).ok().lines().count();
    assert_eq!(names("secret list -o name"), 2);
    assert_eq!(names("secret list -o name -n prod"), 1);
    home.run(&format!(
        "context set here --gateway ws://{} --namespace test",
        fleet.address()
    ))
    .ok();
    assert_eq!(names("secret list -o name"), 1);
    assert_eq!(names("secret list -o name -A"), 2);
    let listed = home.run("secret list -A").ok().to_owned();
    assert!(
        ["in 90d", "in 89d"].iter().any(|life| listed.contains(life)),
        "{listed}"
    );
    let completed = home
        .command(["--", "clawbernetes", "secret", "get", ""])
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "3")
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&completed.stdout).contains("tls-key"),
        "{completed:?}"
    );
}

#[test]
fn what_cannot_be_is_refused_before_anything_changes() {
    let fleet = Fleet::start();
    let home = fleet.home();
    std::fs::write(home.path("long"), vec![b'x'; (1 << 20) + 1]).unwrap();
    std::fs::write(home.path("empty"), "").unwrap();
    for name in ["Db", "a_b", "-a", "a..b", &"a".repeat(64), "prod/db"] {
        let done = home.words(&["secret", "set", "--value", CANARY, "--", name]);
        done.failed(2, "as in DNS");
    }
    for (line, status, part) in [
        ("secret set db", 2, "nobody is there to ask"),
        ("secret set db --file empty", 2, "empty"),
        ("secret set db --file long", 2, "at most 1 MiB"),
        ("secret set db --file nowhere", 3, "nowhere can't be read"),
        ("secret set db --file .", 2, "can't be read"),
        ("secret set db -", 2, "standard input is empty"),
        ("secret set db - --value x", 2, "one source"),
        ("secret set db x", 2, "as a word"),
        ("secret set db --value x --expires 0s", 2, "expired at once"),
        ("secret set db --value x --expires soon", 2, "accepted:"),
        ("secret set db --value x -n Bad_Space", 2, "namespace"),
        ("secret rotate db --value x", 3, "NOT_FOUND"),
        ("secret rotate db", 2, "nobody is there to ask"),
        ("secret rotate db --value x --generate", 2, "cannot be used with"),
        ("secret get db", 3, "NOT_FOUND"),
        ("secret get db --version 0", 2, "INVALID_ARGUMENT"),
        ("secret get db --output text", 2, "value"),
        ("secret versions db", 3, "NOT_FOUND"),
        ("secret delete db", 3, "NOT_FOUND"),
        ("secret delete db --force", 3, "NOT_FOUND"),
        ("run --image busybox --gpus 0 --secret db", 3, "NOT_FOUND"),
        ("run --image busybox --gpus 0 --secret Db", 2, "--secret"),
    ] {
        home.run(line).failed(status, part);
    }
    let empty = home.words(&["secret", "set", "db", "--value", ""]);
    empty.failed(2, "--value is empty");
    let told: Value = serde_json::from_str(&home.run("secret set db --file nowhere --json").err).unwrap();
    assert_eq!(
        (&told["error"]["code"], &told["error"]["field"]),
        (&json!("NOT_FOUND"), &json!("--file"))
    );
    assert_eq!(home.run("secret list --json").json(), json!([]));
    assert_eq!(home.run("workload list --json").json(), json!([]));
}

#[test]
fn no_value_is_in_anything_that_is_said() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let silent = |done: &Done| {
        assert!(!done.out.contains(CANARY) && !done.err.contains(CANARY), "{done:?}");
    };
    silent(&home.input("secret set db -", CANARY));
    for line in [
        "secret set db --value canary-4711",
        "secret rotate db --value canary-4711",
        "secret rotate db --value canary-4711 --json",
        // Refused by the command line, by the gateway, and by clap.
        "secret set canary-4711! --value x",
        "secret set canary-4711-canary-4711-canary-4711-canary-4711-canary-4711-canary-4711 --value x",
        "secret set db canary-4711",
        "secret set db canary-4711 canary-4711",
        "secret set db --value canary-4711 --expires soon",
        "secret set db --value canary-4711 --vlaue x --json",
        "secret set db --value canary-4711 -n Bad_Space",
        "secret rotate none --value canary-4711",
        "secret set db --value canary-4711 --gateway ws://127.0.0.1:1",
        "secret set db --value canary-4711 --token wrong",
        "run --image busybox --gpus 0 --secret db=canary-4711!",
        "secret list",
        "secret list -o yaml",
        "secret versions db --json",
        "secret delete db",
        "audit list --json",
        "events --json",
    ] {
        silent(&home.run(line));
    }
    let mut traced = home.command(["secret", "set", "db", "--value", CANARY]);
    traced.env("CLAWBERNETES_LOG", "trace").env("RUST_LOG", "trace");
    let traced = Done::from(traced.output().unwrap());
    traced.ok();
    silent(&traced);
    assert_eq!(bytes(&home, "secret get db"), CANARY.as_bytes());
}

#[test]
fn a_value_is_typed_twice_and_isnt_shown() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let mut pty = Pty::start(&home, "secret set db");
    pty.wait_written("Value of db: ");
    pty.press("canary-4711\n");
    pty.wait_written("Once more: ");
    pty.press("canary-4711\n");
    let (status, written) = pty.end();
    assert_eq!(status, Some(0), "{written}");
    assert!(!written.contains(CANARY), "{written}");
    assert_eq!(bytes(&home, "secret get db"), CANARY.as_bytes());

    let mut pty = Pty::start(&home, "secret rotate db");
    pty.wait_written("Value of db: ");
    pty.press("one\n");
    pty.wait_written("Once more: ");
    pty.press("two\n");
    let (status, written) = pty.end();
    assert_eq!(status, Some(2));
    assert!(written.contains("the two values differ"), "{written}");

    let mut pty = Pty::start(&home, "secret delete db --all-versions");
    pty.wait_written("[y/N] ");
    pty.press("n\n");
    let (status, written) = pty.end();
    assert_eq!(status, Some(8));
    assert!(
        written.contains("Destroy the secret db for good? 1 version"),
        "{written}"
    );
    let pty = Pty::start(&home, "secret get db");
    let (_, written) = pty.end();
    assert_eq!(written, format!("{CANARY}\r\n"), "on a terminal a line ends");
}

#[test]
fn a_workload_says_which_secrets_it_gets_and_never_what_they_hold() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.input("secret set wandb-key -", CANARY).ok();
    home.input("secret set tls-key -", CANARY).ok();
    let flags = "--image busybox --gpus 1 --timeout 1h --secret wandb-key --secret tls-key=/run/tls.key";
    let preview = home.run(&format!("run {flags} --dry-run"));
    assert!(preview.ok().contains("secret: wandb-key as $WANDB_KEY"), "{preview:?}");
    home.run(&format!("run {flags} --name train")).ok();
    let status = home.run("workload status train");
    assert!(
        status.ok().contains("wandb-key as $WANDB_KEY") && status.ok().contains("tls-key at /run/tls.key"),
        "{status:?}"
    );
    let secrets = &home.run("workload status train --json").json()["spec"]["secrets"];
    assert_eq!(
        *secrets,
        json!([{"secret": "wandb-key", "to": {"env": "WANDB_KEY"}}, {"secret": "tls-key", "to": {"file": "/run/tls.key"}}])
    );

    home.write(
        "w.yaml",
        "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  image: busybox\n  gpus: 1\n  constraints: {timeout: 1h}\n  \
         env: [{name: KEY, valueFrom: {secretRef: tls-key}}]\n",
    );
    let merged = home
        .run("run --file w.yaml --secret wandb-key=KEY --dry-run --json")
        .json();
    assert_eq!(
        merged["spec"]["secrets"],
        json!([{"secret": "wandb-key", "to": {"env": "KEY"}}])
    );
}

#[test]
fn a_process_gets_its_secrets_and_nobody_else_does() {
    let mut cluster = Cluster::start();
    cluster.join("native", &["--engine", "native"]);
    cluster.home.input("secret set db -", CANARY).ok();
    let words = [
        "run",
        "--image",
        "host",
        "--gpus",
        "0",
        "--timeout",
        "1m",
        "--name",
        "job",
        "--secret",
        "db=DB",
        "--wait",
        "--",
        "sh",
        "-c",
        "test ${#DB} -eq 11 && echo it has it",
    ];
    let done = cluster.home.words(&words);
    done.ok();
    assert_eq!(cluster.home.run("workload logs job").ok(), "it has it");
    for line in [
        "workload status job --json",
        "workload list --json",
        "events --json",
        "audit list --json",
    ] {
        let said = cluster.home.run(line);
        assert!(!said.ok().contains(CANARY), "{said:?}");
    }
    cluster.end();
}
