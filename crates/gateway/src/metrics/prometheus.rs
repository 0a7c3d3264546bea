//! The store's series as Prometheus knows them: under the names, labels and units of `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    exposition,
    metric::{self, Kind, Metric, OWN_PREFIX, label},
};
use telemetry::{
    metrics::{Aggregate, Labels, Matcher, MetricError, MetricStore, NAME_LABEL, Series},
    promql::Source,
};

use super::Metrics;

/// What single samples become when they are too old to be kept.
const COARSE_MS: i64 = 300_000;

/// All series under Prometheus' names.
///
/// Of times of which no single samples are left, five-minute values stand for them: means, and of counters the largest.
pub struct Named<'a> {
    store: &'a MetricStore,
    names: Vec<Name>,
    /// Since when single samples are kept, where there is anything older.
    raw_from_ms: Option<i64>,
}

/// A metric's names, and what is told of it.
#[derive(Debug, Clone)]
pub struct Name {
    stored: String,
    metric: Option<&'static Metric>,
    /// Its name in Prometheus' format.
    pub shown: String,
    /// How it moves.
    pub kind: Kind,
    /// One sentence.
    pub help: String,
}

/// What a label of Prometheus' is in the store.
enum Stored<'a> {
    Label(&'a str),
    /// No series of the metric has it.
    Never,
    /// One of several: only the series themselves tell.
    Unsure,
}

impl Name {
    fn of(stored: String, metrics: &Metrics) -> Option<Self> {
        if let Some(metric) = metric::find(&stored) {
            return Some(Self {
                shown: metric.prometheus.to_owned(),
                kind: metric.kind,
                help: metric.help.to_owned(),
                metric: Some(metric),
                stored,
            });
        }
        if !stored.starts_with(OWN_PREFIX) {
            return None;
        }
        let told = metrics.own().get(&stored).cloned();
        let kind = told.as_ref().map_or(Kind::Gauge, |told| told.kind);
        Some(Self {
            shown: exposition::own_name(&stored, kind),
            help: exposition::own_help(told.and_then(|told| told.unit).as_deref()),
            metric: None,
            kind,
            stored,
        })
    }

    fn stored_label<'a>(&self, shown: &'a str) -> Stored<'a> {
        let renamed = [label::UUID, label::NODE].into_iter();
        let mut labels = renamed.chain([shown]);
        match labels.find(|stored| exposition::label_name(self.metric, stored) == shown) {
            // What can't be in a label becomes `_`: there may be several that are shown as this.
            Some(_) | None if self.metric.is_none() && shown.contains('_') => Stored::Unsure,
            Some(stored) => Stored::Label(stored),
            None => Stored::Never,
        }
    }

    fn scale(&self) -> f64 {
        self.metric.map_or(1.0, |metric| metric.prometheus_scale)
    }

    fn show(&self, labels: Labels) -> Labels {
        let labels = labels.labels.into_iter();
        let mut labels: Vec<(String, String)> = labels
            .map(|(name, value)| (exposition::label_name(self.metric, &name).into_owned(), value))
            .collect();
        labels.sort();
        Labels {
            name: self.shown.clone(),
            labels,
        }
    }
}

impl<'a> Named<'a> {
    /// Over all of them.
    #[must_use]
    pub fn new(metrics: &'a Metrics) -> Self {
        let names = metrics.store.names().into_iter();
        let usage = metrics.store.usage();
        let raw_from_ms = usage.oldest_raw_ms.unwrap_or(i64::MAX);
        let older = usage
            .oldest_ms
            .is_some_and(|oldest| oldest.saturating_add(COARSE_MS) <= raw_from_ms);
        Self {
            store: &metrics.store,
            names: names.filter_map(|(name, _)| Name::of(name, metrics)).collect(),
            raw_from_ms: older.then_some(raw_from_ms),
        }
    }

    /// Names of all metrics.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    /// Names of labels of any series, sorted.
    #[must_use]
    pub fn label_names(&self) -> BTreeSet<String> {
        let stored = self.store.label_names();
        let shown = self.kinds().into_iter().flat_map(|of| {
            let stored = stored.iter().filter(|label| label.as_str() != NAME_LABEL);
            stored.map(move |label| exposition::label_name(of, label).into_owned())
        });
        shown.chain([NAME_LABEL.to_owned()]).collect()
    }

