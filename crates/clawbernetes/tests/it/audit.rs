//! The audit log on the command line.

use serde_json::{Value, json};

use crate::world::{Fleet, Home};

#[test]
fn who_did_what_is_listed_and_what_was_refused() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.input("secret set db -", "value").ok();
    home.run("secret get db").ok();
    home.run("secret get none").failed(3, "NOT_FOUND");
    let viewer = home
        .run("auth token create eve --role viewer --expires 1h")
        .ok()
        .to_owned();
    let eve = Home::at(fleet.address());
    eve.input("auth login", &format!("{viewer}\n")).ok();
    eve.run("secret get db").failed(4, "PERMISSION_DENIED");

    let of_db = home
        .run("audit list --action secret.get --target secret/default/db --json")
        .json();
    assert_eq!(
        (&of_db[0]["actor"], &of_db[0]["allowed"], &of_db[0]["error"]),
        (&json!("user:admin"), &json!(true), &Value::Null)
    );
    let denied = home.run("audit list --action secret.get --denied --json").json();
    assert_eq!(denied.as_array().unwrap().len(), 1, "{denied}");
    assert_eq!(
        (&denied[0]["allowed"], &denied[0]["error"]),
        (&json!(false), &json!("PERMISSION_DENIED"))
    );
    let table = home.run("audit list --action secret").ok().to_owned();
    for part in [
        "denied: PERMISSION_DENIED",
        "failed: NOT_FOUND",
        "secret/default/none",
        " ok ",
        "127.0.0.1",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let newest = home.run("audit list --action secret --limit 1 --json").json();
    assert_eq!(newest, denied, "of many the newest");
    let lines = home.run("audit list -o jsonl");
    let records: Vec<Value> = lines
        .ok()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let numbers: Vec<u64> = records.iter().map(|r| r["sequence"].as_u64().unwrap()).collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as u64).collect::<Vec<_>>(),
        "all, in order, without holes"
    );
    assert_eq!(home.run("audit list --until 1h").ok(), "No records.");

    eve.run("audit list").failed(4, "PERMISSION_DENIED");
    eve.run("audit verify").failed(4, "PERMISSION_DENIED");
    home.run("audit list --since soonish").failed(2, "accepted:");
    home.run("audit list --limit 0").failed(2, "--limit");
}

#[test]
fn a_changed_record_is_found_and_named() {
    let mut fleet = Fleet::start();
    let home = fleet.home();
    for name in ["a", "b", "c"] {
        home.input(&format!("secret set {name} -"), "value").ok();
    }
    let whole = home.run("audit verify --json").json();
    assert_eq!((&whole["intact"], &whole["broken"]), (&json!(true), &Value::Null));
    assert!(home.run("audit verify").ok().contains("The audit log is whole"));

    let records = home.run("audit list --action secret.set --json").json();
    let changed = records[1]["sequence"].as_u64().unwrap();
    fleet.stop();
    fleet.change_record(&gateway::keys::audit(changed), |record| {
        String::from_utf8(record)
            .unwrap()
            .replace("user:admin", "user:nobody")
            .into_bytes()
    });
    fleet.start_again();
    let verdict = home.run("audit verify");
    assert_eq!(verdict.code, 1, "{verdict:?}");
    assert!(
        verdict.out.contains(&format!("broken at record {changed}")),
        "{verdict:?}"
    );
    let verdict = home.run("audit verify --json");
    let told: Value = serde_json::from_str(&verdict.out).unwrap();
    assert_eq!(
        (verdict.code, &told["intact"], &told["broken"]),
        (1, &json!(false), &json!(changed))
    );
    assert!(told["why"].is_string());
}
