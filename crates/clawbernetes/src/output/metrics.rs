//! Metrics: a chart where there is a terminal, and a table of the series.

use std::collections::BTreeMap;

use api::{
    Size,
    metric::{Aggregate, label},
    op::{MetricInfo, MetricSeries, MetricsAnswer, MetricsUsage, Resolution},
    time,
};
use serde::{Serialize, Serializer};

use super::{
    Grid, Page, Render,
    cells::{ago, or_dash, size, span_of},
    chart::{self, Lines},
};

/// Lines of a chart: more can't be told apart.
const LINES: usize = 6;

/// An answer about metrics, to be shown.
pub(crate) struct MetricsShown(pub(crate) MetricsAnswer);

impl Serialize for MetricsShown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Render for MetricsShown {
    fn render(&self, page: &mut Page) {
        let answer = &self.0;
        let unit = answer.unit.as_str();
        let mut title = format!(
            "{}, {} over {}, a point each {}",
            answer.metric,
            answer.aggregate.function.name(),
            span_of(time::between(answer.from, answer.to)),
            span_of(answer.step),
        );
        if answer.resolution == Resolution::FiveMinutes {
            title.push_str(" (from five-minute values)");
        }
        page.line(title);
        page.line(format!(
            "{} of all: {}",
            answer.aggregate.function.name(),
            value(answer.aggregate.value, unit)
        ));
        for note in &answer.notes {
            page.line(format!("note: {note}"));
        }
        if let Some(width) = page.view.width
            && !answer.series.is_empty()
        {
            page.line("");
            let text = draw(answer, width, page);
            page.text.push_str(&text);
        }
        if answer.series.is_empty() {
            return;
        }
        page.heading("SERIES");
        let telling = telling(&answer.series);
        let percentile = matches!(answer.aggregate.function, Aggregate::P95 | Aggregate::P99);
        let mut header: Vec<String> = telling.iter().map(|l| l.to_uppercase()).collect();
        if header.is_empty() {
            header.push("SERIES".to_owned());
        }
        header.extend(["MIN", "AVG", "MAX"].map(str::to_owned));
        if percentile {
            header.push(answer.aggregate.function.name().to_uppercase());
        }
        header.push("LAST".to_owned());
        let mut grid = Grid::new(header);
        for series in &answer.series {
            let mut row: Vec<String> = telling
                .iter()
                .map(|l| or_dash(series.labels.get(l).cloned().unwrap_or_default()))
                .collect();
            if row.is_empty() {
                row.push(answer.metric.clone());
            }
            row.extend([series.min, series.avg, series.max].map(|v| value(v, unit)));
            if percentile {
                row.push(value(series.value, unit));
            }
            row.push(value(series.last, unit));
            grid.row(row);
        }
        page.grid(&grid);
        if answer.left_out > 0 {
            page.line(format!(
                "... and {} more: --limit, --node, --workload, or --json",
                answer.left_out
            ));
        }
    }

    fn names(&self) -> Vec<String> {
        let telling = telling(&self.0.series);
        let name = |series: &MetricSeries| {
            let labels = telling
                .iter()
                .filter_map(|l| series.labels.get(l).map(|v| format!("{l}={v}")));
            labels.collect::<Vec<_>>().join(",")
        };
        self.0.series.iter().map(name).collect()
    }
}

/// Labels that a person wants to see: those that differ, without the long names of what has a short one.
fn telling(series: &[MetricSeries]) -> Vec<String> {
    let mut values: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for series in series {
        for (name, value) in &series.labels {
            values.entry(name).or_default().push(value);
        }
    }
    let hidden = |name: &str| matches!(name, label::UUID | label::MODEL);
    let always = |name: &str| name == label::NODE || name == label::GPU;
    let differs = |seen: &[&str]| seen.len() < series.len() || seen.iter().any(|v| *v != seen[0]);
    let mut telling: Vec<String> = values
        .into_iter()
        .filter(|(name, seen)| !hidden(name) && (always(name) || differs(seen)))
        .map(|(name, _)| name.to_owned())
        .collect();
    // The node first, then its part.
    telling.sort_by_key(|name| match name.as_str() {
        label::NODE => 0,
        label::GPU => 1,
        _ => 2,
    });
    telling
}

