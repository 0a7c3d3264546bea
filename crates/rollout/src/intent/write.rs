//! The canonical sentence of an intent: what a plan shows as understood, and the form that a language model is asked
//! to write. Reading it gives the intent back.

use std::fmt::{self, Write};

use api::{
    Cpu, Size,
    deploy::{Comparison, Condition, Load, Signal},
};

use super::{Amount, Batch, Care, Intent, Verb, When, moment, token::quoted, value};

impl Verb {
    /// The verb.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Update => "update",
            Self::Scale => "scale",
            Self::Rollback => "rollback",
            Self::Abort => "abort",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb.name(), name(&self.target))?;
        if let Some(version) = &self.from_version {
            write!(f, " from {}", versioned(version))?;
        }
        match (&self.version, &self.back_to) {
            (Some(version), _) if value::looks_like_version(version) && self.from_version.is_none() => {
                write!(f, " {version}")?
            }
            (Some(version), _) | (None, Some(version)) => write!(f, " to {}", versioned(version))?,
            (None, None) => {}
        }
        match self.replicas {
            Some(Amount::To(count)) if self.verb == Verb::Scale => write!(f, " to {count} {}", replicas(count))?,
            _ => {}
        }
        let mut clauses = Vec::new();
        self.clauses(&mut clauses)?;
        for clause in clauses {
            write!(f, ", {clause}")?;
        }
        Ok(())
    }
}

impl Intent {
    fn clauses(&self, to: &mut Vec<String>) -> fmt::Result {
        if self.batch_job {
            to.push("as a batch job".to_owned());
        }
        if let Some(image) = &self.image {
            to.push(format!("image {}", quoted(image)));
        }
        if !self.command.is_empty() {
            let joined = shlex::try_join(self.command.iter().map(String::as_str)).map_err(|_| fmt::Error)?;
            to.push(format!("command {}", quoted(&joined)));
        }
        match self.replicas {
            Some(Amount::To(count)) if self.verb != Verb::Scale => to.push(format!("{count} {}", replicas(count))),
            Some(Amount::More(count)) => to.push(format!("{count} more {}", replicas(count))),
            Some(Amount::Fewer(count)) => to.push(format!("{count} fewer {}", replicas(count))),
            Some(Amount::Times(factor)) => to.push(format!("replicas times {factor}")),
            Some(Amount::To(_)) | None => {}
        }
        match (self.min_replicas, self.max_replicas) {
            (Some(min), Some(max)) => to.push(format!("between {min} and {max} replicas")),
            (Some(min), None) => to.push(format!("at least {min} {}", replicas(min))),
            (None, Some(max)) => to.push(format!("at most {max} {}", replicas(max))),
            (None, None) => {}
        }
        if let Some((load, target)) = &self.follow {
            to.push(match load {
                Load::Cpu => format!("autoscale on cpu {target}%"),
                Load::Gpu => format!("autoscale on gpu {target}%"),
                Load::RequestRate => format!("autoscale on {target} requests per second"),
                Load::Queue => format!("autoscale on queue {target}"),
            });
        }
        self.gpu_clause(to);
        match self.memory {
            Some(Amount::To(memory)) => to.push(format!("memory {}", size(memory))),
            Some(Amount::More(memory)) => to.push(format!("{} more memory", size(memory))),
            Some(Amount::Fewer(memory)) => to.push(format!("{} less memory", size(memory))),
            Some(Amount::Times(factor)) => to.push(format!("memory times {factor}")),
            None => {}
        }
        match self.cpu {
            Some(Amount::To(cpu)) => to.push(format!("{cpu} {}", cpus(cpu))),
            Some(Amount::More(cpu)) => to.push(format!("{cpu} more {}", cpus(cpu))),
            Some(Amount::Fewer(cpu)) => to.push(format!("{cpu} fewer {}", cpus(cpu))),
            Some(Amount::Times(factor)) => to.push(format!("cpu times {factor}")),
            None => {}
        }
        to.extend(self.priority.map(|priority| format!("priority {}", priority.name())));
        to.extend(self.timeout.map(|timeout| format!("timeout {timeout}")));
        if !self.env.is_empty() {
            let all: Vec<String> = self
                .env
                .iter()
                .map(|var| format!("{}={}", var.name, quoted(&var.value)))
                .collect();
            to.push(format!("env {}", all.join(" ")));
        }
        to.extend(self.port.map(|port| format!("port {port}")));
        to.extend(
            self.namespace
                .as_deref()
                .map(|namespace| format!("in namespace {}", place(namespace))),
        );
        self.strategy_clauses(to)?;
        to.extend(self.care.map(|care| {
            match care {
                Care::Safely => "safely",
                Care::Slowly => "slowly",
                Care::Quickly => "quickly",
                Care::Emergency => "emergency",
            }
            .to_owned()
        }));
        match &self.when {
            Some(When::At { time, zone }) => to.push(moment::canonical(*time, zone)),
            Some(When::After(id)) => to.push(format!("after {id}")),
            None => {}
        }
        to.extend(
            self.reason
                .as_deref()
                .map(|reason| format!("because {}", quoted(reason))),
        );
        Ok(())
    }

