//! What people see, from fixed values at a fixed time.

use api::{
    Timestamp,
    event::Event,
    node::{NodeDetail, NodeView},
    op::{Explanation, Fleet, WorkloadDetail},
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
        "blockers": [{"reason": "have fewer than 4 free GPUs", "nodes": 8}, {"reason": "are not H100", "nodes": 4}],
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
