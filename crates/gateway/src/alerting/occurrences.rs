//! What happened lately that rules count: events by their reason, and how attempts of workloads ended.

use std::collections::{BTreeMap, VecDeque};

use api::{Timestamp, event::Event, metric::label, wire::FactKind, workload::Workload};
use diagnosis::alert::{Labels, Matcher, Need, Reading, RuleSet, Series, Span};

use crate::lifecycle;

/// What rules call any XID error, whatever its number.
const XID: &str = "Xid";
/// The same of NVSwitches.
const SXID: &str = "SXid";
/// What rules call the end of an attempt that failed and is followed by another one.
const RESTARTED: &str = "Restarted";

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    at: Timestamp,
    name: String,
    labels: Labels,
}

/// The events of late that some rule counts.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    /// Names that rules count, and the longest window in which they do.
    wanted: BTreeMap<String, Span>,
    kept: VecDeque<Occurrence>,
}

impl Recent {
    /// None yet of those that these rules count.
    #[must_use]
    pub fn new(rules: &RuleSet) -> Self {
        let mut wanted: BTreeMap<String, Span> = BTreeMap::new();
        for need in rules.iter().flat_map(diagnosis::alert::Rule::needs) {
            if let Need::Events { event, over, .. } = need {
                let window = wanted.entry(event).or_default();
                *window = over.max(*window);
            }
        }
        Self {
            wanted,
            kept: VecDeque::new(),
        }
    }

    /// Names of events that rules count.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.wanted.keys().map(String::as_str)
    }

    /// How many there are.
    #[cfg(test)]
    pub fn known(&self) -> usize {
        self.kept.len()
    }

    /// What lies before isn't counted any more.
    #[must_use]
    pub fn horizon(&self, now: Timestamp) -> Timestamp {
        before(now, self.longest())
    }

    fn longest(&self) -> Span {
        self.wanted.values().copied().max().unwrap_or_default()
    }

    /// Takes an event in, if a rule counts it.
    pub fn take(&mut self, event: &Event) {
        self.kept.extend(read(event, &self.wanted));
    }

    /// Forgets what no window reaches any more.
    pub fn prune(&mut self, now: Timestamp) {
        let horizon = self.horizon(now);
        self.kept.retain(|occurrence| occurrence.at >= horizon);
    }

    /// Adds how attempts of a workload ended lately; done anew for each evaluation, from what is kept of the workload.
    pub fn add(&mut self, workload: &Workload, now: Timestamp) {
        let horizon = self.horizon(now);
        for step in workload.timeline.iter().rev().take_while(|step| step.at >= horizon) {
            let Some(reason) = &step.reason else { continue };
            let names = [
                Some(reason.as_str()),
                lifecycle::failed_again(step).then_some(RESTARTED),
            ];
            for name in names
                .into_iter()
                .flatten()
                .filter(|name| self.wanted.contains_key(*name))
            {
                self.kept.push_back(Occurrence {
                    at: step.at,
                    name: name.to_owned(),
                    labels: [
                        ("namespace", workload.namespace.clone()),
                        (label::WORKLOAD, workload.id.to_string()),
                        ("reason", reason.clone()),
                    ]
                    .map(|(name, value)| (name.to_owned(), value))
                    .into(),
                });
            }
        }
    }

    /// How often something happened in a window that ends now, by target: what `target` leaves of the labels.
    #[must_use]
    pub fn count(
        &self,
        event: &str,
        labels: &[Matcher],
        over: Span,
        target: impl Fn(&Labels) -> Labels,
        now: Timestamp,
    ) -> Vec<Series> {
        let since = before(now, over);
        let mut counts: BTreeMap<Labels, u32> = BTreeMap::new();
        let matches = |seen: &&Occurrence| {
            seen.name == event && seen.at >= since && labels.iter().all(|matcher| matcher.matches(&seen.labels))
        };
        for seen in self.kept.iter().filter(matches) {
            *counts.entry(target(&seen.labels)).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|(labels, count)| Series {
                labels,
                reading: Reading::Value {
                    value: f64::from(count),
                    at: now,
                },
            })
            .collect()
    }
}

fn before(now: Timestamp, span: Span) -> Timestamp {
    api::time::before(now, api::Span(span.as_millis()))
}

