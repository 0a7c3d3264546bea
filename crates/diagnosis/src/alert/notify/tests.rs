use proptest::prelude::*;

use super::super::scene::{Scene, at, built_in};
use super::super::silence::{Silence, mutes};
use super::*;

const NODE: &[(&str, &str)] = &[("node", "gpu-7")];

fn receiver(text: &str) -> Receiver {
    let text = format!(r#"{{"name":"ops","format":"slack","url":"https://hooks.example/T0/secret"{text}}}"#);
    serde_json::from_str(&text).unwrap()
}

/// A world with one receiver, in which everything that is planned is delivered.
struct World {
    scene: Scene,
    ledger: Ledger,
    receivers: Vec<Receiver>,
    silences: Vec<Silence>,
}

impl World {
    fn new(receiver: Receiver) -> Self {
        Self {
            scene: Scene::default(),
            ledger: Ledger::default(),
            receivers: vec![receiver],
            silences: Vec::new(),
        }
    }

    fn plan(&self, now: Timestamp) -> Plan {
        let mutes = mutes(&self.scene.states, built_in(), &self.silences, now);
        plan(&self.scene.states, &mutes, &self.receivers, &self.ledger, now)
    }

    /// What arrives in a minute: rule, node and phase of each alert.
    fn tell(&mut self, minute: u64) -> Vec<String> {
        let plan = self.plan(at(minute));
        let mut said = Vec::new();
        for delivery in &plan.deliveries {
            self.ledger.sending(delivery);
            self.ledger.delivered(delivery, at(minute));
            said.extend(delivery.alerts.iter().map(|alert| {
                let node = alert.labels.get("node").map_or("", String::as_str);
                format!("{} {node} {:?}", alert.rule, alert.status)
            }));
        }
        said
    }
}

#[test]
fn told_once_repeated_and_ended() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    // The group waits for half a minute, and says until when.
    assert_eq!(world.plan(at(0)).deliveries, []);
    assert_eq!(world.plan(at(0)).next_at, Some(Span::seconds(30).after(at(0))));
    assert_eq!(world.tell(1), ["node-down gpu-7 Firing"]);
    assert_eq!(world.plan(at(1)).next_at, Some(at(241)));
    assert_eq!(world.tell(240), [""; 0]);
    assert_eq!(world.plan(at(241)).deliveries[0].occasion, Occasion::Repeat);
    assert_eq!(world.tell(241), ["node-down gpu-7 Firing"]);
    world.scene.resolve("node-down", NODE, at(250));
    assert_eq!(world.tell(250), ["node-down gpu-7 Resolved"]);
    assert_eq!(world.plan(at(9_000)), Plan::default());
}

#[test]
fn what_was_over_before_it_was_told_is_not_told() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    world.scene.resolve("node-down", NODE, at(1));
    assert_eq!(world.plan(at(1)), Plan::default());
}

#[test]
fn a_group_is_one_message() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    world.scene.fire("node-down", &[("node", "gpu-8")], at(0));
    world.scene.fire("queue-stuck", &[("reason", "NO_NODE")], at(0));
    let plan = world.plan(at(1));
    let groups: Vec<(&str, usize)> = (plan.deliveries.iter())
        .map(|delivery| (delivery.group_key.as_str(), delivery.alerts.len()))
        .collect();
    assert_eq!(groups, [("rule=\"node-down\"", 2), ("rule=\"queue-stuck\"", 1)]);
    world.tell(1);
    // A third one waits for a minute after the last message, and is told with the others.
    world.scene.fire("node-down", &[("node", "gpu-9")], at(1));
    assert_eq!(world.plan(at(1)).next_at, Some(at(2)));
    assert_eq!(world.tell(2).len(), 3);
}

