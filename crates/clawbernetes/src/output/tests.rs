//! What people see, from fixed values at a fixed time.

use api::{
    Timestamp,
    auth::{Identity, TokenInfo},
    event::Event,
    node::{NodeDetail, NodeView},
    op::{
        AuditRecord, AuditVerdict, CertInfo, Explanation, Fleet, SecretInfo, SecretVersionInfo, Submitted, VaultStatus,
        WorkloadDetail,
    },
    workload::WorkloadSummary,
};
use serde_json::{Value, json};

use super::{Page, Render, View, event_line};

fn drawn<T: Render + serde::de::DeserializeOwned>(value: Value) -> String {
    let value: T = serde_json::from_value(value).unwrap();
    let now: Timestamp = "2026-02-16T14:00:00Z".parse().unwrap();
    let mut page = Page::new(View {
        now,
        width: None,
        color: false,
    });
    value.render(&mut page);
    page.text
}

fn gpu(index: u32, simulated: bool, workload: Value) -> Value {
    json!({
        "index": index, "uuid": format!("GPU-{index}"), "model": "NVIDIA H100 80GB HBM3",
        "memoryTotalBytes": 85899345920u64, "memoryUsedBytes": if simulated { json!(null) } else { json!(42949672960u64) },
        "utilizationPercent": if simulated { json!(null) } else { json!(93) }, "temperatureCelsius": 61,
        "powerWatts": 512.4, "health": if index == 1 { "degraded" } else { "ok" },
        "healthReason": if index == 1 { json!("thermal slowdown") } else { json!(null) },
        "simulated": simulated, "workload": workload,
    })
}

fn node(simulated: bool) -> Value {
    json!({
        "id": "gpu-7", "name": "gpu-7", "status": "degraded", "gpusFree": 1,
        "gpus": [gpu(0, simulated, json!("wl-0000000001")), gpu(1, simulated, json!(null))],
        "cpuCores": 64.0, "memoryTotalBytes": 549755813888u64, "memoryUsedBytes": null, "engine": "docker",
        "labels": {"rack": "r1"}, "taints": [{"key": "reserved", "value": "nlp", "effect": "NoSchedule"}],
        "molt": {"active": false}, "lastSeen": "2026-02-16T13:59:56Z",
    })
}

#[test]
fn the_fleet() {
    insta::assert_snapshot!(drawn::<Fleet>(json!({
        "gateway": {"version": "0.1.0", "leader": true, "store": "ok", "revision": 12, "storeBytes": 1048576,
            "startedAt": "2026-02-16T11:30:00Z", "now": "2026-02-16T14:00:00Z"},
        "cluster": {"status": "degraded", "score": 50, "totalNodes": 2, "healthyNodes": 1, "totalGPUs": 10, "availableGPUs": 9,
            "activeWorkloads": {"running": 1, "pending": 3}},
        "nodes": [
            {"name": "gpu-7", "status": "healthy", "gpus": {"available": 7, "total": 8, "type": "H100", "simulated": true},
                "utilization": 12.4},
            {"name": "cpu-1", "status": "unreachable", "gpus": {"available": 0, "total": 0, "type": null, "simulated": false},
                "utilization": null}],
        "workloads": [
            {"id": "wl-0000000001", "name": "train", "status": "running", "gpus": 1, "runtime": 7500, "node": "gpu-7"},
            {"id": "wl-0000000002", "name": "next", "status": "pending", "gpus": 8, "runtime": null, "node": null}],
        "molt": {"active": false, "mode": null, "sharedGPUs": 0, "earnings24h": null}, "alerts": [],
    })));
}

#[test]
fn nodes() {
    let list = drawn::<Vec<NodeView>>(json!([node(false), node(true)]));
    assert!(list.contains("(simulated)"));
    insta::assert_snapshot!(list);
}

