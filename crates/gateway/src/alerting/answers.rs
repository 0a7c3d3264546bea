//! What rules ask for, answered: metrics from their store, states from the fleet as it is, counts of what happened.

use std::collections::{BTreeMap, BTreeSet};

use api::{NodeName, Timestamp, WorkloadId, metric::label, node::Node, workload::Workload};
use diagnosis::alert::{Labels, Need, Observed, Reading, Rule, RuleSet, Series, Span, States, Take, gather};
use telemetry::metrics::{Aggregate, Matcher, MetricError, MetricStore};

use super::occurrences::Recent;
use crate::{
    decide::nodes,
    view::{Versioned, View},
};

/// Up to this window every sample is given; of longer ones [`POINTS`].
const RAW_MAX: Span = Span::hours(1);
/// Samples of a long window.
const POINTS: u64 = 300;
/// A long window is read anew when it has moved by this share of its length.
const MOVED: u64 = 100;

/// The fleet, as far as rules ask for it.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    nodes: Vec<Labels>,
    gpus: Vec<Labels>,
    workloads: Vec<Labels>,
    /// By state's name.
    states: BTreeMap<&'static str, Vec<Series>>,
    /// Of alerts so far: what exists no more.
    gone: Vec<Labels>,
    /// What sentences of rules name that no label has.
    words: Labels,
}

/// What of the view is looked at: shared with it, so that its lock is held for moments.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By name.
    nodes: Vec<Versioned<Node>>,
    /// Workloads that haven't ended, by id.
    active: Vec<Versioned<Workload>>,
    /// Workloads that took a step lately.
    pub stepped: Vec<Versioned<Workload>>,
    /// Ids of workloads that alerts are about and that aren't there any more.
    missing: BTreeSet<String>,
}

impl Snapshot {
    /// Takes it. `since`: what "lately" means.
    #[must_use]
    pub fn of(view: &View, alerts: &States, since: Timestamp) -> Self {
        let stepped = |workload: &&Versioned<Workload>| workload.timeline.last().is_some_and(|step| step.at >= since);
        let about = alerts.alerts().filter_map(|alert| alert.target.get(label::WORKLOAD));
        let missing = about.filter(|id| view.workload(&WorkloadId::new(*id)).is_none());
        Self {
            missing: missing.cloned().collect(),
            nodes: view.nodes().cloned().collect(),
            active: view.active().cloned().collect(),
            stepped: view.workloads().filter(stepped).cloned().collect(),
        }
    }

    fn node(&self, name: &str) -> Option<&Versioned<Node>> {
        let at = self.nodes.binary_search_by(|node| node.name.as_str().cmp(name));
        self.nodes.get(at.ok()?)
    }
}

impl Fleet {
    /// What the snapshot and the moment tell, and which things that alerts are about exist no more. `heard_of`: whether
    /// a node has given a sign of life since the gateway's start.
    #[must_use]
    pub fn of(snapshot: &Snapshot, heard_of: impl Fn(&NodeName) -> bool, alerts: &States) -> Self {
        let mut fleet = Self::default();
        let (mut statuses, mut healths) = (Vec::new(), Vec::new());
        for node in &snapshot.nodes {
            let labels: Labels = [(label::NODE.to_owned(), node.name.to_string())].into();
            let heard_of = heard_of(&node.name);
            statuses.push(Series {
                labels: labels.clone(),
                reading: Reading::State {
                    value: nodes::status(node, heard_of).name().to_owned(),
                    since: Some(node.reach_since),
                },
            });
            for gpu in node.inventory.iter().flat_map(|inventory| &inventory.gpus) {
                let mut labels = labels.clone();
                labels.insert(label::GPU.to_owned(), gpu.index.to_string());
                labels.insert(label::UUID.to_owned(), gpu.uuid.clone());
                healths.push(Series {
                    labels: labels.clone(),
                    reading: Reading::State {
                        value: nodes::gpu_health(node, gpu.index, heard_of).to_owned(),
                        since: None,
                    },
                });
                fleet.gpus.push(labels);
            }
            fleet.nodes.push(labels);
        }
        fleet.states = [("node.status", statuses), ("gpu.health", healths)].into();
        let workload = |workload: &Versioned<Workload>| {
            [
                ("namespace".to_owned(), workload.namespace.clone()),
                (label::WORKLOAD.to_owned(), workload.id.to_string()),
            ]
            .into()
        };
        fleet.workloads = snapshot.active.iter().map(workload).collect();
        fleet.gone = fleet.gone(snapshot, alerts);
        fleet
    }

