//! The way back to an earlier revision.

use api::{
    ApiError,
    deploy::{Action, Change, Course, Plan, Revision, Service, Standing, Strategy},
};

use super::{
    Facts, Notes, changes, current,
    service::{self, Target},
    steps,
};
use crate::intent::{Intent, Verb};

/// The plan of going back: to the revision that is named, otherwise to the last good one before the present one (of a
/// deployment under way, that which it began from; giving one up always means that one). Never canary or blue-green: what comes back was judged before.
pub(super) fn plan(intent: &Intent, facts: &Facts<'_>, service: &Service) -> Result<Plan, ApiError> {
    let name = &service.name;
    let under_way = facts.under_way.filter(|deployment| !deployment.phase.ended());
    if intent.verb == Verb::Abort && under_way.is_none() {
        return Err(
            ApiError::conflict(format!("no deployment of '{name}' is under way")).hint(format!(
                "to go back to the revision before: clawbernetes deploy \"roll back {name}\""
            )),
        );
    }
    let steps = (!intent.canary_steps.is_empty()).then_some(Strategy::Canary);
    if let Some(strategy @ (Strategy::Canary | Strategy::BlueGreen)) = intent.strategy.or(steps) {
        let message = format!("going back is never {strategy}: what comes back was judged before");
        return Err(ApiError::invalid("intent", message).hint(format!("leave '{strategy}' out")));
    }
    if changes_more(intent) {
        return Err(
            ApiError::invalid("intent", "going back brings back a revision as it was")
                .hint("leave the rest out, and say it when it is back"),
        );
    }
    let Some(now) = current(service, under_way) else {
        return Err(ApiError::conflict(format!("'{name}' has no revision to go back to")));
    };
    let to = match (&intent.back_to, intent.verb, under_way) {
        (Some(word), ..) => named(service, word)?,
        (None, Verb::Abort, Some(deployment)) => service.stable().ok_or_else(|| {
            ApiError::conflict(format!(
                "there is nothing to go back to: no revision of '{name}' was good before {}",
                deployment.id
            ))
            .hint(format!("`clawbernetes service delete {name}` ends it for good"))
        })?,
        (None, _, Some(deployment))
            if matches!(deployment.course, Course::Back { .. }) || deployment.plan.action == Action::Rollback =>
        {
            return Err(
                ApiError::conflict(format!("{} of '{name}' is on its way back already", deployment.id)).hint(format!(
                    "clawbernetes deploy status {}; or name the revision",
                    deployment.id
                )),
            );
        }
        (None, _, Some(_)) => before(service, now)?,
        (None, _, None) => {
            went_back(service)?;
            before(service, now)?
        }
    };
    let mut notes = Notes::default();
    if under_way.is_none() && to.number == now.number && now.standing != Standing::Bad {
        let message = format!("'{name}' runs {} already", steps::revision(to));
        return Err(ApiError::conflict(message).hint(format!("clawbernetes deploy history {name}")));
    }
    if to.standing == Standing::Bad {
        let message = format!(
            "{} of '{name}' was rolled back itself, or couldn't be rolled out",
            steps::revision(to)
        );
        if !facts.force {
            return Err(ApiError::conflict(message).hint("name another, or say --force"));
        }
        notes.warn(message);
    }
    let mut changed = vec![Change {
        field: "revision".to_owned(),
        from: Some(now.number.to_string()),
        to: to.number.to_string(),
    }];
    changed.extend(changes::of_spec(
        Some((&now.spec, now.version.as_deref())),
        &to.spec,
        to.version.as_deref(),
    ));
    changed.extend(changes::of_marks(Some(&now.marks), &to.marks));
    let target = Target {
        action: Action::Rollback,
        spec: (*to.spec).clone(),
        marks: to.marks.clone(),
        version: to.version.clone(),
        number: Some(to.number),
        back: Some(to.number),
        changed,
    };
    // "safely" would make a canary of it.
    let plain = Intent {
        care: intent.care.filter(|care| *care != crate::intent::Care::Safely),
        ..intent.clone()
    };
    service::finish(&plain, facts, Some(service), target, notes)
}

/// Whether the sentence changes what a replica runs.
fn changes_more(intent: &Intent) -> bool {
    intent.image.is_some()
        || !intent.command.is_empty()
        || intent.gpus.is_some()
        || intent.gpu_model.is_some()
        || intent.gpu_memory.is_some()
        || intent.memory.is_some()
        || intent.cpu.is_some()
        || intent.priority.is_some()
        || !intent.env.is_empty()
        || intent.port.is_some()
}

/// Refuses to go back once more where what came last was taken back already: whoever says "roll back" again has seen what was
/// before, and would get what was before that.
fn went_back(service: &Service) -> Result<(), ApiError> {
    match (service.stable(), service.revisions.last()) {
        (Some(stable), Some(last)) if last.number > stable.number && last.standing != Standing::Good => {
            let name = &service.name;
            let message = format!(
                "'{name}' is back already: {} was rolled back or never rolled out, and {} is what runs",
                steps::revision(last),
                steps::revision(stable)
            );
            Err(ApiError::conflict(message).hint(format!(
                "further back: clawbernetes deploy rollback {name} --to VERSION (clawbernetes deploy history {name})"
            )))
        }
        _ => Ok(()),
    }
}

/// The last good revision before `now`.
fn before<'a>(service: &'a Service, now: &Revision) -> Result<&'a Revision, ApiError> {
    let good = |revision: &&Revision| revision.number != now.number && revision.standing == Standing::Good;
    let earlier = service
        .revisions
        .iter()
        .filter(|revision| revision.number < now.number)
        .rev()
        .find(good);
    // After a rollback the stable one is older than what came after it; nothing good may lie before it.
    earlier
        .or_else(|| service.stable().filter(|stable| stable.number != now.number))
        .ok_or_else(|| {
            ApiError::conflict(format!(
                "no good revision of '{}' lies before {}",
                service.name,
                steps::revision(now)
            ))
            .hint(format!(
                "clawbernetes deploy history {} shows those there are",
                service.name
            ))
        })
}

/// The revision that a word means: a version (the last good one of it, otherwise the last), or a number.
fn named<'a>(service: &'a Service, word: &str) -> Result<&'a Revision, ApiError> {
    let called = |version: &str| {
        let all = || {
            let of = move |revision: &&Revision| revision.version.as_deref() == Some(version);
            service.revisions.iter().rev().filter(of)
        };
        all()
            .find(|revision| revision.standing == Standing::Good)
            .or_else(|| all().next())
    };
    let other = match word.strip_prefix('v') {
        Some(rest) => rest.to_owned(),
        None => format!("v{word}"),
    };
    let number = word
        .trim_start_matches("revision")
        .trim_start_matches(['#', 'r', ' '])
        .parse()
        .ok();
    called(word)
        .or_else(|| number.and_then(|number| service.revision(number)))
        .or_else(|| called(&other))
        .ok_or_else(|| {
            let all: Vec<String> = service.revisions.iter().map(steps::revision).collect();
            ApiError::not_found(format!("'{}' has no revision '{word}'", service.name))
                .hint(format!("it has {}", all.join(", ")))
        })
}
