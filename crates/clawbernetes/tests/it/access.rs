//! Tokens by role, by scope and for one namespace, and the vault's key.

use serde_json::json;

use crate::world::{Fleet, Home};

/// A home that shows this token.
fn with_token(fleet: &Fleet, token: &str) -> Home {
    let home = Home::at(fleet.address());
    home.input("auth login", &format!("{token}\n")).ok();
    home
}

#[test]
fn scopes_one_by_one_allow_that_and_nothing_else() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let token = home
        .run("auth token create backup --scope read-audit --scope read --scope read --expires 30d")
        .ok()
        .to_owned();
    let backup = with_token(&fleet, &token);
    let who = backup.run("auth whoami --json").json();
    assert_eq!(
        (&who["role"], &who["scopes"]),
        (&json!("custom"), &json!(["read", "read-audit"]))
    );
    let shown = backup.run("auth whoami").ok().to_owned();
    let until = ["in 30d (20", "in 29d (20"].iter().any(|until| shown.contains(until));
    assert!(shown.contains("read, read-audit") && until, "{shown}");
    assert!(backup.run("auth status").ok().contains("read, read-audit"));
    backup.run("audit list").ok();
    backup.run("status").ok();
    backup.run("secret set a --value x").failed(4, "PERMISSION_DENIED");
    backup.run("secret get a").failed(4, "PERMISSION_DENIED");
    backup
        .run("cert issue a --san a.example")
        .failed(4, "PERMISSION_DENIED");
    backup.run("vault status").failed(4, "PERMISSION_DENIED");
    assert!(home.run("auth token list").ok().contains("custom: read, read-audit"));

    home.run("auth token create x").failed(2, "--role");
    home.run("auth token create x --role viewer --scope read")
        .failed(2, "cannot be used with");
    home.run("auth token create x --scope fly").failed(2, "read-secrets");
    home.run("auth token create x --role operator --expires 0s")
        .failed(2, "at once");
}

#[test]
fn a_token_for_a_namespace_sees_nothing_of_others() {
    let fleet = Fleet::start();
    let home = fleet.home();
    // What would give more than was meant is refused.
    home.run("auth token create ci --role operator -n ci")
        .failed(2, "--for-namespace");
    home.run("auth token create ci --role operator --for-namespace Not_One")
        .failed(2, "INVALID_ARGUMENT");
    let token = home
        .run("auth token create ci --role operator --for-namespace ci")
        .ok()
        .to_owned();
    home.input("secret set db - -n ci", "theirs").ok();
    home.input("secret set db - -n prod", "not theirs").ok();
    let ci = with_token(&fleet, &token);
    assert_eq!(ci.run("auth whoami --json").json()["namespace"], "ci");
    assert!(ci.run("auth whoami").ok().contains("namespace ci"));
    let listed = ci.run("secret list --json -A").json();
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["namespace"]),
        (1, &json!("ci"))
    );
    ci.run("secret rotate db --value new").ok();
    assert_eq!(home.run("secret get db -n ci").ok(), "new");
    assert_ne!(ci.run("secret rotate db --value new -n prod").code, 0);
    assert_eq!(home.run("secret get db -n prod").ok(), "not theirs");
    ci.run("secret get db").failed(4, "PERMISSION_DENIED");
    ci.run("cert list").failed(4, "PERMISSION_DENIED");
    let listed = home.run("auth token list");
    assert!(
        listed
            .ok()
            .lines()
            .any(|line| line.contains(" operator ") && line.contains(" ci ")),
        "{listed:?}"
    );
}

#[test]
fn the_vaults_key_is_changed_and_values_stay() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.input("secret set db -", "value").ok();
    let before = home.run("vault status --json").json();
    assert_eq!((&before["source"], &before["sealedByOld"]), (&json!("file"), &json!(0)));
    assert!(before["sealed"].as_u64().unwrap() >= 1, "{before}");
    home.run("vault rekey").failed(2, "--yes");
    let after = home.run("vault rekey --yes --json").json();
    assert_ne!(after["key"], before["key"]);
    assert_eq!(after["sealedByOld"], 0);
    assert_eq!(home.run("secret get db").ok(), "value");
    assert!(home.run("vault status").ok().contains(after["key"].as_str().unwrap()));
}
