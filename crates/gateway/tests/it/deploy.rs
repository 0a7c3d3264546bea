//! Deployments asked for over HTTP, on a fleet without nodes: what is planned, refused, and written down.

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Words, with what a replica runs.
fn asked(intent: &str) -> Value {
    json!({"intent": intent, "template": {"image": "host", "command": ["serve"]}})
}

async fn planned(fixture: &Fixture, intent: &str) -> Value {
    let answer = fixture.admin("deploy.plan", &asked(intent)).await;
    assert_eq!(answer.status, 200, "{intent}: {answer:?}");
    answer.body["plan"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_deploy_at_once_one_wins_and_the_other_is_told() {
    let fixture = Fixture::start().await;
    let plan = planned(&fixture, "deploy api v1 with 2 replicas").await;
    let request = json!({"request": asked("deploy api v1 with 2 replicas"), "digest": plan["digest"]});
    let (one, other) = tokio::join!(
        fixture.admin("deploy.apply", &request),
        fixture.admin("deploy.apply", &request)
    );
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{one:?} {other:?}");
    let deployments = fixture.admin("deploy.list", &json!({})).await.body;
    assert_eq!(deployments.as_array().unwrap().len(), 1, "{deployments:#}");
    // Whoever comes later with what was shown before is told as well.
    let plan = planned(&fixture, "deploy api v2 with 2 replicas").await;
    let v3 = json!({"request": asked("deploy api v3 with 2 replicas")});
    assert_eq!(fixture.admin("deploy.apply", &v3).await.status, 200);
    let request = json!({"request": asked("deploy api v2 with 2 replicas"), "digest": plan["digest"]});
    let late = fixture.admin("deploy.apply", &request).await;
    assert_eq!(
        (late.status, &late.body["error"]["code"]),
        (409, &json!("CONFLICT")),
        "{late:?}"
    );
    let message = late.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("stale"), "{late:?}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_does_nothing_and_an_applied_one_survives_a_restart() {
    let fixture = Fixture::start().await;
    let plan = planned(&fixture, "deploy api v1 with 4 replicas").await;
    assert_eq!((&plan["replicas"], &plan["image"]), (&json!(4), &json!("host")));
    assert_eq!(fixture.admin("service.list", &json!({})).await.body, json!([]));
    let made = fixture
        .admin(
            "deploy.apply",
            &json!({"request": asked("deploy api v1 with 4 replicas")}),
        )
        .await;
    assert_eq!(made.status, 200, "{made:?}");
    let service = fixture.admin("service.get", &json!({"name": "api"})).await.body;
    assert_eq!(
        (&service["replicas"], &service["ready"]),
        (&json!(4), &json!(0)),
        "{service:#}"
    );
    let fixture = fixture.restart().await;
    let again = fixture.admin("deploy.get", &json!({"id": made.body["id"]})).await.body;
    assert_eq!(
        (&again["phase"], &again["plan"]),
        (&json!("rolling"), &made.body["plan"])
    );
    // A workload can't take the name, nor can a service one of a workload.
    let workload = json!({"workloads": [{"name": "api", "spec": {"image": "host", "command": ["true"]}}]});
    assert_eq!(fixture.admin("workload.submit", &workload).await.status, 409);
    let gone = fixture.admin("service.delete", &json!({"name": "api"})).await;
    assert_eq!(gone.status, 409, "a deployment is under way: {gone:?}");
    let gone = fixture
        .admin("service.delete", &json!({"name": "api", "force": true}))
        .await;
    assert_eq!(gone.status, 200, "{gone:?}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_code() {
    let fixture = Fixture::start().await;
    for (intent, status, code) in [
        ("deploy api v1, canary 120%", 400, "INVALID_ARGUMENT"),
        ("scale api to 0", 400, "INVALID_ARGUMENT"),
        ("deploy api v1 at 2020-01-01T00:00:00Z", 400, "INVALID_ARGUMENT"),
        ("sing a song about api", 400, "INVALID_ARGUMENT"),
        ("", 400, "INVALID_ARGUMENT"),
        ("scale nobody to 3 replicas", 404, "NOT_FOUND"),
        ("rollback nobody", 404, "NOT_FOUND"),
    ] {
        for (operation, request) in [
            ("deploy.plan", asked(intent)),
            ("deploy.apply", json!({"request": asked(intent)})),
        ] {
            let answer = fixture.admin(operation, &request).await;
            assert_eq!(
                (answer.status, answer.body["error"]["code"].as_str()),
                (status, Some(code)),
                "{operation} {intent:?}: {answer:?}"
            );
            assert!(answer.body["error"]["hint"].is_string(), "{intent:?}: {answer:?}");
        }
    }
    // Without an image there is nothing to run.
    let nothing = fixture
        .admin("deploy.apply", &json!({"request": {"intent": "deploy api v1"}}))
        .await;
    assert_eq!(nothing.status, 400, "{nothing:?}");
    assert_eq!(fixture.admin("service.list", &json!({})).await.body, json!([]));
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_deploys_once() {
    let fixture = Fixture::start().await;
    let request = json!({"request": asked("deploy api v1 with 1 replica")});
    let token = fixture.gateway.admin_token.clone();
    let key = "idempotency-key: once\r\n";
    let first = fixture.post("deploy.apply", token.as_deref(), &request, key).await;
    let second = fixture.post("deploy.apply", token.as_deref(), &request, key).await;
    assert_eq!((first.status, second.status), (200, 200), "{second:?}");
    assert_eq!(first.body["id"], second.body["id"]);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_later_waits_and_can_be_called_off() {
    let fixture = Fixture::start().await;
    let later = json!({"request": asked("deploy api v1 with 1 replica in 2 hours")});
    let made = fixture.admin("deploy.apply", &later).await.body;
    assert_eq!(made["phase"], "pending", "{made:#}");
    let taken = json!({"workloads": [{"name": "api", "spec": {"image": "host", "command": ["true"]}}]});
    assert_eq!(fixture.admin("workload.submit", &taken).await.status, 409);
    let off = fixture.admin("deploy.rollback", &json!({"id": made["id"]})).await;
    assert_eq!(off.status, 200, "{off:?}");
    assert_eq!(off.body["phase"], "failed", "{off:?}");
    assert_eq!(off.body["startedAt"], Value::Null, "{off:?}");
    // Nothing is left of what was made for it: neither the service nor its name.
    assert_eq!(fixture.admin("service.list", &json!({})).await.body, json!([]));
    assert_eq!(fixture.admin("workload.submit", &taken).await.status, 200);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_is_meant_and_not_what_waits_for_tonight() {
    let fixture = Fixture::start().await;
    let now = json!({"request": asked("deploy api v1 with 1 replica")});
    let now = fixture.admin("deploy.apply", &now).await.body;
    let later = json!({"request": asked("deploy api v2 in 2 hours")});
    let later = loop {
        let answer = fixture.admin("deploy.apply", &later).await;
        // The first one takes its steps meanwhile.
        if answer.status != 409 {
            break answer.body;
        }
    };
    assert_eq!((&now["phase"], &later["phase"]), (&json!("rolling"), &json!("pending")));
    let shown = fixture.admin("deploy.get", &json!({"id": "api"})).await.body;
    assert_eq!(shown["id"], now["id"]);
    // Called twice with one key: what was done once is answered twice.
    let token = fixture.gateway.admin_token.clone();
    for _ in 0..2 {
        let request = json!({"id": "api", "immediate": true});
        let key = "idempotency-key: back\r\n";
        let back = fixture.post("deploy.rollback", token.as_deref(), &request, key).await;
        assert_eq!((back.status, &back.body["id"]), (200, &now["id"]), "{back:?}");
    }
    let waits = fixture.admin("deploy.get", &json!({"id": later["id"]})).await.body;
    assert_eq!(waits["phase"], "pending", "{waits:#}");
    fixture.gateway.stop().await;
}
