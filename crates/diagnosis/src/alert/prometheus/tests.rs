use serde_json::Value;

use super::super::rule::RuleSet;
use super::*;

fn named(name: &str) -> Option<PrometheusMetric> {
    // The clock's offset is exposed in seconds; queues aren't exposed.
    let factor = if name == "clock.offset" { 1_000.0 } else { 1.0 };
    (!name.starts_with("queue.")).then(|| PrometheusMetric {
        name: format!("clawbernetes_{}", name.replace('.', "_").to_lowercase()),
        factor,
        labels: if name.starts_with("gpu.") {
            &[("uuid", "UUID")]
        } else {
            &[]
        },
    })
}

#[test]
fn the_built_in_rules() {
    insta::assert_snapshot!(to_prometheus_rules(RuleSet::built_in().unwrap().iter(), &named));
}

#[test]
fn it_is_yaml_of_the_right_shape() {
    let text = to_prometheus_rules(RuleSet::built_in().unwrap().iter(), &named);
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let rules = file["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), RuleSet::built_in().unwrap().iter().count() - 1);
    assert!(
        text.contains("# Not here: queue-stuck (no series for queue.wait)."),
        "{text}"
    );
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let depth = expression.chars().fold(0i32, |depth, c| match c {
            '(' | '{' | '[' => depth + 1,
            ')' | '}' | ']' => depth - 1,
            _ => depth,
        });
        assert_eq!(depth, 0, "{expression}");
        assert!(rule["annotations"]["summary"].is_string());
    }
}

#[test]
fn nothing_to_say_is_still_a_file() {
    let file: Value = serde_saphyr::from_str(&to_prometheus_rules([], &named)).unwrap();
    assert_eq!(file["groups"][0]["rules"], serde_json::json!([]));
}

#[test]
fn every_condition_has_an_expression() {
    for (condition, wanted) in [
        (
            r#"{"kind":"threshold","metric":"m","labels":["a=b"],"take":"p95","over":"5m","op":"<","bound":1.5}"#,
            r#"quantile_over_time(0.95, clawbernetes_m{a="b"}[5m]) < 1.5"#,
        ),
        (
            r#"{"kind":"threshold","metric":"m","op":">=","bound":{"metric":"l","times":0.5,"plus":-3}}"#,
            "clawbernetes_m >= on (node, gpu) ((clawbernetes_l * 0.5) - 3)",
        ),
        (
            r#"{"kind":"bits","metric":"m","mask":9,"meaning":"x"}"#,
            "floor(clawbernetes_m / 1) % 2 == 1 or floor(clawbernetes_m / 8) % 2 == 1",
        ),
        (
            r#"{"kind":"absent","metric":"m","over":"5m"}"#,
            "count_over_time(clawbernetes_m[1d]) unless count_over_time(clawbernetes_m[5m])",
        ),
        (
            r#"{"kind":"events","event":"Oops","labels":["x=~1|2"],"over":"1h","atLeast":3}"#,
            r#"round(sum by (node, gpu) ((clawbernetes_oops{x=~"1|2"} unless clawbernetes_oops{x=~"1|2"} offset 1h) or increase(clawbernetes_oops{x=~"1|2"}[1h]))) >= 3"#,
        ),
        (
            r#"{"kind":"state","state":"s","in":["a.b","c"]}"#,
            r#"max by (node, gpu) (clawbernetes_s{state=~"a\\.b|c"}) == 1"#,
        ),
    ] {
        let rule = Rule {
            by: vec!["node".to_owned(), "gpu".to_owned()],
            condition: serde_json::from_str(condition).unwrap(),
            ..RuleSet::built_in().unwrap().get("node-down").unwrap().clone()
        };
        let writer = Writer::new(&rule, &named);
        assert_eq!(writer.expression(&rule.condition).unwrap(), wanted);
    }
}
