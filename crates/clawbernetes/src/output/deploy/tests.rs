//! What people see of deployments, from fixed values at a fixed time.

use api::{
    Span, Timestamp,
    op::{DeploymentStatus, DeploymentSummary, Planned, ServiceView},
};
use serde_json::{Value, json};

use super::{
    super::{Page, Render, View},
    History, Ongoing, PlanShown, changes, gist, sentence,
    words::{measured, number, percent},
};

fn now() -> Timestamp {
    "2026-02-16T14:00:00Z".parse().unwrap()
}

fn page() -> Page {
    Page::new(View {
        now: now(),
        width: None,
        color: false,
    })
}

fn drawn(value: &impl Render) -> String {
    let mut page = page();
    value.render(&mut page);
    page.text
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A value with some of its fields replaced.
fn with(mut value: Value, more: Value) -> Value {
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn error_rate(operator: &str, threshold: f64) -> Value {
    json!({"metric": {"kind": "error-rate"}, "operator": operator, "threshold": threshold})
}

fn p95() -> Value {
    json!({"metric": {"kind": "latency", "percentile": 95.0}, "operator": ">", "threshold": 0.5, "window": "5m"})
}

fn canary() -> Value {
    json!({
        "action": "update", "workload": "model-server", "namespace": "prod", "batch": false, "version": "v2.1",
        "image": "registry/model-server:v2.1", "replicas": 8,
        "resources": {"gpus": 2, "gpuType": "A100", "memory": 68719476736u64, "cpu": null},
        "priority": "high", "timeout": "30m", "strategy": "canary",
        "canary": {"percentage": 10.0, "effectiveReplicas": 1,
            "steps": [{"percentage": 10.0, "replicas": 1, "effectivePercentage": 12.5},
                {"percentage": 50.0, "replicas": 4, "effectivePercentage": 50.0}],
            "autoPromote": true, "promoteAfter": "15m", "promoteConditions": [error_rate("<", 0.005)],
            "rollbackConditions": [error_rate(">", 0.01), p95()]},
        "blueGreen": null, "rolling": {"maxUnavailable": 0, "maxSurge": 2, "pauseBetween": "30s"},
        "rollbackConditions": [error_rate(">", 0.01), p95()], "autoscale": null,
        "schedule": {"at": "2026-02-17T01:00:00Z", "timezone": "Europe/Berlin", "after": null},
        "spec": {"image": "registry/model-server:v2.1", "command": ["serve", "--port", "8000"],
            "env": [{"name": "API_KEY", "value": "canary-value"}]},
        "toRevision": null,
        "changes": [{"field": "image", "from": "registry/model-server:v2.0", "to": "registry/model-server:v2.1"},
            {"field": "memory", "from": null, "to": "64Gi"}],
        "steps": ["1 replica of v2.1 is started", "10% of the requests go to it"],
        "placement": [{"node": "gpu-1", "why": null}, {"node": "gpu-1", "why": null}, {"node": "gpu-2", "why": null},
            {"node": null, "why": "no node has 2 free A100"}],
        "warnings": ["one replica of 8 is 12.5%, not 10%"], "missing": [], "digest": "d1",
    })
}

fn planned(plan: Value) -> Planned {
    read(json!({"understood": "update model-server to v2.1, canary 10% then 50%", "readBy": null, "plan": plan}))
}

#[test]
fn the_plan_of_a_canary() {
    let planned = planned(canary());
    let text = drawn(&PlanShown(&planned));
    // What a variable holds may be a key.
    assert!(!text.contains("canary-value"));
    insta::assert_snapshot!(format!("{text}\n{}\n", gist(&planned.plan)));
    // Programs get the plan alone.
    assert_eq!(
        serde_json::to_value(PlanShown(&planned)).unwrap(),
        serde_json::to_value(&planned.plan).unwrap()
    );
}

#[test]
fn the_plan_of_a_switch_that_lacks_something_and_that_a_model_read() {
    let plan = with(
        canary(),
        json!({"strategy": "blue-green", "canary": null, "schedule": null, "rollbackConditions": [], "image": "",
            "blueGreen": {"checkFor": "1m", "autoSwitch": false, "keepOldFor": "10m"}, "changes": [], "placement": [],
            "warnings": [], "missing": ["an image: say --image, or name it in the sentence"]}),
    );
    let planned: Planned =
        read(json!({"understood": "blue-green deploy model-server v2.1", "readBy": "some-model", "plan": plan}));
    insta::assert_snapshot!(format!("{}\n{}\n", drawn(&PlanShown(&planned)), gist(&planned.plan)));
}

#[test]
fn the_plans_of_scaling_going_back_and_a_batch_job() {
    let none = json!({"canary": null, "strategy": "rolling", "schedule": null, "rollbackConditions": [], "changes": [],
        "placement": [], "warnings": [], "steps": []});
    let plain = with(canary(), none);
    let gists: Vec<String> = [
        json!({"action": "scale", "replicas": 1}),
        json!({"action": "scale", "autoscale": {"min": 2, "max": 10, "load": {"kind": "cpu"}, "target": 70.0}}),
        json!({"action": "rollback", "version": null, "toRevision": 3}),
        json!({"strategy": "immediate"}),
        json!({"action": "deploy"}),
    ]
    .into_iter()
    .map(|more| gist(&planned(with(plain.clone(), more)).plan))
    .collect();
    insta::assert_snapshot!(gists.join("\n"));
    let batch = with(
        plain.clone(),
        json!({"action": "deploy", "batch": true, "version": null, "timeout": "48h", "replicas": 1,
            "resources": {"gpus": 0, "gpuType": null, "memory": null, "cpu": null}, "spec": {"image": "host"}}),
    );
    insta::assert_snapshot!(drawn(&PlanShown(&planned(batch))));
}

#[test]
fn numbers_in_words() {
    assert_eq!(
        (number(-0.00001), number(1e6), percent(33.333)),
        ("0".into(), "1000000".into(), "33.33%".into())
    );
    let told = |metric: Value, value: Value| {
        let condition = json!({"metric": metric, "operator": ">", "threshold": 0.5});
        measured(
            &read(condition),
            &read(json!({"count": 0, "failed": null, "value": value})),
        )
    };
    assert_eq!(told(json!({"kind": "error-rate"}), json!(null)), None);
    assert_eq!(
        told(json!({"kind": "error-rate"}), json!(0.0213)).as_deref(),
        Some("2.13 %")
    );
    assert_eq!(
        told(json!({"kind": "healthy"}), json!(0.0)).as_deref(),
        Some("not ready")
    );
}

fn summary() -> Value {
    json!({
        "id": "dep-0000000001", "workload": "model-server", "namespace": "prod", "action": "update", "version": "v2.1",
        "revision": 4, "from": 3, "strategy": "canary", "phase": "canary", "ready": 1, "replicas": 8, "by": "user:alice",
        "reason": "faster kernels", "createdAt": "2026-02-16T13:50:00Z", "startedAt": "2026-02-16T13:50:01Z",
        "finishedAt": null, "duration": "9m59s",
    })
}

fn replica(id: &str, revision: u32, more: Value) -> Value {
    let replica = json!({"workload": id, "revision": revision, "node": "gpu-1", "phase": "running", "ready": true,
        "retiring": false, "why": null, "restarts": 0, "address": "10.0.0.7:20001"});
    with(replica, more)
}

fn verdict(purpose: &str, condition: Value, outcome: &str, message: &str, subject: Value) -> Value {
    json!({"at": "2026-02-16T13:59:50Z", "outcome": outcome, "message": message, "method": "m",
        "evidence": {"condition": condition, "purpose": purpose, "from": "2026-02-16T13:55:00Z", "to": "2026-02-16T13:59:50Z",
            "query": "q", "subject": subject, "baseline": null, "error": null}})
}

fn standing() -> Value {
    with(
        summary(),
        json!({
            "intent": "update model-server to v2.1, canary 10% then 50%", "readBy": null,
            "message": "1 of 8 replicas gets 10% of the requests", "error": null, "waitsFor": null,
            "revisions": [
                {"revision": 3, "version": "v2.0", "standing": "good", "ready": 8, "total": 8, "trafficPercent": 90.0},
                {"revision": 4, "version": "v2.1", "standing": "new", "ready": 1, "total": 1, "trafficPercent": 10.0}],
            "checks": [replica("wl-0000000001", 3, json!({"retiring": true})), replica("wl-0000000002", 4, json!({})),
                replica("wl-0000000003", 4, json!({"ready": false, "node": null, "phase": "pending", "address": null,
                    "restarts": 2, "why": "0 of 3 nodes fit"}))],
            "step": {"number": 1, "of": 2, "what": "10% of the requests", "since": "2026-02-16T13:55:00Z",
                "until": "2026-02-16T14:10:00Z"},
            "verdicts": [
                verdict("promote", error_rate("<", 0.005), "pass", "0.1% of 1204 requests failed",
                    json!({"count": 1204, "failed": 1, "value": 0.00083})),
                verdict("rollback", p95(), "insufficient", "3 of 30 requests so far",
                    json!({"count": 3, "failed": null, "value": null}))],
            "remaining": "21m", "address": "http://127.0.0.1:20000",
            "timeline": [
                {"at": "2026-02-16T13:50:00Z", "phase": "pending", "message": "asked for", "actor": "user:alice"},
                {"at": "2026-02-16T13:50:01Z", "phase": "rolling", "message": "1 replica of v2.1 is started", "actor": "gateway"},
                {"at": "2026-02-16T13:55:00Z", "phase": "canary", "message": "10% of the requests go to v2.1", "actor": "gateway"}],
            "plan": canary(),
        }),
    )
}

#[test]
fn a_canary_as_it_stands() {
    let status: DeploymentStatus = read(standing());
    insta::assert_snapshot!(format!("{}\n{}\n", drawn(&status), sentence(&status)));
}

#[test]
fn a_live_view_counts_the_time_that_has_gone_by() {
    let status: DeploymentStatus = read(standing());
    let left = |age: u64| {
        let mut page = page();
        let age = Span::secs(age);
        Ongoing { status: &status, age }.render(&mut page);
        page.text
            .lines()
            .find(|line| line.starts_with("Time left"))
            .unwrap()
            .to_owned()
    };
    assert!(left(0).ends_with("about 21m"), "{}", left(0));
    assert!(left(61).ends_with("about 19m59s"), "{}", left(61));
    assert!(left(1260).ends_with("not known"), "{}", left(1260));
}

#[test]
fn a_deployment_that_went_back() {
    let status: DeploymentStatus = read(with(
        standing(),
        json!({"phase": "rolled-back", "finishedAt": "2026-02-16T13:58:00Z", "duration": "7m59s", "checks": [],
            "message": "error rate > 1% held", "step": null, "remaining": null, "readBy": "some-model",
            "error": {"code": "INTERNAL", "message": "4% of 300 requests failed", "hint": "clawbernetes logs wl-0000000002"},
            "verdicts": [verdict("rollback", error_rate(">", 0.01), "fail", "4% of 300 requests failed",
                json!({"count": 300, "failed": 12, "value": 0.04}))]}),
    ));
    insta::assert_snapshot!(drawn(&status));
    let mut compared = status;
    compared.verdicts[0].evidence.baseline = Some(read(json!({"count": 2700, "failed": 3, "value": 0.0011})));
    let text = drawn(&compared);
    assert!(
        text.contains("MEASURED  STABLE") && text.contains("4 %       0.11 %"),
        "{text}"
    );
}

#[test]
fn a_deployment_that_waits_for_its_time_or_a_person() {
    let waiting: DeploymentStatus = read(with(
        standing(),
        json!({"phase": "pending", "startedAt": null, "duration": null, "message": null, "revisions": [], "checks": [],
            "step": null, "verdicts": [], "remaining": null, "address": null, "timeline": [], "ready": 0, "reason": null}),
    ));
    insta::assert_snapshot!(drawn(&waiting));
    let scaled: DeploymentStatus = read(with(standing(), json!({"action": "scale", "strategy": null})));
    assert!(drawn(&scaled).contains("Action     scale to 8 replicas\n"));
    let held: DeploymentStatus = read(with(
        standing(),
        json!({"phase": "paused", "waitsFor": "clawbernetes deploy promote dep-0000000001"}),
    ));
    assert!(drawn(&held).contains("clawbernetes deploy promote dep-0000000001"));
}

#[test]
fn lines_tell_what_is_new_and_nothing_twice() {
    let before: DeploymentStatus = read(standing());
    insta::assert_snapshot!(changes(None, &before, now()).join("\n"));
    let mut same = before.clone();
    same.remaining = Some(Span::secs(5));
    same.verdicts[0].message = "0.09% of 1300 requests failed".to_owned();
    assert_eq!(changes(Some(&before), &same, now()), Vec::<String>::new());

    let mut after = before.clone();
    // The gateway keeps the newest moments alone.
    after.timeline.remove(0);
    let mut moment = after.timeline.last().unwrap().clone();
    moment.message = "50% of the requests go to v2.1".to_owned();
    after.timeline.push(moment);
    after.revisions[1].traffic_percent = Some(50.0);
    after.verdicts[1].outcome = api::deploy::Outcome::Pass;
    after.verdicts[1].message = "p95 is 210ms".to_owned();
    insta::assert_snapshot!(changes(Some(&before), &after, now()).join("\n"));
}

#[test]
fn deployments_in_lists() {
    let failed = json!({"id": "dep-0000000002", "phase": "failed", "version": null, "revision": 2, "finishedAt": "2026-02-16T13:52:01Z",
        "reason": null});
    let scaled = json!({"id": "dep-0000000003", "action": "scale", "strategy": null, "version": null, "revision": null,
        "phase": "pending", "startedAt": null, "namespace": "default"});
    let all: Vec<DeploymentSummary> = read(json!([summary(), with(summary(), failed), with(summary(), scaled)]));
    insta::assert_snapshot!(drawn(&all));
    let of_one = all.into_iter().map(|one| DeploymentSummary {
        namespace: "prod".to_owned(),
        ..one
    });
    insta::assert_snapshot!(drawn(&History(of_one.collect())));
    assert_eq!(drawn(&Vec::<DeploymentSummary>::new()), "No deployments.\n");
}

fn service() -> Value {
    json!({
        "name": "model-server", "namespace": "prod", "owner": "alice", "createdAt": "2026-02-01T14:00:00Z", "version": "v2.0",
        "revision": 3, "image": "registry/model-server:v2.0", "ready": 8, "replicas": 8,
        "revisions": [{"revision": 3, "version": "v2.0", "standing": "good", "ready": 8, "total": 8, "trafficPercent": 100.0}],
        "checks": [replica("wl-0000000001", 3, json!({}))], "address": "http://127.0.0.1:20000", "protocol": "http",
        "autoscale": {"min": 2, "max": 10, "load": {"kind": "queue"}, "target": 4.0}, "scaling": "8 replicas: 31 requests under way",
        "deployment": "dep-0000000001", "requestsUnderWay": {"3": 31},
        "carriedBy": [{"node": "gpu-1", "address": "http://10.0.0.7:20000", "closed": null},
            {"node": "gpu-2", "address": "http://10.0.0.8:20000", "closed": "Address already in use (os error 98)"}],
    })
}

#[test]
fn services() {
    let new = json!({"name": "batcher", "version": null, "revision": null, "ready": 0, "replicas": 1, "address": null,
        "protocol": null, "autoscale": null, "scaling": null, "deployment": null, "requestsUnderWay": {}, "revisions": [], "carriedBy": [],
        "checks": [], "image": ""});
    let all: Vec<ServiceView> = read(json!([service(), with(service(), new)]));
    insta::assert_snapshot!(drawn(&all));
    insta::assert_snapshot!(drawn(&all[0]));
    insta::assert_snapshot!(drawn(&all[1]));
    assert_eq!(drawn(&Vec::<ServiceView>::new()), "No services.\n");
}