#[test]
fn by_node_instead() {
    let mut world = World::new(receiver(r#","groupBy":["node"]"#));
    world.scene.fire("node-degraded", NODE, at(0));
    world.scene.fire("node-memory-low", NODE, at(0));
    let plan = world.plan(at(1));
    assert_eq!(plan.deliveries.len(), 1);
    assert_eq!(plan.deliveries[0].alerts.len(), 2);
}

#[test]
fn a_receiver_gets_what_it_wants() {
    let mut world = World::new(receiver(r#","minSeverity":"critical","matchers":["node=~gpu-.*"]"#));
    world.scene.fire("node-down", NODE, at(0));
    world.scene.fire("node-down", &[("node", "cpu-1")], at(0));
    world.scene.fire("node-degraded", &[("node", "gpu-9")], at(0));
    assert_eq!(world.tell(1), ["node-down gpu-7 Firing"]);
}

#[test]
fn silences_hold_back_news_but_not_the_end_of_what_was_told() {
    let mut world = World::new(receiver(""));
    world.silences = vec![Silence {
        id: "sil-1".to_owned(),
        matchers: vec!["node=gpu-7".parse().unwrap()],
        created_by: "ann".to_owned(),
        comment: String::new(),
        starts_at: at(0),
        ends_at: at(10),
    }];
    world.scene.fire("node-down", NODE, at(0));
    assert_eq!(world.tell(9), [""; 0]);
    assert_eq!(world.tell(10), ["node-down gpu-7 Firing"]);
    world.silences[0].ends_at = at(100);
    world.scene.resolve("node-down", NODE, at(20));
    assert_eq!(world.tell(20), ["node-down gpu-7 Resolved"]);
}

#[test]
fn ends_are_not_told_to_who_does_not_want_them() {
    let mut world = World::new(receiver(r#","sendResolved":false"#));
    world.scene.fire("node-down", NODE, at(0));
    world.tell(1);
    world.scene.resolve("node-down", NODE, at(2));
    assert_eq!(world.plan(at(500)), Plan::default());
    world.scene.fire("node-down", NODE, at(600));
    assert_eq!(world.tell(601), ["node-down gpu-7 Firing"]);
}

#[test]
fn a_crash_before_recording_sends_the_same_key_again() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    let sent = world.plan(at(1)).deliveries.remove(0);
    let text = serde_json::to_string(&world.ledger).unwrap();
    world.ledger = serde_json::from_str(&text).unwrap();
    let again = world.plan(at(2)).deliveries.remove(0);
    assert_eq!(again.key, sent.key);
    // Recording is idempotent, and after it nothing is left to say.
    world.ledger.delivered(&sent, at(2));
    let once = world.ledger.clone();
    world.ledger.delivered(&again, at(3));
    assert_eq!(world.ledger, once);
    assert_eq!(world.plan(at(3)).deliveries, []);
    // The next message of the group has another key.
    let repeat = world.plan(at(242)).deliveries.remove(0);
    assert_ne!(repeat.key, sent.key);
    assert_eq!(repeat.group_key, sent.group_key);
}

#[test]
fn the_end_of_what_may_have_been_told_is_told() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    let sent = world.plan(at(1)).deliveries.remove(0);
    world.ledger.sending(&sent);
    let id = &sent.alerts[0].id;
    assert_eq!((world.ledger.owes(id), world.ledger.notified_at(id)), (true, None));
    // It may not have arrived: the same again.
    assert_eq!(world.plan(at(1)).deliveries, [sent]);
    world.scene.resolve("node-down", NODE, at(2));
    assert_eq!(world.tell(3), ["node-down gpu-7 Resolved"]);
}

#[test]
fn failures_are_tried_again_ever_more_slowly() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    let mut now = at(1);
    let mut waits = Vec::new();
    for _ in 0..7 {
        let delivery = world.plan(now).deliveries.remove(0);
        world.ledger.failed(&delivery, now);
        let plan = world.plan(now);
        assert_eq!(plan.deliveries, []);
        let next = plan.next_at.unwrap();
        waits.push(Span::between(now, next).to_string());
        now = next;
    }
    assert_eq!(waits, ["10s", "20s", "40s", "1m20s", "2m40s", "5m", "5m"]);
    let delivery = world.plan(now).deliveries.remove(0);
    world.ledger.delivered(&delivery, now);
    assert_eq!(world.plan(now).next_at, Some(Span::hours(4).after(now)));
}

#[test]
fn flapping_is_told_at_a_slower_rate() {
    let mut world = World::new(receiver(""));
    let mut messages = Vec::new();
    for minute in 0..180 {
        match minute % 4 {
            0 => drop(world.scene.fire("node-down", NODE, at(minute))),
            2 => world.scene.resolve("node-down", NODE, at(minute)),
            _ => {}
        }
        let flapping = world.scene.states.alerts().next().unwrap().flapping;
        messages.extend(world.tell(minute).into_iter().map(|_| (minute, flapping)));
    }
    // Six changes are told, then it is one an hour.
    let held: Vec<u64> = messages
        .iter()
        .filter(|(_, flapping)| *flapping)
        .map(|(minute, _)| *minute)
        .collect();
    assert!(messages.len() <= 5 + 3, "{messages:?}");
    assert!(held.len() >= 2, "{messages:?}");
    assert!(held.windows(2).all(|pair| pair[1] - pair[0] >= 60), "{messages:?}");
    // It comes to rest, firing: that is told too.
    world.scene.fire("node-down", NODE, at(180));
    let told: Vec<String> = (180..300).flat_map(|minute| world.tell(minute)).collect();
    let fires_last = world
        .ledger
        .owes(&world.scene.states.alerts().next().unwrap().fingerprint);
    assert!(fires_last, "{told:?}");
}

#[test]
fn an_alertmanager_is_told_at_once_and_every_minute() {
    let mut world = World::new(receiver("").tap_alertmanager());
    world.scene.fire("node-down", NODE, at(0));
    let delivery = world.plan(at(0)).deliveries.remove(0);
    assert_eq!(delivery.believed_until, at(4));
    world.ledger.delivered(&delivery, at(0));
    assert_eq!(world.plan(at(0)).next_at, Some(at(1)));
    assert_eq!(world.tell(1), ["node-down gpu-7 Firing"]);
    world.scene.resolve("node-down", NODE, at(1));
    assert_eq!(world.tell(1), ["node-down gpu-7 Resolved"]);
}

impl Receiver {
    fn tap_alertmanager(self) -> Self {
        Self {
            format: Format::Alertmanager,
            ..self
        }
    }
}

#[test]
fn resolved_alerts_are_kept_until_their_end_was_told() {
    let mut world = World::new(receiver(""));
    world.scene.fire("node-down", NODE, at(0));
    world.tell(1);
    world.scene.resolve("node-down", NODE, at(2));
    let day = 24 * 60;
    world.scene.states.prune(&world.ledger, at(3 * day));
    assert_eq!(world.tell(3 * day), ["node-down gpu-7 Resolved"]);
    world.scene.states.prune(&world.ledger, at(3 * day));
    assert_eq!(world.scene.states.alerts().count(), 0);
    world.ledger.prune(&world.scene.states, &world.receivers);
    assert_eq!(
        world.ledger,
        Ledger {
            receivers: [("ops".to_owned(), BTreeMap::new())].into()
        }
    );
}

proptest! {
    /// Whatever happens to alerts, messages and the sender, in the end a receiver believes what is true.
    #[test]
    fn a_receiver_can_follow(steps in prop::collection::vec((0usize..3, any::<bool>(), 0u8..6, 1u64..40), 1..60)) {
        let mut world = World::new(receiver(""));
        let nodes = ["a", "b", "c"];
        let mut believed: BTreeMap<String, bool> = BTreeMap::new();
        let mut keys: BTreeMap<String, Vec<(String, Phase)>> = BTreeMap::new();
        let mut minute = 0;
        let mut last = BTreeMap::new();
        let mut heard = |delivery: &Delivery| {
            let content: Vec<(String, Phase)> =
                delivery.alerts.iter().map(|alert| (alert.id.to_string(), alert.status)).collect();
            // The same key is the same message.
            let known = keys.entry(delivery.key.clone()).or_insert_with(|| content.clone());
            assert_eq!(known, &content);
            for (id, status) in content {
                assert_ne!(status, Phase::Pending);
                believed.insert(id, status == Phase::Firing);
            }
            believed.clone()
        };
        for (node, fires, luck, pause) in steps {
            minute += pause;
            let target = [("node", nodes[node])];
            if fires {
                world.scene.fire("node-degraded", &target, at(minute));
            } else {
                world.scene.resolve("node-degraded", &target, at(minute));
            }
            for delivery in world.plan(at(minute)).deliveries {
                world.ledger.sending(&delivery);
                match luck {
                    // Lost on its way.
                    0 => world.ledger.failed(&delivery, at(minute)),
                    // The sender crashed before sending it.
                    1 => {}
                    // The sender crashed after it had arrived.
                    2 => last = heard(&delivery),
                    _ => {
                        last = heard(&delivery);
                        world.ledger.delivered(&delivery, at(minute));
                    }
                }
            }
        }
        // Left alone, and woken only when it said so.
        let (mut now, end) = (at(minute), at(minute + 400));
        loop {
            let plan = world.plan(now);
            for delivery in &plan.deliveries {
                last = heard(delivery);
                world.ledger.sending(delivery);
                world.ledger.delivered(delivery, now);
            }
            match world.plan(now).next_at.filter(|next| *next <= end) {
                Some(next) => {
                    prop_assert!(next > now);
                    now = next;
                    prop_assert!(!world.plan(now).deliveries.is_empty());
                }
                None => break,
            }
        }
        for alert in world.scene.states.alerts() {
            let fires = alert.phase == Phase::Firing;
            // Whoever never heard of it may go without.
            prop_assert_eq!(last.get(alert.fingerprint.as_str()).copied().unwrap_or(false), fires);
        }
    }
}
