//! A sentence: planned, shown, asked for, applied.

use std::{io, process::ExitCode};

use api::{
    ApiError,
    op::{ApplyRequest, DeployApply, DeployPlan, DeploymentStatus, PlanRequest, Planned},
};

use super::{
    Args,
    watch::{Wanted, follow},
};
use crate::{
    cli::App,
    config::{Settings, Source},
    failure::Outcome,
    manifest_file,
    output::{Format, PlanShown, gist, scheduled},
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
            timeout: self.timeout,
        };
        let planned = client.call::<DeployPlan>(&request).await?;
        if let Some(template) = &template {
            template.check(app, &planned);
        }
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
            // A plan that lacks something is refused by the gateway, with the code of what it lacks: nothing to ask.
            if planned.plan.missing.is_empty() {
                terminal::confirm("Apply this plan?", self.yes, "--yes")?;
            }
        }
        let request = ApplyRequest {
            request: match planned.read_by {
                Some(_) => PlanRequest {
                    intent: planned.understood,
                    ..request
                },
                None => request,
            },
            digest: shown.then_some(planned.plan.digest),
            read_by: planned.read_by,
            reason: self.reason.clone(),
            force: self.force,
        };
        let status = client.call::<DeployApply>(&request).await?;
        tell(app, &status, shown);
        if self.watch {
            let id = &status.summary.id;
            match app.out.format {
                Format::Table | Format::Name => app.out.print(&format!("{id}\n"))?,
                _ => app.out.note(id.as_str()),
            }
            return follow(app, &client, &status, Wanted::Done, io::stderr()).await;
        }
        match app.out.format {
            Format::Table | Format::Name => app.out.print(&format!("{}\n", status.summary.id))?,
            _ => app.out.data(&status)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The gist of what is done now, on standard error; a plan that was shown already isn't told again.
fn tell(app: &App, status: &DeploymentStatus, shown: bool) {
    if shown {
        return;
    }
    let plan = &status.plan;
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

    /// Says what of the manifest doesn't count.
    fn check(&self, app: &App, planned: &Planned) {
        let target = &planned.plan.workload;
        if let Some(name) = self.workload.name.as_deref().filter(|name| name != target) {
            app.out.note(&format!(
                "warning: {} names {name}; the sentence's {target} counts",
                self.file
            ));
        }
        if !self.workload.labels.is_empty() || !self.workload.annotations.is_empty() {
            app.out
                .note(&format!("warning: labels and annotations of {} aren't kept", self.file));
        }
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
