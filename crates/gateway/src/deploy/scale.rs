//! Autoscaling: what is measured of a service, the decision on it, and the number of replicas that it comes to.

use api::{
    ApiError, Span, Timestamp, WorkloadId,
    deploy::{Load, Replica, Service},
    event::{Event, Severity},
    time,
};
use rollout::autoscale::{self, Errors, History, Input, Seen};

use super::{Doors, evidence, evidence::Sources, seen};
use crate::{
    draft::Draft,
    hub::{Committed, now, store_error},
    keys,
    view::{ServiceName, Versioned},
};

/// How much of the past a load is the mean of: agents measure every ten seconds.
const WINDOW: Span = Span::secs(30);
/// How much of the past errors are looked for in.
const ERRORS_WINDOW: Span = Span::secs(180);
/// Who is named where nobody in person did it.
const ACTOR: &str = "autoscaler";

/// Decides how many replicas a service has, and writes it down where that is another number.
///
/// # Errors
/// The store can't be read or written.
pub async fn scale(sources: &Sources, doors: &Doors, name: &ServiceName) -> Result<(), ApiError> {
    let at = now();
    let Some(service) = sources.hub.view().service(name).cloned() else {
        return Ok(());
    };
    let Some(bounds) = &service.autoscale else {
        return Ok(());
    };
    let key = keys::scaling(&name.0, &name.1);
    let kept = sources
        .hub
        .store()
        .get(key.as_str())
        .await
        .map_err(|e| store_error(&e))?;
    // Of another version: as if nothing were remembered.
    let history: History = kept
        .and_then(|record| serde_json::from_slice(&record.value).ok())
        .unwrap_or_default();
    // Nothing is looked up where it wouldn't count.
    let deciding = service.deployment.is_some();
    let load = bounds.load.as_ref().filter(|_| !deciding);
    let (replicas, errors) = match load {
        Some(load) => (
            loads(sources, doors, &service, load, at).await,
            errors(sources, &service, at).await?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    let input = Input {
        bounds,
        wanted: service.replicas,
        replicas: &replicas,
        errors: &errors,
        deciding,
    };
    let decided = autoscale::decide(&input, &history, at);
    doors.note_scaling(name, decided.why.clone());
    if decided.history == history && decided.replicas == service.replicas {
        return Ok(());
    }
    let mut draft = Draft::new();
    draft.keep(&key, &decided.history);
    if decided.replicas == service.replicas {
        draft.service_unchanged(&service);
    } else {
        let mut changed = Service::clone(&service);
        changed.replicas = decided.replicas;
        draft.put_service(Some(&service), &changed);
        draft.event(service.revision, event(&service, decided.replicas, &decided.why, at));
    }
    if let Committed::Overtaken(failed) = sources.hub.commit(draft).await? {
        tracing::debug!(?failed, "a scaling was overtaken");
    }
    Ok(())
}

fn event(service: &Versioned<Service>, replicas: u32, why: &str, at: Timestamp) -> Event {
    Event {
        id: String::new(),
        at,
        kind: "service".to_owned(),
        subject: service.value.name.clone(),
        namespace: Some(service.namespace.clone()),
        node: None,
        reason: "Scaled".to_owned(),
        message: format!(
            "{}: from {} to {replicas} replicas: {why}",
            service.value.name, service.replicas
        ),
        actor: ACTOR.to_owned(),
        severity: Severity::Info,
        fact: None,
    }
}

/// The load of each wanted replica of the stable revision.
async fn loads(sources: &Sources, doors: &Doors, service: &Service, load: &Load, at: Timestamp) -> Vec<Seen> {
    let wanted = |m: &&Replica| m.retiring.is_none() && Some(m.revision) == service.stable;
    let replicas: Vec<(WorkloadId, bool)> = {
        let view = sources.hub.view();
        let members = service.members.iter().filter(wanted);
        members
            .map(|m| (m.workload.clone(), seen::ready(&view, &m.workload)))
            .collect()
    };
    let shared = match load {
        Load::RequestRate => requests_per_second(sources, service, at).await,
        Load::Queue => Some(doors.busy(service) as f64),
        Load::Cpu | Load::Gpu => None,
    };
    let ready = replicas.iter().filter(|(_, ready)| *ready).count().max(1) as f64;
    let mut found = Vec::with_capacity(replicas.len());
    for (workload, is_ready) in replicas {
        let load = match load {
            // The proxy gives each its part.
            Load::RequestRate | Load::Queue => shared.map(|all| all / ready).filter(|_| is_ready),
            Load::Gpu => mean(sources, service, "gpu.utilization", &workload, at).await,
            Load::Cpu => {
                let cores = service
                    .stable()
                    .and_then(|r| r.spec.cpu)
                    .map_or(1000, |cpu| cpu.millis());
                let used = mean(sources, service, "workload.cpu", &workload, at).await;
                used.map(|used| used * 100_000.0 / f64::from(cores.max(1)))
            }
        };
        found.push(Seen { ready: is_ready, load });
    }
    found
}

/// Requests of all revisions. `None`: they couldn't be read.
async fn requests_per_second(sources: &Sources, service: &Service, at: Timestamp) -> Option<f64> {
    let mut all = 0;
    for revision in revisions(service) {
        let (requests, _) = counted(sources, service, revision, WINDOW, at).await.ok()?;
        all += requests;
    }
    Some(all as f64 / WINDOW.duration().as_secs_f64())
}

fn revisions(service: &Service) -> Vec<u32> {
    service.weights.keys().copied().collect()
}

/// What became of each revision's requests.
async fn errors(sources: &Sources, service: &Service, at: Timestamp) -> Result<Vec<Errors>, ApiError> {
    let mut found = Vec::new();
    if service.port.is_none() {
        return Ok(found);
    }
    for revision in revisions(service) {
        let (of, failed) = counted(sources, service, revision, ERRORS_WINDOW, at).await?;
        found.push(Errors { revision, failed, of });
    }
    Ok(found)
}

async fn counted(
    sources: &Sources,
    service: &Service,
    revision: u32,
    window: Span,
    at: Timestamp,
) -> Result<(u64, u64), ApiError> {
    let sample = evidence::requests(sources, service, revision, time::before(at, window), at).await?;
    Ok((sample.count, sample.failed.unwrap_or(0)))
}

/// A metric's mean of late. `None`: not measured.
async fn mean(sources: &Sources, service: &Service, name: &str, workload: &WorkloadId, at: Timestamp) -> Option<f64> {
    let from = time::before(at, WINDOW);
    let values = evidence::values(sources, service, name, vec![workload.clone()], from, at).await;
    evidence::mean(&values.ok()?)
}