    /// Values of a label of any series, sorted.
    #[must_use]
    pub fn label_values(&self, shown: &str) -> BTreeSet<String> {
        if shown == NAME_LABEL {
            return self.names.iter().map(|name| name.shown.clone()).collect();
        }
        let kinds = self.kinds();
        let stored = self.store.label_names().into_iter();
        let meant = stored.filter(|label| kinds.iter().any(|of| exposition::label_name(*of, label) == shown));
        let values = meant.flat_map(|label| self.store.label_values(&label));
        values.map(|(value, _)| value).collect()
    }

    /// One metric of each way of naming labels.
    fn kinds(&self) -> Vec<Option<&'static Metric>> {
        let dcgm = self.names.iter().find(|name| name.metric.is_some_and(Metric::dcgm));
        let other = self.names.iter().find(|name| !name.metric.is_some_and(Metric::dcgm));
        dcgm.into_iter().chain(other).map(|name| name.metric).collect()
    }

    /// Labels of the series that pass all matchers and have samples from `from_ms` to `to_ms`, both included.
    ///
    /// # Errors
    /// Those of the store.
    pub fn series(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Labels>, MetricError> {
        let mut found = Vec::new();
        let end_ms = to_ms.saturating_add(1);
        for (name, stored, late) in self.meant(matchers) {
            let whole = end_ms.saturating_sub(from_ms).max(1);
            let counted = self.store.windows(&stored, from_ms, end_ms, whole, Aggregate::Count)?;
            let labels = counted.series.into_iter().map(|one| name.show(one.labels));
            found.extend(labels.filter(|labels| passes(labels, &late)));
        }
        Ok(found)
    }

    /// The metrics that matchers mean, with their conditions in the store's words, and those that can only be told
    /// from the labels as shown.
    fn meant(&self, matchers: &[Matcher]) -> Vec<(&Name, Vec<Matcher>, Vec<Matcher>)> {
        let (of_name, of_labels): (Vec<&Matcher>, Vec<&Matcher>) =
            matchers.iter().partition(|matcher| matcher.label() == NAME_LABEL);
        let mut meant = Vec::new();
        'names: for name in &self.names {
            if !of_name.iter().all(|matcher| matcher.matches(&name.shown)) {
                continue;
            }
            let (mut stored, mut late) = (vec![Matcher::name(&name.stored)], Vec::new());
            for matcher in &of_labels {
                match name.stored_label(matcher.label()) {
                    Stored::Label(label) => stored.push(matcher.on(label)),
                    Stored::Unsure => late.push((*matcher).clone()),
                    Stored::Never if matcher.matches("") => {}
                    Stored::Never => continue 'names,
                }
            }
            meant.push((name, stored, late));
        }
        meant
    }

    /// Five-minute values of a time of which nothing else is left, each at the end of its five minutes.
    fn coarse(&self, name: &Name, stored: &[Matcher], from_ms: i64, end_ms: i64) -> Result<Vec<Series>, MetricError> {
        let from_ms = from_ms.div_euclid(COARSE_MS) * COARSE_MS;
        let aggregate = match name.kind {
            Kind::Gauge => Aggregate::Avg,
            Kind::Counter => Aggregate::Max,
        };
        let mut series = self
            .store
            .windows(stored, from_ms, end_ms, COARSE_MS, aggregate)?
            .series;
        for point in series.iter_mut().flat_map(|one| &mut one.points) {
            point.0 += COARSE_MS - 1;
        }
        Ok(series)
    }

    fn read(&self, name: &Name, stored: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        let Some(raw_from_ms) = self.raw_from_ms.filter(|raw| *raw > from_ms) else {
            return self.store.select(stored, from_ms, to_ms);
        };
        let mut by_labels: BTreeMap<Labels, Vec<(i64, f64)>> = BTreeMap::new();
        let end_ms = raw_from_ms.min(to_ms.saturating_add(1));
        for mut one in self.coarse(name, stored, from_ms, end_ms)? {
            one.points.retain(|(at, _)| *at >= from_ms && *at < end_ms);
            by_labels.insert(one.labels, one.points);
        }
        if raw_from_ms <= to_ms {
            for one in self.store.select(stored, raw_from_ms, to_ms)? {
                by_labels.entry(one.labels).or_default().extend(one.points);
            }
        }
        let series = by_labels.into_iter().map(|(labels, points)| Series { labels, points });
        Ok(series.collect())
    }
}

