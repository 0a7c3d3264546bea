//! Prometheus' text format, version 0.0.4: what `/metrics` answers.
//!
//! Families are written in the order of their names, each with its `HELP` and `TYPE`. Values that aren't known aren't
//! there. What is written passes `promtool check metrics`.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write};

use crate::metric::{self, Kind, Metric, OWN_PREFIX, label};

/// The content type of what [`Exposition::finish`] gives.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Collects samples and writes them, family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
}

#[derive(Debug)]
struct Family {
    help: Cow<'static, str>,
    kind: &'static str,
    samples: String,
}

impl Exposition {
    /// Adds a value of the catalogue, in the catalogue's unit.
    pub fn metric<'a>(&mut self, metric: &Metric, labels: impl IntoIterator<Item = (&'a str, &'a str)>, value: f64) {
        let labels = labels
            .into_iter()
            .map(|(name, value)| (if metric.dcgm() { dcgm_label(name) } else { name }, value));
        let value = value * metric.prometheus_scale;
        self.add(
            metric.prometheus,
            Cow::Borrowed(metric.help),
            metric.kind,
            labels,
            value,
        );
    }

    /// Adds a value of a workload's own metric, `custom.…`, as `clawbernetes_custom_…`.
    pub fn own<'a>(
        &mut self,
        name: &str,
        unit: Option<&str>,
        kind: Kind,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        let full = own_name(name, kind);
        self.add(&full, Cow::Owned(own_help(unit)), kind, labels, value);
    }

    /// Adds a value of a series as it is on the wire: of the catalogue, or a workload's own. One of neither isn't
    /// added.
    pub fn series<'a>(
        &mut self,
        name: &str,
        unit: Option<&str>,
        kind: Option<Kind>,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        if let Some(metric) = metric::find(name) {
            self.metric(metric, labels, value);
        } else if name.starts_with(OWN_PREFIX) {
            self.own(name, unit, kind.unwrap_or(Kind::Gauge), labels, value);
        }
    }

    /// Adds a value under any name that Prometheus accepts.
    pub fn add<'a>(
        &mut self,
        name: &str,
        help: Cow<'static, str>,
        kind: Kind,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
    ) {
        // One that goes by DCGM's name and has no `_total` is refused as a counter by promtool.
        let kind = match kind {
            Kind::Counter if !name.ends_with("_total") => "untyped",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        if !self.families.contains_key(name) {
            let samples = String::new();
            self.families.insert(name.to_owned(), Family { help, kind, samples });
        }
        let Some(family) = self.families.get_mut(name) else {
            return;
        };
        let text = &mut family.samples;
        text.push_str(name);
        let mut open = '{';
        for (label, value) in labels {
            text.push(open);
            open = ',';
            text.push_str(&fitting(label, false));
            text.push_str("=\"");
            escape(text, value, true);
            text.push('"');
        }
        if open == ',' {
            text.push('}');
        }
        text.push(' ');
        number(text, value);
        text.push('\n');
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = String::new();
        for (name, family) in self.families {
            let _ = write!(text, "# HELP {name} ");
            escape(&mut text, &family.help, false);
            let _ = writeln!(text, "\n# TYPE {name} {}", family.kind);
            text.push_str(&family.samples);
        }
        text
    }
}

/// What is told of a workload's own metric.
#[must_use]
pub fn own_help(unit: Option<&str>) -> String {
    match unit {
        Some(unit) => format!("Reported by workloads, in {unit}."),
        None => "Reported by workloads.".to_owned(),
    }
}

/// The name in Prometheus' format of a workload's own metric.
#[must_use]
pub fn own_name(name: &str, kind: Kind) -> String {
    let own = name.strip_prefix(OWN_PREFIX).unwrap_or(name);
    let own = own.strip_suffix("_total").unwrap_or(own);
    let total = if kind == Kind::Counter { "_total" } else { "" };
    format!("clawbernetes_custom_{}{total}", fitting(own, true))
}

/// What a label of a series is called in Prometheus' format. `metric`: `None` for a workload's own.
#[must_use]
pub fn label_name<'a>(metric: Option<&Metric>, label: &'a str) -> Cow<'a, str> {
    match metric {
        Some(metric) if metric.dcgm() => fitting(dcgm_label(label), false),
        _ => fitting(label, false),
    }
}

/// A label as dcgm-exporter calls it; but for its `modelName`, which promtool refuses.
fn dcgm_label(name: &str) -> &str {
    match name {
        label::UUID => "UUID",
        label::NODE => "Hostname",
        other => other,
    }
}

/// A name with `_` for what Prometheus doesn't accept in it; names of metrics may have colons.
fn fitting(name: &str, colons: bool) -> Cow<'_, str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    if name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        return Cow::Borrowed(name);
    }
    let mut made: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if made.starts_with(|c: char| c.is_ascii_digit()) {
        made.insert(0, '_');
    }
    Cow::Owned(made)
}

fn escape(text: &mut String, value: &str, quotes: bool) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            c => text.push(c),
        }
    }
}

fn number(text: &mut String, value: f64) {
    if value.is_nan() {
        text.push_str("NaN");
    } else if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(text, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::CATALOGUE;

    /// All of the catalogue, and names and labels that need care.
    fn everything() -> String {
        let mut exposition = Exposition::default();
        for metric in CATALOGUE {
            exposition.metric(
                metric,
                [("gpu", "0"), ("uuid", "GPU-1"), ("model", "H100"), ("node", "a")],
                42.0,
            );
        }
        exposition.own(
            "custom.train/loss",
            None,
            Kind::Gauge,
            [("a-b", "say \"hi\"\\\n")],
            0.25,
        );
        exposition.own("custom.tokens", Some("tokens"), Kind::Counter, [], 1e21);
        exposition.finish()
    }

    #[test]
    fn families_are_written_once_and_escaped() {
        let text = everything();
        assert!(text.contains(
            "# HELP DCGM_FI_DEV_GPU_TEMP Core temperature.\n# TYPE DCGM_FI_DEV_GPU_TEMP gauge\n\
             DCGM_FI_DEV_GPU_TEMP{gpu=\"0\",UUID=\"GPU-1\",model=\"H100\",Hostname=\"a\"} 42\n"
        ));
        assert!(text.contains("clawbernetes_custom_train_loss{a_b=\"say \\\"hi\\\"\\\\\\n\"} 0.25\n"));
        assert!(text.contains("# TYPE clawbernetes_custom_tokens_total counter\n"));
        assert!(text.contains("clawbernetes_custom_tokens_total 1000000000000000000000\n"));
        assert!(
            text.contains(
                "clawbernetes_node_cpu_usage_ratio{gpu=\"0\",uuid=\"GPU-1\",model=\"H100\",node=\"a\"} 0.42\n"
            )
        );
    }

    #[test]
    fn what_is_no_metric_is_left_out() {
        let mut exposition = Exposition::default();
        exposition.series("no.such", None, None, [], 1.0);
        assert_eq!(exposition.finish(), "");
    }

    /// Skipped where promtool isn't installed; `scripts/test` installs it.
    #[test]
    fn promtool_is_content() {
        use std::{
            io::Write as _,
            process::{Command, Stdio},
        };
        let child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            eprintln!("skipped: there is no promtool");
            return;
        };
        let mut input = child.stdin.take().unwrap();
        input.write_all(everything().as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
    }
}