#[test]
fn a_node() {
    let mut detail = node(true);
    let more = json!({
        "inventory": {
            "hostname": "gpu-7.lab", "cpu": "64", "cpuModel": "AMD EPYC 9554", "memoryTotalBytes": 549755813888u64,
            "os": "Debian GNU/Linux 13 (trixie)", "kernel": "6.12.0", "arch": "x86_64", "bootId": null,
            "gpus": [], "links": [{"a": 0, "b": 1, "link": {"kind": "nvLink", "lanes": 18}}],
            "engines": [{"kind": "docker", "version": "28.1"}, {"kind": "native", "version": null,
                "limitations": ["no memory limit: cgroup not writable"]}],
            "agentVersion": "0.1.0", "notes": ["AMD: no driver"],
        },
        "cpuPercent": 3.5, "workloads": ["wl-0000000001"],
        "connectivity": {"address": "10.0.0.7:51000", "since": "2026-02-16T12:00:00Z", "roundTripMs": 0.42,
            "clockOffsetMs": -1.25},
        "conditions": [{"kind": "gpu-degraded", "reason": "GPU 1: thermal slowdown"}],
        "drain": {"since": "2026-02-16T13:50:00Z", "by": "user:admin", "timeout": "2h", "force": false},
        "joinedAt": "2026-02-01T14:00:00Z",
    });
    detail
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    insta::assert_snapshot!(drawn::<NodeDetail>(detail));
}

fn explanation() -> Value {
    json!({
        "summary": "0 of 12 nodes fit: 8 have fewer than 4 free GPUs, 4 are not H100",
        "blockers": [{"reason": "8 have fewer than 4 free GPUs", "nodes": 8}, {"reason": "4 are not H100", "nodes": 4}],
        "queuePosition": 2, "waitingFor": ["wl-0000000001"], "estimate": "2026-02-16T15:30:00Z",
        "suggestions": ["--gpus 2 would start now"], "fitsEmptyFleet": true, "preempts": [],
    })
}

#[test]
fn why_a_workload_waits() {
    insta::assert_snapshot!(drawn::<Explanation>(explanation()));
}

#[test]
fn where_a_gang_would_go() {
    insta::assert_snapshot!(drawn::<Explanation>(json!({
        "summary": "2 of 3 nodes fit", "because": ["the GPUs are linked by NVLink"],
        "placement": [
            {"rank": 0, "node": "gpu-1", "gpus": [{"node": "gpu-1", "index": 0}, {"node": "gpu-1", "index": 1}]},
            {"rank": 1, "node": "gpu-2", "gpus": [{"node": "gpu-2", "index": 4}, {"node": "gpu-2", "index": 6}]}],
        "preempts": ["wl-0000000009"],
    })));
}