    fn gpu_clause(&self, to: &mut Vec<String>) {
        let mut words = match self.gpus {
            Some(Amount::To(0)) => {
                to.push("no GPUs".to_owned());
                return;
            }
            Some(Amount::To(count)) => vec![count.to_string()],
            Some(Amount::More(count)) => vec![count.to_string(), "more".to_owned()],
            Some(Amount::Fewer(count)) => vec![count.to_string(), "fewer".to_owned()],
            Some(Amount::Times(factor)) => {
                to.push(format!("GPUs times {factor}"));
                Vec::new()
            }
            None => Vec::new(),
        };
        words.extend(self.gpu_model.clone());
        words.extend(self.gpu_memory.map(size));
        if !words.is_empty() {
            words.push(
                if matches!(self.gpus, Some(Amount::To(1) | Amount::More(1) | Amount::Fewer(1))) {
                    "GPU"
                } else {
                    "GPUs"
                }
                .to_owned(),
            );
            to.push(words.join(" "));
        }
    }

    fn strategy_clauses(&self, to: &mut Vec<String>) -> fmt::Result {
        let mut text = String::new();
        match self.strategy {
            Some(strategy) => write!(text, "{strategy}")?,
            None if !self.canary_steps.is_empty() => text.push_str("canary"),
            None => {}
        }
        for (i, step) in self.canary_steps.iter().enumerate() {
            write!(text, "{} {step}%", if i == 0 { "" } else { " then" })?;
        }
        if !text.is_empty() {
            to.push(text);
        }
        match self.batch {
            Some(Batch::Count(count)) => to.push(format!("{count} at a time")),
            Some(Batch::Percent(percent)) => to.push(format!("{percent}% at a time")),
            Some(Batch::Fewer(count)) => to.push(format!("max unavailable {count}")),
            Some(Batch::FewerPercent(percent)) => to.push(format!("max unavailable {percent}%")),
            None => {}
        }
        to.extend(
            self.pause_between
                .map(|pause| format!("waiting {pause} between batches")),
        );
        to.extend(self.keep_old_for.map(|span| format!("keep the old one for {span}")));
        if self.promote_by_hand {
            to.push("promote by hand".to_owned());
        }
        if self.promote_after.is_some() || !self.promote_if.is_empty() {
            let mut text = "promote".to_owned();
            if let Some(after) = self.promote_after {
                write!(text, " after {after}")?;
            }
            if !self.promote_if.is_empty() {
                write!(text, " if {}", joined(&self.promote_if, " and "))?;
            }
            to.push(text);
        }
        if !self.rollback_if.is_empty() {
            to.push(format!("rollback if {}", joined(&self.rollback_if, " or ")));
        }
        Ok(())
    }
}

fn joined(conditions: &[Condition], by: &str) -> String {
    conditions.iter().map(condition).collect::<Vec<_>>().join(by)
}

/// A condition as it is said: `p99 latency > 200ms for 5m`.
#[must_use]
pub fn condition(condition: &Condition) -> String {
    let Condition {
        metric,
        operator,
        threshold,
        window,
    } = condition;
    let sign = operator.sign();
    let mut text = match metric {
        Signal::ErrorRate => format!("errors {sign} {}%", (threshold * 1e9).round() / 1e7),
        Signal::Latency { percentile } => format!("p{percentile} latency {sign} {}", seconds(*threshold)),
        Signal::RequestRate => format!("request rate {sign} {threshold}"),
        Signal::Healthy if *operator == Comparison::Below => "unhealthy".to_owned(),
        Signal::Healthy => "healthy".to_owned(),
        Signal::Restarts => format!("restarts {sign} {threshold}"),
        Signal::Metric { name } => format!("metric {} {sign} {threshold}", quoted(name)),
        Signal::Query { promql } => format!("query {} {sign} {threshold}", quoted(promql)),
    };
    if let Some(window) = window {
        let _ = write!(text, " for {window}");
    }
    text
}

/// A time to answer: whole milliseconds are all that is told apart.
fn seconds(seconds: f64) -> String {
    api::Span((seconds * 1000.0).round() as u64).to_string()
}

fn name(name: &str) -> String {
    if value::plain_name(name) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// A namespace: what is called like an environment needs no quotes beside its noun.
fn place(namespace: &str) -> String {
    if super::words::ENVIRONMENTS.contains(&namespace) {
        namespace.to_owned()
    } else {
        name(namespace)
    }
}

fn versioned(version: &str) -> String {
    if value::looks_like_version(version) {
        version.to_owned()
    } else {
        format!("version {}", quoted(version))
    }
}

const fn replicas(count: u32) -> &'static str {
    if count == 1 { "replica" } else { "replicas" }
}

const fn cpus(cpu: Cpu) -> &'static str {
    if cpu.0 == 1000 { "cpu" } else { "cpus" }
}

/// A size in the largest unit that it is a whole number of: nothing is rounded.
fn size(size: Size) -> String {
    const UNITS: [(&str, u64); 8] = [
        ("Ti", 1 << 40),
        ("TB", 1_000_000_000_000),
        ("Gi", 1 << 30),
        ("GB", 1_000_000_000),
        ("Mi", 1 << 20),
        ("MB", 1_000_000),
        ("Ki", 1 << 10),
        ("kB", 1_000),
    ];
    match UNITS
        .iter()
        .find(|(_, factor)| size.0 >= *factor && size.0.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", size.0 / factor),
        None => format!("{}B", size.0),
    }
}
