//! The built-in rules of alerts for those who alert from Prometheus: `docs/prometheus/rules.yml`.

use std::process::Command;

use api::metric::{self, label};
use diagnosis::alert::{PrometheusMetric, RuleSet, to_prometheus_rules};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/prometheus/rules.yml");

/// What DCGM calls our labels.
const DCGM: &[(&str, &str)] = &[(label::NODE, "Hostname"), (label::UUID, "UUID")];

/// A metric as `/metrics` has it. States and events aren't there.
fn named(name: &str) -> Option<PrometheusMetric> {
    let metric = metric::find(name)?;
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

#[test]
fn promtool_accepts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    std::fs::write(&path, rules()).unwrap();
    let Ok(output) = Command::new("promtool").args(["check", "rules"]).arg(path).output() else {
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
