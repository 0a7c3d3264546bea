//! Plans and their parts in a few words.

use api::{
    DeploymentId, Span, Timestamp,
    deploy::{Action, Autoscale, Condition, Load, Plan, Resources, Sample, Schedule, Signal, Strategy},
    time,
};

use super::super::cells::{clock, size, span_of};

/// A number without zeros that say nothing, with at most four decimals.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0" } else { text }.to_owned()
}

/// `12.5%`, of a value in percent.
pub(super) fn percent(value: f64) -> String {
    let text = format!("{value:.2}");
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `1 replica`, `8 replicas`.
pub(super) fn count(n: usize, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}

/// The same for a number of replicas.
pub(crate) fn replicas(n: u32) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX), "replica")
}

/// A span, to the millisecond where it is below a second.
fn brief(span: Span) -> String {
    if span.millis() > 0 && span.millis() < 1000 {
        span.to_string()
    } else {
        span_of(span)
    }
}

/// Several conditions of which all must hold, or one is enough.
pub(super) fn conditions(all: &[Condition], joined: &str) -> String {
    all.iter().map(Condition::to_string).collect::<Vec<_>>().join(joined)
}

/// What a replica asks for. `None`: nothing in particular.
pub(super) fn each(resources: &Resources) -> Option<String> {
    let Resources {
        gpus,
        gpu_type,
        memory,
        cpu,
    } = resources;
    let mut parts = Vec::new();
    match (gpus, gpu_type) {
        (0, _) => {}
        (1, None) => parts.push("1 GPU".to_owned()),
        (1, Some(model)) => parts.push(format!("1 {model} GPU")),
        (n, None) => parts.push(format!("{n} GPUs")),
        (n, Some(model)) => parts.push(format!("{n} {model} GPUs")),
    }
    if memory.is_some() {
        parts.push(format!("{} of memory", size(*memory)));
    }
    if let Some(cpu) = cpu {
        parts.push(format!("{cpu} CPU"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Bounds of the number of replicas, and what it follows.
pub(super) fn autoscale(autoscale: &Autoscale) -> String {
    let Autoscale { min, max, load, target } = autoscale;
    let target = number(*target);
    let aim = match load {
        None => String::new(),
        Some(Load::Cpu) => format!(", aiming at {target}% of the CPU of each"),
        Some(Load::Gpu) => format!(", aiming at {target}% utilization of the GPUs of each"),
        Some(Load::RequestRate) => format!(", aiming at {target} requests per second for each"),
        Some(Load::Queue) => format!(", aiming at {target} requests under way for each"),
    };
    format!("{min} to {max} replicas{aim}")
}

/// When it begins: `in 3h (2026-02-17 02:00 Europe/Berlin)`.
pub(crate) fn scheduled(schedule: &Schedule, now: Timestamp) -> String {
    let after = |id: &DeploymentId| format!("when {id} is complete");
    match (schedule.at, &schedule.after) {
        (Some(at), other) => {
            let zone = schedule.timezone.as_deref().unwrap_or("UTC");
            let told = match at.in_tz(zone) {
                Ok(there) => format!("{} {zone}", there.strftime("%Y-%m-%d %H:%M")),
                Err(_) => clock(at),
            };
            let other = other.as_ref().map(|id| format!(", {}", after(id))).unwrap_or_default();
            format!("{} ({told}){other}", time::relative(at, now))
        }
        (None, Some(id)) => after(id),
        (None, None) => "at once".to_owned(),
    }
}

/// `v2.1`, or `revision 4` where it has no other name.
pub(crate) fn revision(version: Option<&str>, number: Option<u32>) -> Option<String> {
    match (version, number) {
        (Some(version), _) => Some(version.to_owned()),
        (None, Some(number)) => Some(format!("revision {number}")),
        (None, None) => None,
    }
}

/// What is done to what: `update prod/model-server to v2.1`.
pub(super) fn deed(plan: &Plan) -> String {
    let version = revision(plan.version.as_deref(), plan.to_revision);
    let target = format!("{}/{}", plan.namespace, plan.workload);
    match (plan.action, version) {
        (Action::Scale, _) => match &plan.autoscale {
            Some(bounds) => format!("scale {target}: {}", autoscale(bounds)),
            None => format!("scale {target} to {}", replicas(plan.replicas)),
        },
        (Action::Update, Some(version)) => format!("update {target} to {version}"),
        (Action::Update, None) => format!("update {target}"),
        (Action::Deploy, Some(version)) => format!("deploy {target} {version}"),
        (Action::Deploy, None) => format!("deploy {target}"),
        (Action::Rollback, Some(version)) => format!("roll {target} back to {version}"),
        (Action::Rollback, None) => format!("roll {target} back"),
    }
}

/// How the new revision comes in. `None`: nothing is replaced.
pub(super) fn manner(plan: &Plan) -> Option<String> {
    if plan.batch || plan.action == Action::Scale {
        return None;
    }
    Some(match (plan.strategy, &plan.canary, &plan.blue_green) {
        (Strategy::Canary, Some(canary), _) => format!(
            "canary: {} of the requests, {} of {} first",
            percent(canary.percentage),
            canary.effective_replicas,
            replicas(plan.replicas)
        ),
        (Strategy::BlueGreen, _, Some(blue_green)) => format!(
            "blue-green: a second set of {}, then one switch {}",
            replicas(plan.replicas),
            if blue_green.auto_switch {
                format!("once it has been ready for {}", brief(blue_green.check_for))
            } else {
                "by `clawbernetes deploy promote`".to_owned()
            }
        ),
        (Strategy::Rolling, ..) => format!("rolling: {}", batches(plan)),
        (Strategy::Immediate, ..) => "immediate: all old replicas are stopped, then the new ones started".to_owned(),
        (strategy, ..) => strategy.name().to_owned(),
    })
}

/// How a rolling replacement goes.
pub(super) fn batches(plan: &Plan) -> String {
    let (rolling, n) = (&plan.rolling, plan.replicas);
    let mut text = match (rolling.max_surge, rolling.max_unavailable) {
        (more, 0) => format!("up to {more} more than {n}, never fewer ready"),
        (0, fewer) => format!("up to {fewer} fewer than {n} ready, never more"),
        (more, fewer) => format!("up to {more} more than {n}, up to {fewer} fewer ready"),
    };
    if !rolling.pause_between.is_zero() {
        text.push_str(&format!(", {} of rest between batches", brief(rolling.pause_between)));
    }
    text
}

/// When a canary goes on, or a blue-green deployment switches.
pub(super) fn goes_on(plan: &Plan) -> Option<String> {
    const BY_HAND: &str = "by hand: clawbernetes deploy promote";
    if let Some(canary) = &plan.canary {
        if !canary.auto_promote {
            return Some(BY_HAND.to_owned());
        }
        let holds = conditions(&canary.promote_conditions, " and ");
        return Some(match (canary.promote_after, holds.is_empty()) {
            (Some(after), true) => format!("by itself, {} after each step has begun", brief(after)),
            (Some(after), false) => format!(
                "by itself, at least {} after each step has begun, if {holds}",
                brief(after)
            ),
            (None, true) => "by itself".to_owned(),
            (None, false) => format!("by itself, as soon as {holds}"),
        });
    }
    let blue_green = plan.blue_green.as_ref()?;
    let keep = if blue_green.keep_old_for.is_zero() {
        "; the old set ends at once".to_owned()
    } else {
        format!("; the old set is kept for {}", brief(blue_green.keep_old_for))
    };
    Some(if blue_green.auto_switch {
        format!(
            "by itself, when the new set has been ready for {}{keep}",
            brief(blue_green.check_for)
        )
    } else {
        format!("{BY_HAND}{keep}")
    })
}

/// A plan on a line.
pub(crate) fn gist(plan: &Plan) -> String {
    let mut text = deed(plan);
    if let Some(manner) = manner(plan) {
        text.push_str(&format!("; {manner}"));
    }
    if !plan.rollback_conditions.is_empty() {
        text.push_str(&format!("; back if {}", conditions(&plan.rollback_conditions, " or ")));
    }
    text
}

/// What a revision showed, in the unit of the bound. `None`: nothing could be measured.
pub(super) fn measured(condition: &Condition, sample: &Sample) -> Option<String> {
    let value = sample.value?;
    Some(match &condition.metric {
        Signal::Healthy => if value >= 1.0 { "ready" } else { "not ready" }.to_owned(),
        _ => condition.value(value),
    })
}
