//! A sentence: planned, shown, asked for, applied.

use std::process::ExitCode;

use api::{
    ApiError,
    deploy::{Action, Marks, Plan},
    op::{ApplyRequest, DeployApply, DeployPlan, PlanRequest, Planned},
};

use super::{Args, begun, watch::Wanted};
use crate::{
    cli::App,
    config::{Settings, Source},
    failure::Outcome,
    manifest_file,
    output::{PlanShown, gist, scheduled},
    terminal,
};

impl Args {
    /// Does what the sentence says, or shows what it would do.
    pub(super) async fn apply(self, app: &App, sentence: String) -> Outcome {
        let template = self.file.as_deref().map(Template::read).transpose()?;
        let (client, settings) = app.session()?;
        let request = PlanRequest {
            intent: sentence,
            namespace: namespace(&settings, template.as_ref()),
            timezone: zone(),
            image: self.image.clone(),
            template: template.as_ref().map(|template| template.workload.spec.clone()),
            marks: template.as_ref().map(Template::marks),
            name: template.as_ref().and_then(|template| template.workload.name.clone()),
            timeout: self.timeout,
        };
        let planned = client.call::<DeployPlan>(&request).await?;
        agreed(&settings, template.as_ref(), &planned.plan)?;
        if self.dry_run {
            app.out.show(&PlanShown(&planned))?;
            if let (Some(model), true) = (&planned.read_by, app.out.for_programs()) {
                app.out
                    .note(&format!("read by the model {model} as: {}", planned.understood));
            }
            return Ok(ExitCode::SUCCESS);
        }
        // What a model made of somebody's words is never done unseen.
        let shown = self.confirm || planned.read_by.is_some();
        if shown {
            app.out.aside(&PlanShown(&planned));
            agree(&planned.plan, self.yes)?;
        }
        let wanted = match planned.plan.action {
            Action::Rollback => Wanted::Back,
            Action::Deploy | Action::Update | Action::Scale => Wanted::Done,
        };
        let request = ApplyRequest {
            request: request_of(request, &planned, shown),
            digest: shown.then(|| planned.plan.digest.clone()),
            read_by: planned.read_by.clone(),
            reason: self.reason.clone(),
            force: self.force,
        };
        let status = client.call::<DeployApply>(&request).await?;
        if !shown {
            tell(app, &planned.plan);
        }
        begun(app, &client, &status, self.watch.then_some(wanted)).await
    }
}

/// Asks whether a plan that was shown is to be applied. What lacks something isn't asked for: what it lacks may be there a
/// moment later.
fn agree(plan: &Plan, yes: bool) -> Result<(), ApiError> {
    if !plan.missing.is_empty() && !yes {
        let message = format!("the plan can't be applied: it lacks {}", plan.missing.join("; "));
        return Err(ApiError::conflict(message));
    }
    terminal::confirm("Apply this plan?", yes, "--yes")
}

/// What is to be applied, so that it comes to the plan that was shown: what a model read in its own words, and what says a
/// time from now with that time.
fn request_of(request: PlanRequest, planned: &Planned, shown: bool) -> PlanRequest {
    let timed = planned
        .plan
        .schedule
        .as_ref()
        .is_some_and(|schedule| schedule.at.is_some());
    if planned.read_by.is_some() || (shown && timed) {
        return PlanRequest {
            intent: planned.understood.clone(),
            ..request
        };
    }
    request
}

/// The gist of a plan that is applied without being shown, on standard error.
fn tell(app: &App, plan: &Plan) {
    app.out.note(&gist(plan));
    if let Some(schedule) = &plan.schedule {
        app.out
            .note(&format!("begins {}", scheduled(schedule, app.out.view().now)));
    }
    for warning in &plan.warnings {
        app.out.note(&format!("warning: {warning}"));
    }
}

/// A manifest that says what a replica runs.
struct Template {
    file: String,
    workload: api::op::Submission,
}

impl Template {
    fn read(file: &str) -> Result<Self, ApiError> {
        let mut documents = manifest_file::read(file)?;
        let count = documents.len();
        match (documents.pop(), count) {
            (Some(document), 1) => Ok(Self {
                file: file.to_owned(),
                workload: document.workload,
            }),
            _ => Err(ApiError::invalid(
                "--file",
                format!("{file} holds {count} workloads, and a service runs one"),
            )
            .hint("give each its own file, and its own deployment")),
        }
    }

    /// What it marks replicas with.
    fn marks(&self) -> Marks {
        Marks {
            labels: self.workload.labels.clone(),
            annotations: self.workload.annotations.clone(),
        }
    }
}