#[test]
fn workloads() {
    let summary = |id: &str, namespace: &str, phase: &str, exit: Value| {
        json!({
            "id": id, "name": "train", "namespace": namespace, "owner": "alice", "image": "host", "phase": phase,
            "reason": if phase == "failed" { json!("OOM_KILLED") } else { json!(null) }, "message": null,
            "node": if phase == "pending" { json!(null) } else { json!("gpu-7") }, "gpus": [], "gpusRequested": 4,
            "priority": "normal", "submittedAt": "2026-02-16T12:00:00Z",
            "startedAt": if phase == "pending" { json!(null) } else { json!("2026-02-16T12:00:05Z") },
            "finishedAt": if phase == "failed" { json!("2026-02-16T13:00:05Z") } else { json!(null) },
            "exitCode": exit, "restarts": 0,
        })
    };
    insta::assert_snapshot!(drawn::<Vec<WorkloadSummary>>(json!([
        summary("wl-0000000001", "default", "running", json!(null)),
        summary("wl-0000000002", "research", "failed", json!(137)),
        summary("wl-0000000003", "default", "pending", json!(null)),
    ])));
    // Replicas of services say whether they can serve; the job beside them isn't asked.
    let told = |ready: Value| {
        let mut told = summary("wl-0000000001", "default", "running", json!(null));
        told["ready"] = ready;
        told
    };
    insta::assert_snapshot!(drawn::<Vec<WorkloadSummary>>(json!([
        told(json!(true)),
        told(json!(false)),
        told(json!(null)),
    ])), @r"
    ID             NAME   PHASE    READY  GPUS  NODE   PRIORITY  SUBMITTED  RUNTIME  EXIT  REASON
    wl-0000000001  train  running  yes    4     gpu-7  normal    2h ago     1h59m    -     -
    wl-0000000001  train  running  no     4     gpu-7  normal    2h ago     1h59m    -     -
    wl-0000000001  train  running  -      4     gpu-7  normal    2h ago     1h59m    -     -
    ");
}

#[test]
fn a_workload_with_a_past() {
    let ended = |at: &str, outcome: Value| {
        json!({"state": "ended", "startedAt": "2026-02-16T12:00:05Z", "at": at, "outcome": outcome, "stop": null,
            "usage": {"cpuMs": 61500, "memoryPeakBytes": 34359738368u64}})
    };
    let member = |state: Value| {
        json!([{"rank": 0, "node": "gpu-7", "gpus": [{"index": 0, "uuid": "GPU-0"}, {"index": 1, "uuid": "GPU-1"}],
            "state": state}])
    };
    insta::assert_snapshot!(drawn::<WorkloadDetail>(json!({
        "id": "wl-0000000001", "name": "train", "namespace": "default", "owner": "alice", "labels": {"team": "nlp"},
        "spec": {"image": "pytorch:2.1", "command": ["python", "train.py", "a b"], "gpus": {"count": 2, "type": "H100"},
            "secrets": [{"secret": "db", "key": "user", "to": {"env": "DB_USER"}}, {"secret": "tls-key", "to": {"file": "/run/tls.key"}}],
            "memory": 34359738368u64, "timeout": "2d", "retries": 1, "env": [{"name": "KEY", "value": "s3cret"}],
            "volumes": [{"name": "", "mountPath": "/data", "type": "hostPath", "source": "/srv", "readOnly": true}]},
        "phase": "failed", "reason": "OOM_KILLED", "message": "the kernel killed it at its memory limit of 32Gi",
        "attempt": 2, "members": member(ended("2026-02-16T13:30:00Z", json!({"kind": "oomKilled", "limitBytes": 34359738368u64,
            "peakBytes": 34359738368u64}))),
        "submittedAt": "2026-02-16T12:00:00Z", "startedAt": "2026-02-16T12:00:05Z", "finishedAt": "2026-02-16T13:30:00Z",
        "exitCode": 137, "restarts": 1, "failures": 1,
        "timeline": [
            {"at": "2026-02-16T12:00:00Z", "phase": "pending", "attempt": 0, "actor": "user:alice"},
            {"at": "2026-02-16T13:30:00Z", "phase": "failed", "attempt": 2, "reason": "OOM_KILLED",
                "message": "memory limit", "actor": "node:gpu-7"}],
        "past": [{"attempt": 1, "members": member(ended("2026-02-16T12:30:00Z", json!({"kind": "exited", "code": 1})))}],
        "warnings": ["larger than today's fleet"],
    })));
}

#[test]
fn an_event_on_a_line() {
    let event: Event = serde_json::from_value(json!({
        "id": "12-0", "at": "2026-02-16T14:00:00Z", "kind": "node", "subject": "gpu-7", "reason": "Unreachable",
        "message": "no sign of life for 30s", "actor": "gateway", "severity": "warning",
    }))
    .unwrap();
    insta::assert_snapshot!(event_line(&event), @"2026-02-16T14:00:00Z  warning  node/gpu-7  Unreachable  no sign of life for 30s  (gateway)");
}

#[test]
fn a_dry_run_names_the_secrets_that_it_would_get() {
    let submitted = json!([{
        "id": "wl-0000000001", "name": "train", "namespace": "default", "owner": "alice",
        "spec": {"image": "host", "secrets": [{"secret": "wandb-key", "to": {"env": "WANDB_API_KEY"}}]},
        "phase": "pending", "attempt": 0, "submittedAt": "2026-02-16T12:00:00Z", "restarts": 0, "failures": 0, "timeline": [],
        "preview": {"summary": "1 of 1 node fits", "placement": [{"rank": 0, "node": "gpu-1", "gpus": []}]},
    }]);
    insta::assert_snapshot!(drawn::<Vec<Submitted>>(submitted), @r"
    train would start at once:
    1 of 1 node fits
      gpu-1
    secret: wandb-key as $WANDB_API_KEY
    ");
}

#[test]
fn secrets_and_their_versions() {
    let secret = |name: &str, version: Value, expires: Value| {
        json!({
            "name": name, "namespace": "prod", "description": "the app's own user", "version": version,
            "versions": if version.is_null() { 0 } else { 2 }, "createdAt": "2026-02-01T14:00:00Z",
            "updatedAt": "2026-02-16T13:00:00Z", "updatedBy": "user:alice", "expiresAt": expires,
        })
    };
    insta::assert_snapshot!(drawn::<Vec<SecretInfo>>(json!([
        secret("db-password", json!(3), json!("2026-05-17T14:00:00Z")),
        secret("old", json!(null), json!(null)),
    ])), @r"
    NAME         NAMESPACE  VERSION  READABLE  UPDATED  BY          EXPIRES  DESCRIPTION
    db-password  prod       3        2         1h ago   user:alice  in 90d   the app's own user
    old          prod       -        0         1h ago   user:alice  never    the app's own user
    ");
    assert_eq!(drawn::<Vec<SecretInfo>>(json!([])), "No secrets.\n");
    insta::assert_snapshot!(drawn::<SecretInfo>(secret("db-password", json!(3), json!("2026-05-17T14:00:00Z"))), @"prod/db-password is at version 3 (expires in 90d); 1 older one can be read");
    insta::assert_snapshot!(drawn::<SecretInfo>(secret("old", json!(null), json!(null))), @"prod/old has no version that can be read");

    let version = |version: u32, state: &str, current: bool, expires: Value| {
        json!({"version": version, "state": state, "current": current, "createdAt": "2026-02-16T13:00:00Z",
            "createdBy": "user:alice", "expiresAt": expires})
    };
    insta::assert_snapshot!(drawn::<Vec<SecretVersionInfo>>(json!([
        version(3, "readable", true, json!(null)),
        version(2, "readable", false, json!("2026-02-16T15:00:00Z")),
        version(1, "destroyed", false, json!(null)),
    ])), @r"
    VERSION  STATE      CREATED                        BY          EXPIRES
    3        current    1h ago (2026-02-16T13:00:00Z)  user:alice  never
    2        readable   1h ago (2026-02-16T13:00:00Z)  user:alice  in 1h
    1        destroyed  1h ago (2026-02-16T13:00:00Z)  user:alice  never
    ");
}

#[test]
fn what_seals_the_secrets() {
    let status = |old: u64| json!({"key": "3f0c9a21", "source": "file", "sealed": 41, "sealedByOld": old});
    insta::assert_snapshot!(drawn::<VaultStatus>(status(2)), @r"
    Master key     3f0c9a21
    From           file
    Keys it seals  41
    A change of the master key is under way: 2 keys are still sealed by the one before it.
    ");
    assert!(!drawn::<VaultStatus>(status(0)).contains("under way"));
}

#[test]
fn certificates() {
    let cert = |name: &str, status: &str, sans: Value| {
        json!({
            "name": name, "serial": "4a3f00c1", "status": status, "sans": sans, "algorithm": "ECDSA P-256",
            "purpose": "both", "fingerprint": "ab12", "notBefore": "2026-02-16T13:00:00Z",
            "notAfter": if status == "expired" { "2026-02-10T14:00:00Z" } else { "2026-05-17T14:00:00Z" },
            "renewAt": "2026-04-17T14:00:00Z", "issuedBy": "user:alice",
            "revokedAt": if status == "revoked" { json!("2026-02-16T13:30:00Z") } else { json!(null) },
            "revokedFor": if status == "revoked" { json!("key-compromise") } else { json!(null) },
        })
    };
    insta::assert_snapshot!(drawn::<Vec<CertInfo>>(json!([
        cert("api", "valid", json!(["api.example", "10.0.0.7", "localhost"])),
        cert("old", "expired", json!(["old.example"])),
    ])), @r"
    NAME  STATUS   EXPIRES  FOR                       KEY          USE             SERIAL    BY
    api   valid    in 90d   api.example, 10.0.0.7 +1  ECDSA P-256  server, client  4a3f00c1  user:alice
    old   expired  6d ago   old.example               ECDSA P-256  server, client  4a3f00c1  user:alice
    ");
    insta::assert_snapshot!(drawn::<CertInfo>(cert("api", "revoked", json!(["a"]))), @"api is revoked (key-compromise), serial 4a3f00c1");
}

#[test]
fn who_did_what_and_whether_the_log_is_whole() {
    let record = |sequence: u64, more: Value| {
        let mut record = json!({
            "sequence": sequence, "at": "2026-02-16T13:00:00Z", "actor": "user:alice", "token": "t1", "action": "secret.get",
            "target": "secret/prod/db", "from": "10.0.0.9:5100", "allowed": true, "hash": "ab",
        });
        record
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        record
    };
    insta::assert_snapshot!(drawn::<Vec<AuditRecord>>(json!([
        record(7, json!({})),
        record(8, json!({"error": "NOT_FOUND"})),
        record(9, json!({"actor": "nobody", "target": null, "allowed": false, "error": "AUTH_FAILED"})),
    ])), @r"
    RECORD  TIME                  WHO         ACTION      TARGET          RESULT               FROM
    7       2026-02-16T13:00:00Z  user:alice  secret.get  secret/prod/db  ok                   10.0.0.9:5100
    8       2026-02-16T13:00:00Z  user:alice  secret.get  secret/prod/db  failed: NOT_FOUND    10.0.0.9:5100
    9       2026-02-16T13:00:00Z  nobody      secret.get  -               denied: AUTH_FAILED  10.0.0.9:5100
    ");
    let verdict = |intact: bool| {
        json!({"intact": intact, "checked": if intact { 9 } else { 7 }, "first": 1, "last": if intact { 9 } else { 7 }, "head": "ab12",
            "broken": if intact { json!(null) } else { json!(8) },
            "why": if intact { json!(null) } else { json!("its hash isn't that of its content") }})
    };
    insta::assert_snapshot!(drawn::<AuditVerdict>(verdict(true)), @r"
    The audit log is whole: records 1 to 9, 9 checked.
    Head: ab12
    ");
    insta::assert_snapshot!(drawn::<AuditVerdict>(verdict(false)), @r"
    The audit log is broken at record 8.
    cause: its hash isn't that of its content
    The 7 records before it are whole.
    ");
}

#[test]
fn who_may_do_what() {
    let identity = |more: Value| {
        let mut identity =
            json!({"name": "ci", "role": "operator", "tokenId": "t1", "expiresAt": "2026-05-17T14:00:00Z"});
        identity
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        identity
    };
    insta::assert_snapshot!(drawn::<Identity>(identity(json!({"namespace": "ci"}))), @r"
    Identity  ci
    Role      operator
    Scopes    read, run, operate-nodes, write-secrets
    Bound to  namespace ci
    Token id  t1
    Expires   in 90d (2026-05-17T14:00:00Z)
    ");
    insta::assert_snapshot!(
        drawn::<Identity>(identity(json!({"role": "custom", "scopes": ["read", "read-audit"], "expiresAt": null}))), @r"
    Identity  ci
    Role      custom
    Scopes    read, read-audit
    Bound to  no namespace
    Token id  t1
    Expires   never
    ");
    let token = |more: Value| {
        let mut token = json!({"id": "t1", "name": "ci", "role": "operator", "createdAt": "2026-02-16T13:00:00Z",
            "createdBy": "user:admin", "expiresAt": null});
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        token
    };
    insta::assert_snapshot!(drawn::<Vec<TokenInfo>>(json!([
        token(json!({"namespace": "ci"})),
        token(json!({"role": "custom", "scopes": ["read", "read-audit"], "expiresAt": "2026-02-16T15:00:00Z"})),
    ])), @r"
    ID  NAME  ROLE                      NAMESPACE  CREATED  BY          EXPIRES
    t1  ci    operator                  ci         1h ago   user:admin  never
    t1  ci    custom: read, read-audit  all        1h ago   user:admin  in 1h
    ");
}