impl Source for Named<'_> {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        let mut found = Vec::new();
        for (name, stored, late) in self.meant(matchers) {
            let scale = name.scale();
            for one in self.read(name, &stored, from_ms, to_ms)? {
                let labels = name.show(one.labels);
                if !passes(&labels, &late) {
                    continue;
                }
                let mut points = one.points;
                for point in &mut points {
                    point.1 *= scale;
                }
                found.push(Series { labels, points });
            }
        }
        Ok(found)
    }
}

fn passes(labels: &Labels, matchers: &[Matcher]) -> bool {
    let value = |label: &str| labels.get(label).unwrap_or_default();
    matchers.iter().all(|matcher| matcher.matches(value(matcher.label())))
}

#[cfg(test)]
mod tests {
    use telemetry::metrics::{Options, Sample};

    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn metrics(folder: &tempfile::TempDir, of: &[(&str, Pairs<'_>, f64)]) -> Metrics {
        let options = Options {
            clock: std::sync::Arc::new(|| 2_000),
            ..Options::default()
        };
        let metrics = Metrics::new(MetricStore::open(folder.path(), options).unwrap());
        for (name, labels, value) in of {
            let series = metrics.store.series(name, labels).unwrap();
            let value = *value;
            metrics
                .store
                .append(&[Sample {
                    series,
                    at_ms: 1_000,
                    value,
                }])
                .unwrap();
        }
        metrics
    }

    fn found(metrics: &Metrics, matchers: &[Matcher]) -> Vec<(Labels, f64)> {
        let found = Named::new(metrics).select(matchers, 0, 2_000).unwrap().into_iter();
        found.map(|s| (s.labels, s.points[0].1)).collect()
    }

    #[test]
    fn names_labels_and_units_are_those_of_the_exposition() {
        let folder = tempfile::tempdir().unwrap();
        let gpu: &[(&str, &str)] = &[("gpu", "0"), ("model", "L4"), ("node", "a"), ("uuid", "U")];
        let metrics = metrics(
            &folder,
            &[
                ("gpu.memory", gpu, 1_048_576.0),
                ("cpu.usage", &[("node", "a")], 50.0),
                ("custom.train/loss", &[("a-b", "1"), ("workload", "w")], 0.5),
                ("no.such", &[], 1.0),
            ],
        );
        let all = found(&metrics, &[]);
        let names: Vec<(&str, f64)> = all
            .iter()
            .map(|(labels, value)| (labels.name.as_str(), *value))
            .collect();
        let expected = [
            ("clawbernetes_node_cpu_usage_ratio", 0.5),
            ("clawbernetes_custom_train_loss", 0.5),
            ("DCGM_FI_DEV_FB_USED", 1.0),
        ];
        assert_eq!(names, expected);
        let of_gpu: Vec<&str> = all[2].0.labels.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(of_gpu, ["Hostname", "UUID", "gpu", "model"]);

        let count = |matchers: &[Matcher]| found(&metrics, matchers).len();
        assert_eq!(
            count(&[
                Matcher::re(NAME_LABEL, "DCGM_.*").unwrap(),
                Matcher::eq("Hostname", "a")
            ]),
            1
        );
        assert_eq!(
            count(&[Matcher::eq("node", "a")]),
            1,
            "a GPU's node goes by another name"
        );
        assert_eq!(count(&[Matcher::eq("node", "")]), 2);
        assert_eq!(count(&[Matcher::eq("uuid", "U")]), 0);
        assert_eq!(count(&[Matcher::eq("a_b", "1")]), 1);
        assert_eq!(count(&[Matcher::ne("a_b", "1")]), 2);
        assert_eq!(count(&[Matcher::eq("a-b", "1")]), 0);
        assert_eq!(count(&[Matcher::name("gpu.memory")]), 0);

        let named = Named::new(&metrics);
        let labels = [
            "Hostname", "UUID", "__name__", "a_b", "gpu", "model", "node", "uuid", "workload",
        ];
        assert_eq!(named.label_names().into_iter().collect::<Vec<_>>(), labels);
        assert_eq!(named.label_values("Hostname").into_iter().collect::<Vec<_>>(), ["a"]);
        let listed = named.series(&[Matcher::eq("a_b", "1")], 0, 2_000).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(named.series(&[], 1_500, 2_000).unwrap(), []);
    }
}
