use super::super::notify::{Ledger, plan};
use super::super::receiver::Receiver;
use super::super::scene::{Scene, at};
use super::*;

/// One node that is down, with words that want escaping, one that is up again, as `format` has it.
fn delivery(format: &str) -> Delivery {
    let receiver = format!(r#"{{"name":"ops","format":"{format}","url":"http://receiver.example","groupWait":"0s"}}"#);
    let receivers: Vec<Receiver> = vec![serde_json::from_str(&receiver).unwrap()];
    let down = [("node", "gpu-7"), ("rack.row", "<a&b>"), ("empty", "")];
    let mut scene = Scene::default();
    scene.fire("node-down", &[("node", "gpu-8")], at(0));
    let first = plan(&scene.states, &BTreeMap::new(), &receivers, &Ledger::default(), at(0));
    let mut ledger = Ledger::default();
    ledger.delivered(&first.deliveries[0], at(0));
    scene.resolve("node-down", &[("node", "gpu-8")], at(2));
    let id = scene.fire("node-down", &down, at(3));
    let alert = scene
        .states
        .rules
        .get_mut("node-down")
        .and_then(|alerts| alerts.get_mut(&id))
        .unwrap();
    alert.flapping = true;
    alert.stale = true;
    alert.summary = "node gpu-7 is <unreachable> & silent".to_owned();
    plan(&scene.states, &BTreeMap::new(), &receivers, &ledger, at(4))
        .deliveries
        .remove(0)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

#[test]
fn for_slack() {
    insta::assert_snapshot!(pretty(&body(&delivery("slack"), Some("https://gateway.example"))));
}

#[test]
fn for_webhooks() {
    insta::assert_snapshot!(pretty(&body(&delivery("webhook"), Some("https://gateway.example"))));
}

#[test]
fn for_an_alertmanager() {
    insta::assert_snapshot!(pretty(&body(&delivery("alertmanager"), None)));
}

#[test]
fn slack_is_shown_ten_and_told_of_the_rest() {
    let mut delivery = delivery("slack");
    let first = delivery.alerts[0].clone();
    delivery.alerts = vec![first; 14];
    delivery.alerts[0].description = "x".repeat(5_000);
    let body = slack(&delivery, None);
    assert_eq!(body["text"], "*node-down*: 14 firing");
    let attachments = body["attachments"].as_array().unwrap();
    assert_eq!(attachments.len(), 11);
    assert_eq!(attachments[10]["text"], "and 4 more: `clawbernetes alerts list`");
    assert!(attachments[0]["text"].as_str().unwrap().chars().count() < 2_000);
}

#[test]
fn names_of_labels() {
    for (name, wanted) in [
        ("node", "node"),
        ("rack.row", "rack_row"),
        ("7up", "_7up"),
        ("größe", "gr__e"),
    ] {
        assert_eq!(label_name(name), wanted);
    }
}