    /// With what sentences of rules name that no label has.
    #[must_use]
    pub fn with_words(self, words: Labels) -> Self {
        Self { words, ..self }
    }

    fn gone(&self, snapshot: &Snapshot, alerts: &States) -> Vec<Labels> {
        let gpus: BTreeSet<&Labels> = self.gpus.iter().collect();
        let mut gone = BTreeSet::new();
        for alert in alerts.alerts() {
            let only = |names: &[&str]| -> Labels {
                let pairs = names.iter().filter_map(|name| alert.target.get_key_value(*name));
                pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
            };
            if let Some(node) = alert.target.get(label::NODE) {
                let gpu = only(&[label::NODE, label::GPU, label::UUID]);
                match snapshot.node(node) {
                    None => {
                        gone.insert(only(&[label::NODE]));
                    }
                    // The machine has other GPUs now.
                    Some(node) if gpu.len() == 3 && node.inventory.is_some() && !gpus.contains(&gpu) => {
                        gone.insert(gpu);
                    }
                    Some(_) => {}
                }
            }
            if alert
                .target
                .get(label::WORKLOAD)
                .is_some_and(|id| snapshot.missing.contains(id))
            {
                gone.insert(only(&[label::WORKLOAD]));
            }
        }
        gone.into_iter().collect()
    }

    /// What a rule that counts must be told of although nothing was counted.
    fn targets(&self, rule: &Rule, alerts: &States) -> Vec<Labels> {
        let by = |name: &str| rule.by.iter().any(|by| by == name);
        let known: &[Labels] = if by(label::GPU) || by(label::UUID) {
            &self.gpus
        } else if by(label::WORKLOAD) {
            &self.workloads
        } else if rule.by == [label::NODE] {
            &self.nodes
        } else {
            &[]
        };
        let so_far = alerts.rules.get(&rule.name).into_iter().flat_map(BTreeMap::values);
        let so_far = so_far.map(|alert| alert.target.clone());
        let whole = rule.by.is_empty().then(Labels::new);
        known.iter().cloned().chain(so_far).chain(whole).collect()
    }

    fn namespace(&self, workload: &str) -> Option<&String> {
        let at = self
            .workloads
            .binary_search_by(|labels| labels[label::WORKLOAD].as_str().cmp(workload));
        self.workloads.get(at.ok()?)?.get("namespace")
    }
}

/// An answer of the metric store, for all series of a metric.
struct Kept {
    metric: String,
    take: Question,
    at: Timestamp,
    answer: Option<Vec<Series>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Question {
    One(Take, Span),
    Points(Span),
}

/// Answers that were given, as far as they may be given again: those of all rules over a large fleet are gigabytes.
#[derive(Default)]
pub struct Answers {
    kept: Vec<Kept>,
    /// How often each question will still be asked in this evaluation.
    left: Vec<(String, Question, usize)>,
}

impl Answers {
    /// Begins an evaluation: every rule's needs will be asked for once.
    pub fn begin(&mut self, rules: &RuleSet, now: Timestamp) {
        self.kept
            .retain(|kept| kept.is_long() && kept.at <= now && !kept.has_moved(now));
        self.left.clear();
        for rule in rules.iter() {
            for (metric, question) in rule.needs().iter().filter_map(|need| question(need, rule)) {
                match self.left.iter_mut().find(|(m, q, _)| m == metric && *q == question) {
                    Some((_, _, count)) => *count += 1,
                    None => self.left.push((metric.to_owned(), question, 1)),
                }
            }
        }
    }