/// Refuses a sentence that is about something else than its manifest, or about another namespace than the flag: whoever said
/// both meant one.
fn agreed(settings: &Settings, template: Option<&Template>, plan: &Plan) -> Result<(), ApiError> {
    let differ = |field: &str, of: &str, what: &str, own: &str, said: &str| {
        ApiError::invalid(field, format!("{of} says {what} '{own}', and the sentence '{said}'"))
            .hint(format!("say the same {what} in both, or leave it out of one"))
    };
    let name = template.and_then(|t| Some((t, t.workload.name.as_deref()?)));
    if let Some((template, own)) = name.filter(|(_, own)| *own != plan.workload) {
        return Err(differ("metadata.name", &template.file, "name", own, &plan.workload));
    }
    let namespace = match (&settings.namespace.source, template) {
        (Source::Flag(_), _) => Some(("--namespace", "--namespace", settings.namespace.value.as_str())),
        (_, Some(t)) => t
            .workload
            .namespace
            .as_deref()
            .map(|own| ("metadata.namespace", t.file.as_str(), own)),
        (_, None) => None,
    };
    match namespace.filter(|(.., own)| *own != plan.namespace) {
        Some((field, of, own)) => Err(differ(field, of, "namespace", own, &plan.namespace)),
        None => Ok(()),
    }
}

/// The flag's namespace, else the manifest's, else that of environment or context.
fn namespace(settings: &Settings, template: Option<&Template>) -> Option<String> {
    if matches!(settings.namespace.source, Source::Flag(_)) {
        return settings.named_namespace();
    }
    let own = template.and_then(|template| template.workload.namespace.clone());
    own.or_else(|| settings.named_namespace())
}

/// The zone that this machine is set to. `None`: it has no name.
fn zone() -> Option<String> {
    jiff::tz::TimeZone::system().iana_name().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use api::ErrorCode;
    use serde_json::{Value, json};

    use super::*;

    fn planned(read_by: Value, schedule: Value, missing: Value) -> Planned {
        serde_json::from_value(json!({"understood": "in its own words", "readBy": read_by, "plan": {
            "action": "scale", "workload": "w", "namespace": "default", "batch": false, "version": null, "image": "host",
            "replicas": 2, "resources": {"gpus": 0, "gpuType": null, "memory": null, "cpu": null}, "priority": "normal",
            "timeout": null, "strategy": "rolling", "canary": null, "blueGreen": null,
            "rolling": {"maxUnavailable": 0, "maxSurge": 1, "pauseBetween": "0s"}, "rollbackConditions": [],
            "autoscale": null, "schedule": schedule, "spec": {"image": "host"}, "toRevision": null, "changes": [],
            "steps": [], "placement": [], "warnings": [], "missing": missing, "digest": "d1"}}))
        .unwrap()
    }

    #[test]
    fn what_was_shown_is_what_is_applied() {
        let said = |planned: &Planned, shown: bool| {
            let request = PlanRequest {
                intent: "as it was said".to_owned(),
                image: Some("host".to_owned()),
                ..PlanRequest::default()
            };
            let applied = request_of(request, planned, shown);
            assert_eq!(applied.image.as_deref(), Some("host"));
            applied.intent
        };
        let at = json!({"at": "2026-02-16T14:00:00Z", "timezone": "UTC", "after": null});
        let after = json!({"at": null, "timezone": null, "after": "dep-0000000001"});
        let (none, nothing) = (json!(null), json!([]));
        for (read_by, schedule, shown, own_words) in [
            (none.clone(), none.clone(), true, false),
            (none.clone(), none.clone(), false, false),
            (json!("some-model"), none.clone(), true, true),
            // "in 2 hours" is another moment each time that it is read.
            (none.clone(), at.clone(), true, true),
            (none.clone(), at, false, false),
            (none, after, true, false),
        ] {
            let planned = planned(read_by, schedule, nothing.clone());
            assert_eq!(
                said(&planned, shown) == "in its own words",
                own_words,
                "{planned:?} {shown}"
            );
        }
    }

    #[test]
    fn a_plan_that_lacks_something_is_not_asked_for() {
        let plan = planned(json!(null), json!(null), json!(["a secret 'db'"])).plan;
        let error = agree(&plan, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert!(error.message.contains("a secret 'db'"), "{}", error.message);
        // The gateway refuses it, and says what kind of thing is missing.
        assert!(agree(&plan, true).is_ok());
    }
}
