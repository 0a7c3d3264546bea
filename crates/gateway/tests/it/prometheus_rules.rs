//! The built-in rules of alerts for those who alert from Prometheus: `docs/prometheus/rules.yml`.

use std::process::Command;

use api::metric::{self, label};
use diagnosis::alert::{PrometheusMetric, RuleSet, to_prometheus_rules};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/prometheus/rules.yml");

/// What DCGM calls our labels.
const DCGM: &[(&str, &str)] = &[(label::NODE, "Hostname"), (label::UUID, "UUID")];

/// A metric as `/metrics` has it. States are there under their own names; events are counted.
fn named(name: &str) -> Option<PrometheusMetric> {
    let metric = metric::find(match name {
        "Xid" => "gpu.xids",
        "OOM_KILLED" => "workload.oom_kills",
        "Restarted" => "workload.crashes",
        other => other,
    })?;
    Some(PrometheusMetric {
        name: metric.prometheus.to_owned(),
        factor: 1.0 / metric.prometheus_scale,
        labels: if metric.dcgm() { DCGM } else { &[] },
    })
}

fn rules() -> String {
    to_prometheus_rules(RuleSet::built_in().unwrap().iter(), &named)
}

#[test]
fn the_rules_are_current() {
    let rules = rules();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PATH, &rules).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(PATH).unwrap(),
        rules,
        "UPDATE_DOCS=1 writes them anew"
    );
}

#[test]
fn labels_are_called_as_in_metrics() {
    let mut exposition = api::exposition::Exposition::default();
    let labels = [(label::NODE, "a"), (label::UUID, "b"), (label::GPU, "0")];
    exposition.metric(metric::find("gpu.temperature").unwrap(), labels, 40.0);
    let text = exposition.finish();
    for (_, theirs) in DCGM {
        assert!(text.contains(&format!("{theirs}=\"")), "{text}");
    }
}