    /// Answers the needs of a rule. Reads files.
    #[must_use]
    pub fn observe(
        &mut self,
        rule: &Rule,
        metrics: &MetricStore,
        fleet: &Fleet,
        recent: &Recent,
        alerts: &States,
        now: Timestamp,
    ) -> Observed {
        let needs = rule.needs();
        let counts = |need: &Need| matches!(need, Need::Events { .. } | Need::Metric { take: Take::Count, .. });
        let targets = if needs.iter().any(counts) {
            fleet.targets(rule, alerts)
        } else {
            Vec::new()
        };
        let answers: Vec<Option<Vec<Series>>> = needs
            .iter()
            .map(|need| self.answer(need, rule, metrics, fleet, recent, now))
            .collect();
        let mut observations = gather(rule, &answers, &targets, now);
        if !rule.context.is_empty() {
            for observation in &mut observations {
                observation.context.clone_from(&fleet.words);
            }
        }
        Observed {
            observations,
            gone: fleet.gone.clone(),
        }
    }

    fn answer(
        &mut self,
        need: &Need,
        rule: &Rule,
        metrics: &MetricStore,
        fleet: &Fleet,
        recent: &Recent,
        now: Timestamp,
    ) -> Option<Vec<Series>> {
        let labels = match need {
            Need::State { state, labels } => {
                let all = fleet.states.get(state.as_str())?.iter();
                let wanted = all.filter(|series| labels.iter().all(|matcher| matcher.matches(&series.labels)));
                return Some(wanted.cloned().collect());
            }
            Need::Events { event, labels, over } => {
                return Some(recent.count(event, labels, *over, |labels| rule.target(labels), now));
            }
            Need::Metric { labels, .. } | Need::Points { labels, .. } => labels,
        };
        let (metric, question) = question(need, rule)?;
        let known = self
            .kept
            .iter()
            .position(|kept| kept.metric == *metric && kept.take == question);
        let at = known.unwrap_or_else(|| {
            let answer = ask(metrics, metric, question, now);
            if let Err(error) = &answer {
                tracing::warn!(%error, rule = rule.name, metric, "a rule's question couldn't be answered");
            }
            let mut answer = answer.ok();
            for series in answer.iter_mut().flatten() {
                let namespace = series
                    .labels
                    .get(label::WORKLOAD)
                    .and_then(|id| fleet.namespace(id))
                    .cloned();
                series
                    .labels
                    .extend(namespace.map(|value| ("namespace".to_owned(), value)));
            }
            self.kept.push(Kept {
                metric: metric.to_owned(),
                take: question,
                at: now,
                answer,
            });
            self.kept.len() - 1
        });
        let wanted = |series: &Series| labels.iter().all(|matcher| matcher.matches(&series.labels));
        if self.is_last(metric, question) && !self.kept[at].is_long() {
            let all = self.kept.swap_remove(at).answer?;
            return Some(all.into_iter().filter(wanted).collect());
        }
        let all = self.kept[at].answer.as_ref()?.iter();
        Some(all.filter(|series| wanted(series)).cloned().collect())
    }

    /// Counts a question that is asked; whether nobody asks it again in this evaluation.
    fn is_last(&mut self, metric: &str, question: Question) -> bool {
        let found = self.left.iter_mut().find(|(m, q, _)| m == metric && *q == question);
        let Some((_, _, left)) = found else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }
}

impl Kept {
    /// Whether it may be given again at later evaluations.
    fn is_long(&self) -> bool {
        matches!(self.take, Question::Points(over) if over > RAW_MAX)
    }

