//! How many replicas, and between which bounds.

use api::{
    ApiError,
    deploy::{Autoscale, Load, Numbers, Service},
};

use super::{
    Notes, REPLICAS_MAX,
    amount::{self, Wrong},
    steps,
};
use crate::intent::{Amount, Intent};

/// How many replicas there will be.
#[derive(Debug, PartialEq)]
pub(super) struct Count {
    /// So many, at least 1.
    pub replicas: u32,
    /// Where that comes from.
    pub from: Numbers,
    /// Bounds of it. `None`: it is fixed.
    pub autoscale: Option<Autoscale>,
}

/// Whether the sentence says anything about it.
pub(super) fn said(intent: &Intent) -> bool {
    intent.replicas.is_some() || changes(intent)
}

/// Whether the sentence says anything about the bounds.
pub(super) fn changes(intent: &Intent) -> bool {
    intent.min_replicas.is_some() || intent.max_replicas.is_some() || intent.follow.is_some()
}

/// The number of replicas and its bounds, from the sentence and what is there.
///
/// - a product is rounded up: half of 3 is 2
/// - unsaid: as many as there are; of a new service one, or the least of its bounds
/// - bounds that the sentence leaves open stay as they are; of a new pair the least is 1 (or what is asked for), and the
///   most must be said where a load is followed
/// - without a load only the bounds are kept
pub(super) fn count(
    intent: &Intent,
    service: Option<&Service>,
    has_port: bool,
    gpus: u32,
    notes: &mut Notes,
) -> Result<Count, ApiError> {
    let name = &intent.target;
    let before = service.map(|service| service.replicas);
    let asked = match intent.replicas {
        None => None,
        Some(amount) => Some(asked(name, before, amount)?),
    };
    let old = service.and_then(|service| service.autoscale.as_ref());
    let from = match (intent.replicas, before) {
        (None, _) => Numbers::Kept,
        (Some(Amount::To(_)), _) | (Some(_), None) => Numbers::Said,
        (Some(Amount::More(_) | Amount::Fewer(_) | Amount::Times(_)), Some(before)) => Numbers::ChangeOf(before),
    };
    if !changes(intent) {
        let replicas = asked.or(before).unwrap_or(1);
        if let (Some(old), Some(asked)) = (old, asked) {
            if !(old.min..=old.max).contains(&asked) {
                let message = format!(
                    "{asked} replicas are outside of {name}'s bounds, {} to {}",
                    old.min, old.max
                );
                return Err(ApiError::invalid("intent", message)
                    .hint(format!("change them: \"scale {name} to between {asked} and …\"")));
            }
            if let Some(load) = &old.load {
                notes.warn(format!(
                    "{name} follows its {}, which may change {} again",
                    load,
                    steps::replicas(asked)
                ));
            }
        }
        return Ok(Count {
            replicas,
            from,
            autoscale: old.cloned(),
        });
    }

    for (bound, word) in [(intent.min_replicas, "least"), (intent.max_replicas, "most")] {
        if bound == Some(0) {
            return Err(nothing_left(name).cause(format!("the {word} number of replicas is 0")));
        }
        if let Some(bound) = bound {
            check_most(bound)?;
        }
    }
    let (load, target) = match (&intent.follow, old) {
        (Some((load, target)), _) => {
            check_load(load, *target, has_port, gpus)?;
            (Some(load.clone()), *target)
        }
        (None, Some(old)) => (old.load.clone(), old.target),
        (None, None) => (None, 0.0),
    };
    let min = intent.min_replicas.or(old.map(|old| old.min)).unwrap_or(1);
    let max = match intent.max_replicas.or(old.map(|old| old.max)) {
        Some(max) => max,
        None => {
            if load.is_some() {
                notes
                    .missing
                    .push("the most replicas that it may have: say `max 10`".to_owned());
            }
            asked.or(before).unwrap_or(1).max(min)
        }
    };
    if min > max {
        let message = format!("at least {min} replicas and at most {max} can't both be");
        return Err(ApiError::invalid("intent", message));
    }
    if let Some(asked) = asked
        && !(min..=max).contains(&asked)
    {
        let message = format!("{asked} replicas are outside of the bounds {min} to {max}");
        return Err(ApiError::invalid("intent", message));
    }
    Ok(Count {
        replicas: asked.or(before).unwrap_or(min).clamp(min, max),
        from,
        autoscale: Some(Autoscale { min, max, load, target }),
    })
}

fn asked(name: &str, before: Option<u32>, amount: Amount<u32>) -> Result<u32, ApiError> {
    let number =
        amount::applied(before.map(u64::from), amount::map(amount, u64::from), 1).map_err(|wrong| match wrong {
            Wrong::NothingToChange => ApiError::invalid("intent", format!("'{name}' has no replicas yet to change"))
                .hint("say how many there are to be: `with 4 replicas`"),
            Wrong::Factor => ApiError::invalid("intent", "replicas can only be multiplied by a number above 0"),
        })?;
    if number == 0 {
        return Err(nothing_left(name));
    }
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    check_most(number)?;
    Ok(number)
}

fn check_most(number: u32) -> Result<(), ApiError> {
    if number > REPLICAS_MAX {
        let message = format!("{number} replicas: at most {REPLICAS_MAX} are possible");
        return Err(ApiError::invalid("intent", message));
    }
    Ok(())
}

fn nothing_left(name: &str) -> ApiError {
    ApiError::invalid(
        "intent",
        format!("nothing of '{name}' would be left to answer requests"),
    )
    .hint(format!(
        "1 replica is the least; to end it for good: clawbernetes service delete {name}"
    ))
}

fn check_load(load: &Load, target: f64, has_port: bool, gpus: u32) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::invalid("intent", message));
    if !(target.is_finite() && target > 0.0) {
        return refuse(format!("the {load} to aim at must be above 0"));
    }
    match load {
        Load::Gpu if gpus == 0 => refuse("it has no GPUs to follow".to_owned()),
        Load::Gpu if target > 100.0 => refuse(format!("no GPU is used to {target} %")),
        Load::RequestRate | Load::Queue if !has_port => refuse(format!(
            "its {load} isn't known: it has no port through which requests come"
        )),
        Load::Cpu | Load::Gpu | Load::RequestRate | Load::Queue => Ok(()),
    }
}
