//! What will happen, in sentences.

use api::deploy::{Action, Autoscale, Canary, Condition, Load, Plan, Revision, Rolling, Service, Strategy};

use super::amount::number;

/// `1 replica`, `4 replicas`.
pub(super) fn replicas(n: u32) -> String {
    if n == 1 {
        "1 replica".to_owned()
    } else {
        format!("{n} replicas")
    }
}

/// `1 GPU`, `8 GPUs`.
fn gpus(n: u32) -> String {
    if n == 1 {
        "1 GPU".to_owned()
    } else {
        format!("{n} GPUs")
    }
}

/// `revision 4 (v2.1)`.
pub(super) fn revision(revision: &Revision) -> String {
    called(revision.number, revision.version.as_deref())
}

/// The same of one that is to be.
pub(super) fn called(number: u32, version: Option<&str>) -> String {
    match version {
        Some(version) => format!("revision {number} ({version})"),
        None => format!("revision {number}"),
    }
}

/// `2 to 10, CPU use about 70 %`.
pub(super) fn bounds(bounds: &Autoscale) -> String {
    let range = format!("{} to {}", bounds.min, bounds.max);
    match &bounds.load {
        None => range,
        Some(followed @ (Load::Cpu | Load::Gpu)) => {
            format!("{range}, {} about {} %", followed, number(bounds.target))
        }
        Some(followed) => format!("{range}, {} about {}", followed, number(bounds.target)),
    }
}