    /// Whether its window has moved too far for that.
    fn has_moved(&self, now: Timestamp) -> bool {
        let (Question::Points(over) | Question::One(_, over)) = self.take;
        Span::between(self.at, now).times(MOVED) >= over
    }
}

/// What of the metric store a need asks for. `None`: nothing.
fn question<'a>(need: &'a Need, rule: &Rule) -> Option<(&'a str, Question)> {
    match need {
        Need::State { .. } | Need::Events { .. } => None,
        Need::Metric { metric, take, over, .. } => {
            Some((metric, Question::One(*take, over.unwrap_or(rule.stale_after))))
        }
        Need::Points { metric, over, .. } => Some((metric, Question::Points(*over))),
    }
}

/// Samples of a series: milliseconds, value.
type Points = [(i64, f64)];

/// What samples come to. `None`: nothing.
type Read = Box<dyn Fn(&Points) -> Option<Reading>>;

/// Asks for all series of a metric.
fn ask(metrics: &MetricStore, metric: &str, question: Question, now: Timestamp) -> Result<Vec<Series>, MetricError> {
    let name = [Matcher::name(metric)];
    let end = now.as_millisecond() + 1;
    let from = |over: Span| end - i64::try_from(over.as_millis()).unwrap_or(i64::MAX).clamp(1, end);
    // The sample at the very beginning is what a counter grew from.
    let raw = |over| metrics.select(&name, from(over) - 1, end - 1);
    let windows = |over, step, aggregate| {
        metrics
            .windows(&name, from(over), end, step, aggregate)
            .map(|w| w.series)
    };
    let value = move |value: f64| Reading::Value { value, at: now };
    let whole = |over: Span, aggregate| windows(over, end - from(over), aggregate);
    let time = move |ms: i64| Timestamp::from_millisecond(ms).unwrap_or(now);
    let last = move |points: &Points| points.last().map(|(_, last)| value(*last));
    let (found, reading): (_, Read) = match question {
        Question::Points(over) => {
            let found = if over <= RAW_MAX {
                raw(over)
            } else {
                let step = i64::try_from(over.as_millis() / POINTS).unwrap_or(i64::MAX);
                windows(over, step, Aggregate::Last)
            };
            let points = move |points: &Points| {
                let points = points.iter().map(|(at, value)| (time(*at), *value)).collect();
                Some(Reading::Points { points })
            };
            (found?, Box::new(points))
        }
        Question::One(take, over) => match take {
            Take::Last => {
                let newest = move |points: &Points| {
                    points.last().map(|(at, value)| Reading::Value {
                        value: *value,
                        at: time(*at),
                    })
                };
                (raw(over)?, Box::new(newest))
            }
            Take::Increase => {
                let grown = move |points: &Points| increase(points).map(value);
                (raw(over)?, Box::new(grown))
            }
            Take::Rate => {
                let rate = move |points: &Points| increase(points).map(|grown| value(grown / over.as_seconds()));
                (raw(over)?, Box::new(rate))
            }
            Take::Avg => (whole(over, Aggregate::Avg)?, Box::new(last)),
            Take::Min => (whole(over, Aggregate::Min)?, Box::new(last)),
            Take::Max => (whole(over, Aggregate::Max)?, Box::new(last)),
            Take::Sum => (whole(over, Aggregate::Sum)?, Box::new(last)),
            Take::P95 => (whole(over, Aggregate::P95)?, Box::new(last)),
            Take::P99 => (whole(over, Aggregate::P99)?, Box::new(last)),
            Take::Count => (whole(over, Aggregate::Count)?, Box::new(last)),
        },
    };
    Ok(found
        .into_iter()
        .filter_map(|series| {
            Some(Series {
                reading: reading(&series.points)?,
                labels: series.labels.labels.into_iter().collect(),
            })
        })
        .collect())
}