fn draw(answer: &MetricsAnswer, width: u16, page: &Page) -> String {
    let second = |t: api::Timestamp| t.as_millisecond() as f64 / 1000.0;
    let lines: Vec<Vec<(f64, f64)>> = answer
        .series
        .iter()
        .take(LINES)
        .map(|series| series.points.iter().map(|(t, v)| (second(*t), *v)).collect())
        .collect();
    let middle = time::before(answer.to, api::Span(time::between(answer.from, answer.to).millis() / 2));
    let chart = Lines {
        lines: &lines,
        x: (second(answer.from), second(answer.to)),
        x_labels: [answer.from, middle, answer.to].map(|t| time::relative(t, page.now())),
        y_label: &|y| value(Some(y), &answer.unit),
    };
    chart::draw(&chart, width.min(120), page.view.color)
}

/// A value with its unit; a dash where it isn't known.
pub(crate) fn value(value: Option<f64>, unit: &str) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match unit {
        "percent" => format!("{value:.0}%"),
        "bytes" if value >= 0.0 => size(Some(Size(value as u64))),
        "bytes/s" if value >= 0.0 => format!("{}/s", rate(value)),
        "celsius" => format!("{value:.0}°C"),
        "watts" => format!("{value:.0} W"),
        "megahertz" => format!("{value:.0} MHz"),
        "bits" => format!("0x{:x}", value as u64),
        "" | "count" | "bool" => plain(value),
        other => format!("{} {other}", plain(value)),
    }
}

fn rate(value: f64) -> String {
    let units = ["B", "KB", "MB", "GB", "TB"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    format!("{} {}", plain(scaled), units[unit])
}

/// Three digits that matter.
fn plain(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else if magnitude >= 0.01 {
        format!("{value:.3}")
    } else {
        format!("{value:.2e}")
    }
}

impl Render for Vec<MetricInfo> {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(["NAME", "UNIT", "SERIES", "WHAT IT TELLS"]);
        for metric in self {
            grid.row([
                metric.name.clone(),
                or_dash(metric.unit.clone()),
                metric.series.to_string(),
                metric.help.clone(),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|metric| metric.name.clone()).collect()
    }
}

impl Render for MetricsUsage {
    fn render(&self, page: &mut Page) {
        let bound = self
            .max_bytes
            .map_or_else(|| "no bound".to_owned(), |max| format!("of {}", size(Some(Size(max)))));
        let dropped: u64 = self.dropped.values().sum();
        let reasons: Vec<String> = self
            .dropped
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        page.fields([
            ("Disk", format!("{} {bound}", size(Some(Size(self.disk_bytes))))),
            ("Series", self.series.to_string()),
            ("Oldest", ago(self.oldest, page.now())),
            (
                "Not kept",
                if dropped == 0 {
                    "none".to_owned()
                } else {
                    reasons.join(", ")
                },
            ),
        ]);
    }

    fn names(&self) -> Vec<String> {
        vec!["metrics".to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_carry_their_units() {
        for (v, unit, text) in [
            (93.4, "percent", "93%"),
            (81.0, "celsius", "81°C"),
            (85_899_345_920.0, "bytes", "80Gi"),
            (1_250_000_000.0, "bytes/s", "1.250 GB/s"),
            (400.2, "watts", "400 W"),
            (8.0, "bits", "0x8"),
            (0.0123, "", "0.012"),
            (12.5, "ms", "12.5 ms"),
        ] {
            assert_eq!(value(Some(v), unit), text);
        }
        assert_eq!(value(None, "percent"), "-");
    }
}