/// Whether a text is `prefix` and then a digit: `v2.1`.
pub(super) fn numbered(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn any(conditions: &[Condition], between: &str) -> String {
    let each: Vec<String> = conditions.iter().map(Condition::to_string).collect();
    each.join(between)
}

/// The sentences of a batch job's plan. `limit`: how long it may run.
pub(super) fn of_job(plan: &Plan, limit: &str) -> Vec<String> {
    let mut steps: Vec<String> = beginning(plan).into_iter().collect();
    let with = match plan.resources.gpus {
        0 => String::new(),
        n => format!(" with {}", gpus(n)),
    };
    steps.push(format!("runs {}{with} once, to its end{limit}", image(plan)));
    steps
}

/// What it waits for before it begins.
fn beginning(plan: &Plan) -> Option<String> {
    let schedule = plan.schedule.as_ref()?;
    Some(match (&schedule.at, &schedule.after) {
        (Some(at), _) => {
            let zone = schedule.timezone.as_deref().unwrap_or("UTC");
            let said = at
                .in_tz(zone)
                .map_or_else(|_| at.to_string(), |zoned| zoned.strftime("%F %T %Z").to_string());
            format!("waits until {said}")
        }
        (None, Some(after)) => format!("waits until {after} is complete"),
        (None, None) => "waits".to_owned(),
    })
}

/// The sentences of a service's plan.
///
/// `new`: what the revision that it brings in is called; `None`: none changes.
pub(super) fn of(plan: &Plan, service: Option<&Service>, new: Option<&str>) -> Vec<String> {
    let mut steps: Vec<String> = beginning(plan).into_iter().collect();
    let Some(new) = new else {
        let before = service.map_or(0, |service| service.replicas);
        steps.push(match plan.replicas {
            n if n > before => format!("adds {}: {n} in all", replicas(n - before)),
            n if n < before => format!(
                "takes {} out of use, lets their requests end, and stops them: {} are left",
                replicas(before - n),
                n
            ),
            n => format!("keeps {}", replicas(n)),
        });
        if let Some(autoscale) = &plan.autoscale {
            steps.push(format!("keeps the number of replicas within {}", bounds(autoscale)));
        }
        return steps;
    };
    steps.push(match plan.to_revision {
        Some(_) => format!("goes back to {new}"),
        None => format!("makes {new} of {}: {}", plan.workload, image(plan)),
    });
    let there = service.is_some_and(|service| !service.members.is_empty() || service.stable.is_some());
    match plan.strategy {
        Strategy::Canary => {
            if let Some(canary) = &plan.canary {
                of_canary(&mut steps, plan, canary);
            }
            steps.push(format!(
                "then replaces the rest: {}",
                pace(&plan.rolling, plan.replicas)
            ));
        }
        Strategy::BlueGreen => {
            if let Some(way) = &plan.blue_green {
                steps.push(format!(
                    "starts a second set of {} beside the old one",
                    replicas(plan.replicas)
                ));
                steps.push(format!(
                    "when all of it has been ready for {}, {}",
                    way.check_for,
                    if way.auto_switch {
                        "switches every request to it at once"
                    } else {
                        "waits for `clawbernetes deploy promote`, which switches every request to it at once"
                    }
                ));
                steps.push(format!(
                    "keeps the old set for {} after that, then stops it",
                    way.keep_old_for
                ));
            }
        }
        Strategy::Rolling if there => steps.push(format!(
            "replaces {}: {}",
            replicas(plan.replicas),
            pace(&plan.rolling, plan.replicas)
        )),
        Strategy::Rolling => steps.push(format!("starts {}", replicas(plan.replicas))),
        Strategy::Immediate if there => steps.push(format!(
            "stops every old replica, then starts {}: nothing answers meanwhile",
            replicas(plan.replicas)
        )),
        Strategy::Immediate => steps.push(format!("starts {}", replicas(plan.replicas))),
    }
    let (beyond, each) = (super::surge(plan), plan.resources.gpus);
    if there && beyond > 0 && each > 0 {
        steps.push(format!(
            "meanwhile needs up to {} beyond the {} of {}",
            gpus(beyond.saturating_mul(each)),
            plan.replicas.saturating_mul(each),
            replicas(plan.replicas)
        ));
    }
    if let Some(autoscale) = &plan.autoscale
        && service.and_then(|service| service.autoscale.as_ref()) != Some(autoscale)
    {
        steps.push(format!(
            "then keeps the number of replicas within {}",
            bounds(autoscale)
        ));
    }
    if !plan.rollback_conditions.is_empty() {
        let back = match service.and_then(Service::stable) {
            Some(stable) => format!("goes back to {}", revision(stable)),
            None => "stops".to_owned(),
        };
        steps.push(format!("{back} if {}", any(&plan.rollback_conditions, " or ")));
    }
    steps
}

fn image(plan: &Plan) -> &str {
    if plan.image.is_empty() {
        "image not known"
    } else {
        &plan.image
    }
}

fn of_canary(steps: &mut Vec<String>, plan: &Plan, canary: &Canary) {
    let port = !plan.spec.ports.is_empty();
    for step in &canary.steps {
        let share = number(step.percentage);
        let numbers = format!(
            "{share}% of {} = {} ({}%)",
            replicas(plan.replicas),
            replicas(step.replicas),
            number(step.effective_percentage)
        );
        steps.push(if port {
            format!("gives exactly {share}% of the requests to the new revision; {numbers}")
        } else {
            format!("runs the new revision beside the old one; {numbers}")
        });
        let mut conditions = String::new();
        if let Some(after) = canary.promote_after {
            conditions.push_str(&format!(" after {after}"));
        }
        if !canary.promote_conditions.is_empty() {
            conditions.push_str(&format!(" if {}", any(&canary.promote_conditions, " and ")));
        }
        steps.push(if canary.auto_promote {
            format!("goes on by itself{conditions}")
        } else if conditions.is_empty() {
            "waits for `clawbernetes deploy promote`".to_owned()
        } else {
            format!("waits for `clawbernetes deploy promote`, which is taken{conditions}")
        });
    }
}

fn pace(rolling: &Rolling, all: u32) -> String {
    let rest = if rolling.pause_between.is_zero() {
        String::new()
    } else {
        format!(", with rests of {}", rolling.pause_between)
    };
    match (rolling.max_surge, rolling.max_unavailable) {
        (surge, 0) if surge >= all => format!("all at once, beside the old ones{rest}"),
        (surge, 0) => format!("{surge} at a time, never fewer than {all} ready{rest}"),
        (0, fewer) => format!("{fewer} at a time, never more than {all}{rest}"),
        (surge, fewer) => format!(
            "never more than {} nor fewer than {} ready{rest}",
            all.saturating_add(surge),
            all.saturating_sub(fewer)
        ),
    }
}

/// The sentence of an action that makes or changes nothing else.
pub(super) fn unchanged(action: Action, name: &str) -> String {
    match action {
        Action::Deploy | Action::Update => format!("'{name}' runs just that already"),
        Action::Scale => format!("'{name}' has just that many replicas already"),
        Action::Rollback => format!("'{name}' runs just that revision already"),
    }
}