/// How much a counter grew; one that is smaller than before began anew from zero. `None`: a single sample tells nothing.
fn increase(points: &[(i64, f64)]) -> Option<f64> {
    if points.len() < 2 {
        return None;
    }
    let steps = points.windows(2);
    Some(
        steps
            .map(|pair| {
                let (before, after) = (pair[0].1, pair[1].1);
                if after < before { after } else { after - before }
            })
            .sum(),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::node::{GpuHealth, Reach};
    use diagnosis::alert::RuleFile;
    use telemetry::metrics::{Options, Sample};

    use super::*;

    const START: i64 = 1_800_000_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millisecond(START + second * 1_000).unwrap()
    }

    fn store(dir: &tempfile::TempDir) -> MetricStore {
        let options = Options {
            clock: Arc::new(|| START + 86_400_000),
            ..Options::default()
        };
        MetricStore::open(dir.path(), options).unwrap()
    }

    fn node(name: &str, health: GpuHealth) -> Versioned<Node> {
        let (mut node, _) = nodes::joined(&NodeName::new(name), String::new(), "user:ada", at(0));
        node.reach = Reach::Online;
        node.gpu_health = [(1, health)].into();
        let gpu = |index: u32| {
            serde_json::json!({"index": index, "uuid": format!("GPU-{name}-{index}"), "vendor": "nvidia", "model": "H100",
                "memoryTotalBytes": null, "pciAddress": null, "numaNode": null, "powerLimitWatts": null,
                "driverVersion": null})
        };
        let inventory = serde_json::json!({"hostname": name, "cpu": "4", "cpuModel": null, "memoryTotalBytes": 1,
            "os": null, "kernel": null, "arch": "x86_64", "gpus": [gpu(0), gpu(1)], "engines": [], "agentVersion": "0.1.0"});
        node.inventory = Some(serde_json::from_value(inventory).unwrap());
        Versioned {
            value: Arc::new(node),
            revision: store::Revision(1),
        }
    }

    /// Alerts of the built-in rules an hour after everything was seen so.
    fn alerts(fleet: &Fleet, before: &States, minute: i64) -> (States, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let (store, rules) = (store(&dir), RuleSet::built_in().unwrap());
        let recent = Recent::new(&rules);
        let (mut answers, now) = (Answers::default(), at(minute * 60));
        answers.begin(&rules, now);
        let observe = |rule: &Rule| answers.observe(rule, &store, fleet, &recent, before, now);
        let (after, _) = diagnosis::alert::evaluate_each(&rules, observe, before, now);
        let firing = after
            .alerts()
            .filter(|alert| alert.phase == diagnosis::alert::Phase::Firing);
        let summaries = firing.map(|alert| alert.summary.clone()).collect();
        store.close().unwrap();
        (after, summaries)
    }

    #[test]
    fn states_come_from_the_fleet_and_end_with_it() {
        let failed = || GpuHealth::Failed {
            reason: "XID 79".to_owned(),
        };
        let mut down = node("b", GpuHealth::Ok);
        Arc::get_mut(&mut down.value).unwrap().reach = Reach::Unreachable;
        let snapshot = Snapshot {
            nodes: vec![node("a", failed()), down],
            ..Snapshot::default()
        };
        let fleet = |snapshot: &Snapshot, alerts: &States| Fleet::of(snapshot, |_| true, alerts);
        let (states, _) = alerts(&fleet(&snapshot, &States::default()), &States::default(), 0);
        let (states, firing) = alerts(&fleet(&snapshot, &states), &states, 2);
        assert_eq!(firing, ["GPU 1 of a can't be used: failed", "node b is unreachable"]);
        // After the gateway's start nothing is known, and nothing changes.
        let (states, firing) = alerts(&Fleet::of(&snapshot, |_| false, &states), &states, 4);
        assert_eq!(firing.len(), 2);
        // One node was removed, the other one has another GPU in that place.
        let mut other = node("a", GpuHealth::Ok);
        let inventory = Arc::get_mut(&mut other.value).unwrap().inventory.as_mut().unwrap();
        inventory.gpus[1].uuid = "GPU-new".to_owned();
        let snapshot = Snapshot {
            nodes: vec![other],
            ..Snapshot::default()
        };
        let (states, firing) = alerts(&fleet(&snapshot, &states), &states, 5);
        assert_eq!(firing, [""; 0]);
        let gone =
            |alert: &&diagnosis::alert::Alert| alert.resolution == Some(diagnosis::alert::Resolution::TargetGone);
        assert_eq!(states.alerts().filter(gone).count(), 2);
    }

    /// A sample each ten seconds.
    fn fill(store: &MetricStore, metric: &str, labels: &[(&str, &str)], seconds: i64, value: impl Fn(i64) -> f64) {
        let series = store.series(metric, labels).unwrap();
        for second in (0..=seconds).step_by(10) {
            let sample = Sample {
                series,
                at_ms: START + second * 1_000,
                value: value(second),
            };
            store.append(&[sample]).unwrap();
        }
    }

    fn one(store: &MetricStore, take: Take, over: Span) -> Option<f64> {
        let answer = ask(store, "gpu.ecc.uncorrected", Question::One(take, over), at(600)).unwrap();
        match answer.first()?.reading {
            Reading::Value { value, .. } => Some(value),
            _ => None,
        }
    }

    #[test]
    fn numbers_of_a_window() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        // 0, 1, … 30, then anew from 0 up to 29.
        fill(
            &store,
            "gpu.ecc.uncorrected",
            &[("node", "a"), ("gpu", "0")],
            600,
            |s| (if s <= 300 { s / 10 } else { s / 10 - 31 }) as f64,
        );
        let ten = Span::minutes(10);
        assert_eq!(one(&store, Take::Last, ten), Some(29.0));
        assert_eq!(one(&store, Take::Max, ten), Some(30.0));
        assert_eq!(one(&store, Take::Min, ten), Some(0.0));
        assert_eq!(one(&store, Take::Increase, ten), Some(59.0));
        assert_eq!(one(&store, Take::Rate, ten), Some(59.0 / 600.0));
        assert_eq!(one(&store, Take::Count, Span::minutes(1)), Some(6.0));
        assert_eq!(one(&store, Take::Avg, Span::seconds(20)), Some(28.5));
        // One sample: it may have grown before.
        assert_eq!(one(&store, Take::Increase, Span::seconds(5)), None);
        assert_eq!(
            ask(&store, "gpu.power", Question::One(Take::Last, ten), at(600)).unwrap(),
            []
        );
        store.close().unwrap();
    }

    #[test]
    fn a_long_window_is_thinned_and_kept_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        fill(&store, "disk.used", &[("node", "a"), ("mount", "/")], 6 * 3600, |s| {
            s as f64
        });
        fill(&store, "disk.total", &[("node", "a"), ("mount", "/")], 6 * 3600, |_| {
            1e6
        });
        let rules = RuleSet::with(RuleFile::default()).unwrap();
        let (fleet, recent, states) = (Fleet::default(), Recent::new(&rules), States::default());
        let mut answers = Answers::default();
        let mut observed = |second| {
            answers.begin(&rules, at(second));
            let mut observe = |rule: &Rule| answers.observe(rule, &store, &fleet, &recent, &states, at(second));
            let mut all: BTreeMap<&str, Observed> = rules.iter().map(|rule| (&*rule.name, observe(rule))).collect();
            let seen = all.remove("disk-filling").unwrap().observations[0].readings.clone();
            let short = answers.kept.iter().filter(|kept| !kept.is_long());
            assert_eq!(short.count(), 0, "what no rule asks for again isn't kept");
            seen
        };
        let first = observed(6 * 3600);
        let Reading::Points { points } = &first[0] else {
            panic!("{first:?}")
        };
        assert!((250..=301).contains(&points.len()), "{}", points.len());
        assert!(matches!(first[1], Reading::Value { value, .. } if value == 1e6));
        let soon = observed(6 * 3600 + 60);
        assert_eq!(first[0], soon[0]);
        // A hundredth of six hours later.
        assert_ne!(first[0], observed(6 * 3600 + 300)[0]);
        store.close().unwrap();
    }
}