/// Has promtool look at files of which the first is to be checked. Skipped where it isn't installed; `scripts/test`
/// installs it.
fn promtool(command: &str, files: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let checked = folder.path().join(files[0].0);
    let Ok(output) = Command::new("promtool").args([command, "rules"]).arg(checked).output() else {
        eprintln!("skipped: promtool isn't installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_built_in_rule_is_there() {
    let rules = rules();
    assert!(!rules.contains("Not here"), "{rules}");
}

#[test]
fn promtool_accepts_them() {
    promtool("check", &[("rules.yml", &rules())]);
}

/// A sample a minute, from the gateway's start on.
const SCENES: &str = r#"
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - name: a node that goes and comes back
    interval: 1m
    input_series:
      - {series: 'clawbernetes_node_status{node="a",state="healthy"}', values: '1x9 0x9 1x20'}
      - {series: 'clawbernetes_node_status{node="a",state="unreachable"}', values: '0x9 1x9 0x20'}
      - {series: 'clawbernetes_node_status{node="b",state="healthy"}', values: '1x40'}
      - {series: 'clawbernetes_node_status{node="b",state="unreachable"}', values: '0x40'}
    alert_rule_test:
      - {eval_time: 9m, alertname: node-down, exp_alerts: []}
      - eval_time: 15m
        alertname: node-down
        exp_alerts:
          - exp_labels: {severity: critical, node: a}
            exp_annotations:
              summary: node a is unreachable
              description: The gateway has had no sign of life. Its work goes on for now; if it stays silent, the node stops it, and the gateway starts it elsewhere.
              commands: "clawbernetes node info a\nclawbernetes node events a --since '1h ago'"
      - {eval_time: 25m, alertname: node-down, exp_alerts: []}
    promql_expr_test:
      - {expr: 'count(ALERTS{alertname="node-down",alertstate="firing"})', eval_time: 15m, exp_samples: [{value: 1}]}
  - name: a GPU that is lost
    interval: 1m
    input_series:
      - {series: 'clawbernetes_gpu_health{node="a",gpu="3",uuid="GPU-1",state="failed"}', values: '0x4 1x10'}
      - {series: 'clawbernetes_gpu_health{node="a",gpu="2",uuid="GPU-0",state="failed"}', values: '0x14'}
    promql_expr_test:
      - {expr: 'count(ALERTS{alertname="gpu-lost"}) or vector(0)', eval_time: 4m, exp_samples: [{value: 0}]}
      - {expr: 'ALERTS{alertname="gpu-lost",alertstate="firing"}', eval_time: 10m, exp_samples: [{labels: 'ALERTS{alertname="gpu-lost",alertstate="firing",severity="critical",node="a",gpu="3",uuid="GPU-1"}', value: 1}]}
  - name: XID errors, of a series that wasn't there before, and of one that was
    interval: 1m
    input_series:
      - {series: 'clawbernetes_gpu_xids_total{node="a",gpu="0",uuid="GPU-1",xid="79"}', values: '_x90 1x200'}
      - {series: 'clawbernetes_gpu_xids_total{node="b",gpu="0",uuid="GPU-2",xid="95"}', values: '4x90 5x200'}
      - {series: 'clawbernetes_gpu_xids_total{node="c",gpu="0",uuid="GPU-3",xid="31"}', values: '_x90 1x200'}
      - {series: 'clawbernetes_gpu_xids_total{node="d",gpu="0",uuid="GPU-4",xid="79"}', values: '7x290'}
    promql_expr_test:
      - {expr: 'count(ALERTS{alertname="gpu-xid-critical"}) or vector(0)', eval_time: 89m, exp_samples: [{value: 0}]}
      - {expr: 'sum by (node) (ALERTS{alertname="gpu-xid-critical",alertstate="firing"})', eval_time: 100m, exp_samples: [{labels: '{node="a"}', value: 1}, {labels: '{node="b"}', value: 1}]}
      - {expr: 'count(ALERTS{alertname="gpu-xid-critical"}) or vector(0)', eval_time: 160m, exp_samples: [{value: 0}]}
  - name: a gateway that starts again counts from 0
    interval: 1m
    input_series:
      - {series: 'clawbernetes_gpu_xids_total{node="a",gpu="0",uuid="GPU-1",xid="79"}', values: '1x70 0x20 1x20'}
    promql_expr_test:
      - {expr: 'count(ALERTS{alertname="gpu-xid-critical"}) or vector(0)', eval_time: 85m, exp_samples: [{value: 0}]}
      - {expr: 'count(ALERTS{alertname="gpu-xid-critical"})', eval_time: 100m, exp_samples: [{value: 1}]}
  - name: workloads that crash, and one that runs out of memory at once
    interval: 1m
    input_series:
      - {series: 'clawbernetes_workload_crashes_total{namespace="default",workload="wl-1"}', values: '_x70 1 2 3x60'}
      - {series: 'clawbernetes_workload_crashes_total{namespace="default",workload="wl-2"}', values: '_x70 1 1 2x60'}
      - {series: 'clawbernetes_workload_oom_kills_total{namespace="default",workload="wl-2"}', values: '_x70 1x60'}
    promql_expr_test:
      - {expr: 'ALERTS{alertname="workload-crash-loop"}', eval_time: 75m, exp_samples: [{labels: 'ALERTS{alertname="workload-crash-loop",alertstate="firing",severity="warning",namespace="default",workload="wl-1"}', value: 1}]}
      - {expr: 'ALERTS{alertname="workload-oom"}', eval_time: 75m, exp_samples: [{labels: 'ALERTS{alertname="workload-oom",alertstate="firing",severity="warning",namespace="default",workload="wl-2"}', value: 1}]}
      - {expr: 'count(ALERTS{alertname="workload-crash-loop"}) or vector(0)', eval_time: 120m, exp_samples: [{value: 0}]}
"#;

#[test]
fn states_and_events_fire_and_end_in_prometheus() {
    promtool("test", &[("test.yml", SCENES), ("rules.yml", &rules())]);
}