/// What an event is to rules: its reason, and for facts its family.
fn read(event: &Event, wanted: &BTreeMap<String, Span>) -> Vec<Occurrence> {
    let (family, mut labels) = match &event.fact {
        Some(FactKind::Xid { xid, gpu, uuid, .. }) => (Some(XID), of_gpu("xid", *xid, *gpu, uuid.as_deref())),
        Some(FactKind::NvSwitch { sxid, .. }) => (Some(SXID), of_gpu("sxid", *sxid, None, None)),
        Some(FactKind::AmdGpu { gpu, uuid, .. }) => (None, of_gpu("", 0, *gpu, uuid.as_deref())),
        _ => (None, Labels::new()),
    };
    let names = [Some(event.reason.as_str()), family];
    let names = names.into_iter().flatten().filter(|name| wanted.contains_key(*name));
    let mut more = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            labels.insert(name.to_owned(), value.clone());
        }
    };
    more(label::NODE, &event.node);
    more("namespace", &event.namespace);
    more("kind", &Some(event.kind.clone()));
    if event.kind == "workload" {
        more(label::WORKLOAD, &Some(event.subject.clone()));
    }
    names
        .map(|name| Occurrence {
            at: event.at,
            name: name.to_owned(),
            labels: labels.clone(),
        })
        .collect()
}

fn of_gpu(code: &str, number: u32, gpu: Option<api::GpuIndex>, uuid: Option<&str>) -> Labels {
    let pairs = [
        (code, (!code.is_empty()).then(|| number.to_string())),
        (label::GPU, gpu.map(|gpu| gpu.to_string())),
        (label::UUID, uuid.map(str::to_owned)),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use api::{event::Severity, workload::Phase};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn recent() -> Recent {
        Recent::new(&RuleSet::built_in().unwrap())
    }

    fn event(reason: &str, second: i64, fact: Option<FactKind>) -> Event {
        Event {
            id: String::new(),
            at: at(second),
            kind: "node".to_owned(),
            subject: "gpu-7".to_owned(),
            namespace: None,
            node: Some("gpu-7".to_owned()),
            reason: reason.to_owned(),
            message: String::new(),
            actor: "node:gpu-7".to_owned(),
            severity: Severity::Error,
            fact,
        }
    }

    fn xid(xid: u32) -> Option<FactKind> {
        Some(FactKind::Xid {
            xid,
            pci: "0000:3b:00.0".to_owned(),
            gpu: Some(2),
            uuid: Some("GPU-aa".to_owned()),
            pid: None,
        })
    }

    fn total(series: &[Series]) -> f64 {
        let value = |series: &Series| match series.reading {
            Reading::Value { value, .. } => value,
            _ => 0.0,
        };
        series.iter().map(value).sum()
    }

    #[test]
    fn xids_are_counted_by_gpu_and_number() {
        let mut recent = recent();
        recent.take(&event("Xid79", 0, xid(79)));
        recent.take(&event("Xid31", 1, xid(31)));
        recent.take(&event("Xid95", 1, xid(95)));
        recent.take(&event("Online", 2, None));
        assert_eq!(recent.kept.len(), 3, "what no rule counts isn't kept");
        let of_gpu = |labels: &Labels| {
            RuleSet::built_in()
                .unwrap()
                .get("gpu-xid-critical")
                .unwrap()
                .target(labels)
        };
        let fatal: Vec<Matcher> = vec!["xid=~79|95".parse().unwrap()];
        let seen = recent.count("Xid", &fatal, Span::hours(1), of_gpu, at(60));
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].labels["node"], "gpu-7");
        assert_eq!(seen[0].labels["gpu"], "2");
        assert_eq!(seen[0].labels["uuid"], "GPU-aa");
        assert_eq!(total(&seen), 2.0, "two kinds of one GPU are added up");
        assert!(
            recent
                .count("Xid", &fatal, Span::hours(1), of_gpu, at(3_602))
                .is_empty()
        );
        recent.prune(at(3_601));
        assert_eq!(recent.kept.len(), 2);
    }

    #[test]
    fn ends_of_attempts_are_counted_by_workload() {
        let asked = r#"{"name":"a","spec":{"image":"host","command":["true"]}}"#;
        let submission = serde_json::from_str(asked).unwrap();
        let mut workload = crate::decide::submit::workload(submission, 7, "ann", at(0)).unwrap();
        let step = |second, phase, reason: &str| api::workload::Transition {
            at: at(second),
            phase,
            attempt: 1,
            reason: Some(reason.to_owned()),
            message: None,
            actor: "node:a".to_owned(),
        };
        workload.timeline.push(step(10, Phase::Pending, "OOM_KILLED"));
        workload.timeline.push(step(20, Phase::Pending, "PREEMPTED"));
        workload.timeline.push(step(30, Phase::Failed, "OOM_KILLED"));
        let mut recent = recent();
        recent.add(&workload, at(60));
        let oom = recent.count("OOM_KILLED", &[], Span::hours(1), Clone::clone, at(60));
        assert_eq!((oom.len(), total(&oom)), (1, 2.0));
        assert_eq!(oom[0].labels["workload"], workload.id.as_str());
        assert_eq!(
            total(&recent.count("Restarted", &[], Span::minutes(15), Clone::clone, at(60))),
            1.0
        );
    }
}
