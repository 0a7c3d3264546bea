//! Deployments asked for over HTTP, on a fleet without nodes: what is planned, refused, and written down.

use std::sync::Arc;

use api::{
    DeploymentId,
    deploy::{Deployment, Phase, Service, Standing},
};
use gateway::{draft::Draft, hub::Hub, view::name_of};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::fixture::{Fixture, until};

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
    let later = fixture.admin("deploy.apply", &later).await.body;
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

/// Changes a service's record.
async fn write(hub: &Hub, change: impl Fn(&mut Service)) {
    let name = ("default".to_owned(), "api".to_owned());
    let written = hub.decide(|view| {
        Ok(view.service(&name).map(|seen| {
            let mut service = Service::clone(seen);
            change(&mut service);
            let mut draft = Draft::new();
            draft.put_service(Some(seen), &service);
            draft
        }))
    });
    written.await.unwrap();
}

/// Writes a service's record again and again, as its controller does at each step of a rollout.
fn restless(fixture: &Fixture) -> JoinHandle<()> {
    let hub = Arc::clone(&fixture.gateway.hub);
    tokio::spawn(async move {
        loop {
            write(&hub, |_| {}).await;
            tokio::task::yield_now().await;
        }
    })
}

/// Has a deployment be complete, and its revision be the good one: there is no node on which it could.
async fn finish(fixture: &Fixture, deployment: &Value) {
    end(fixture, deployment, Phase::Complete).await;
}

/// Has a deployment be over. Its revision is the good one where it is complete.
async fn end(fixture: &Fixture, deployment: &Value, phase: Phase) {
    let id: DeploymentId = serde_json::from_value(deployment["id"].clone()).unwrap();
    let done = fixture.gateway.hub.decide(|view| {
        let seen = view.deployment(&id).unwrap();
        let mut ended = Deployment::clone(seen);
        (ended.phase, ended.finished_at) = (phase, ended.started_at);
        let service = view.service(&name_of(seen)).unwrap();
        let mut settled = Service::clone(service);
        settled.deployment = None;
        let good = ended.revision.filter(|_| phase == Phase::Complete);
        settled.stable = good.or(settled.stable);
        for revision in settled.revisions.iter_mut().filter(|r| Some(r.number) == good) {
            revision.standing = Standing::Good;
        }
        let mut draft = Draft::new();
        draft.put_deployment(Some(seen.revision), &ended);
        draft.put_service(Some(service), &settled);
        Ok(Some(draft))
    });
    assert!(done.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_that_a_rollout_went_on_meanwhile() {
    let fixture = Fixture::start().await;
    let restless = restless(&fixture);
    let done = async |operation: &str, request: Value| {
        let answer = fixture.admin(operation, &request).await;
        assert_eq!(answer.status, 200, "{operation} {request}: {answer:?}");
        answer.body
    };
    let first = done(
        "deploy.apply",
        json!({"request": asked("deploy api v1 with 2 replicas")}),
    )
    .await;
    let apply = async |intent: &str| done("deploy.apply", json!({"request": {"intent": intent}})).await;
    finish(&fixture, &first).await;
    for version in 2..8 {
        // One in the place of another, and after it.
        apply(&format!("update api to v{version}")).await;
        let last = apply(&format!("update api to v{version}.1")).await;
        finish(&fixture, &last).await;
    }
    let scaled = apply("scale api to 5 replicas").await;
    finish(&fixture, &scaled).await;
    let back = done("deploy.rollback", json!({"id": "api"})).await;
    assert_eq!(back["version"], "v6.1", "{back:#}");
    finish(&fixture, &back).await;
    let last = apply("update api to v8").await;
    let id = json!({"id": last["id"]});
    done("deploy.pause", id.clone()).await;
    done("deploy.resume", id.clone()).await;
    let gone = done("deploy.rollback", id.clone()).await;
    end(&fixture, &gone, Phase::RolledBack).await;
    let gone = done("deploy.retry", id).await;
    assert_eq!(gone["version"], "v8", "{gone:#}");
    apply("update api to v9").await;
    let gone = done("deploy.get", json!({"id": gone["id"]})).await;
    assert_eq!(gone["phase"], "failed", "{gone:#}");
    // Each made one record, however often it was tried.
    let all = done("deploy.list", json!({})).await;
    assert_eq!(all.as_array().unwrap().len(), 1 + 6 * 2 + 2 + 3, "{all:#}");
    done("service.delete", json!({"name": "api", "force": true})).await;
    restless.abort();
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_shown_is_applied_as_it_was_or_is_stale() {
    let fixture = Fixture::start().await;
    let first = json!({"request": asked("deploy api v1 with 2 replicas")});
    finish(&fixture, &fixture.admin("deploy.apply", &first).await.body).await;
    let restless = restless(&fixture);
    for version in 2..8 {
        let intent = format!("update api to v{version}");
        let plan = planned(&fixture, &intent).await;
        let request = json!({"request": asked(&intent), "digest": plan["digest"]});
        let (one, other) = tokio::join!(
            fixture.admin("deploy.apply", &request),
            fixture.admin("deploy.apply", &request)
        );
        let (won, lost) = if one.status == 200 { (one, other) } else { (other, one) };
        assert_eq!((won.status, lost.status), (200, 409), "{won:?} {lost:?}");
        assert_eq!(won.body["plan"]["digest"], plan["digest"], "{won:?}");
        finish(&fixture, &won.body).await;
    }
    let plan = planned(&fixture, "update api to v8").await;
    write(&fixture.gateway.hub, |service| service.replicas += 1).await;
    let request = json!({"request": asked("update api to v8"), "digest": plan["digest"]});
    let late = fixture.admin("deploy.apply", &request).await;
    assert_eq!((late.status, late.code()), (409, "CONFLICT"), "{late:?}");
    let message = late.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("stale"), "{late:?}");
    restless.abort();
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_says_beside_its_spec_counts() {
    let fixture = Fixture::start().await;
    let marks = json!({"labels": {"team": "nlp"}, "annotations": {"runbook": "https://wiki/api"}});
    let with = |intent: &str, name: Option<&str>, marks: &Value| {
        let mut request = asked(intent);
        (request["name"], request["marks"]) = (json!(name), marks.clone());
        request
    };
    // Its name counts where the sentence names nothing.
    let request = json!({"request": with("deploy with 2 replicas", Some("api"), &marks)});
    let made = fixture.admin("deploy.apply", &request).await;
    assert_eq!((made.status, &made.body["workload"]), (200, &json!("api")), "{made:?}");
    let unnamed = fixture
        .admin("deploy.plan", &with("deploy with 2 replicas", None, &marks))
        .await;
    assert_eq!(unnamed.status, 400, "{unnamed:?}");
    // Each replica has its labels and annotations, beside those that every replica has.
    let service = until("two replicas", || async {
        let service = fixture.admin("service.get", &json!({"name": "api"})).await.body;
        (service["checks"].as_array()?.len() == 2).then_some(service)
    })
    .await;
    assert_eq!(service["marks"], marks, "{service:#}");
    for replica in service["checks"].as_array().unwrap() {
        let workload = fixture
            .admin("workload.get", &json!({"id": replica["workload"]}))
            .await
            .body;
        let labels = json!({"team": "nlp", "service": "api", "revision": "1"});
        assert_eq!(
            (&workload["labels"], &workload["annotations"]),
            (&labels, &marks["annotations"]),
            "{workload:#}"
        );
    }
    // A job's, too; and what each replica gets by itself can't be given.
    let job = json!({"request": with("deploy train job, timeout 1h", None, &marks)});
    let job = fixture.admin("deploy.apply", &job).await.body;
    let workload = fixture.admin("workload.get", &json!({"id": job["job"]})).await.body;
    assert_eq!(workload["labels"], marks["labels"], "{workload:#}");
    for key in ["service", "revision"] {
        let taken = with("deploy other-api", None, &json!({"labels": {key: "mine"}}));
        let refused = fixture.admin("deploy.plan", &taken).await;
        assert_eq!(
            (refused.status, &refused.body["error"]["field"]),
            (400, &json!("metadata.labels")),
            "{refused:?}"
        );
    }
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_are_made_at_once_have_ports_of_their_own() {
    let fixture = Fixture::start().await;
    let made = (0..6).map(|number| {
        let fixture = &fixture;
        async move {
            let mut request = asked(&format!("deploy api{number} v1 with 1 replica"));
            request["template"]["ports"] = json!([{"name": "http", "port": 8000}]);
            let answer = fixture.admin("deploy.apply", &json!({ "request": request })).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    });
    futures_util::future::join_all(made).await;
    let services = fixture.admin("service.list", &json!({})).await.body;
    let addresses: std::collections::BTreeSet<&str> = services
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["address"].as_str().unwrap())
        .collect();
    assert_eq!(addresses.len(), 6, "{services:#}");
    // A port that was let go of may be had again.
    let gone = fixture
        .admin("service.delete", &json!({"name": "api0", "force": true}))
        .await;
    assert_eq!(gone.status, 200, "{gone:?}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_its_time_hides_nothing_that_was_done_since() {
    let fixture = Fixture::start().await;
    let apply = async |intent: &str| fixture.admin("deploy.apply", &json!({"request": asked(intent)})).await;
    let waits = apply("deploy api v1 with 1 replica in 2 hours").await.body;
    assert_eq!(
        (&waits["phase"], &waits["ready"]),
        (&json!("pending"), &Value::Null),
        "{waits:#}"
    );
    let named = async || fixture.admin("deploy.get", &json!({"id": "api"})).await.body["id"].clone();
    assert_eq!(named().await, waits["id"]);
    let begun = apply("deploy api v2 with 1 replica").await.body;
    assert_eq!(
        (&begun["phase"], &begun["ready"]),
        (&json!("rolling"), &json!(0)),
        "{begun:#}"
    );
    let later = apply("update api to v3 in 3 hours").await;
    assert_eq!(later.body["phase"], "pending", "{later:?}");
    assert_eq!(named().await, begun["id"], "the one under way comes first");
    let after = apply("update api to v4 after dep-0000000000").await;
    assert_eq!(after.status, 404, "{after:?}");
    let message = after.body["error"]["message"].as_str().unwrap();
    assert!(message.contains("there is no deployment dep-0000000000"), "{message}");
    fixture.gateway.stop().await;
}
