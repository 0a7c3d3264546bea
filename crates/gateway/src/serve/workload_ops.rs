//! Operations on workloads.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    ApiError, ErrorCode, NodeName, Span, Timestamp, WorkloadId,
    auth::Scope,
    node::{EngineInfo, EngineKind, Reach},
    op::{
        CancelRequest, Explanation, MigrateRequest, SubmitRequest, Submitted, UpdateRequest, UsageRequest, UsageRow,
        WorkloadDetail, WorkloadFilter, WorkloadRef,
    },
    time,
    workload::{HOST_IMAGE, JobKey, Member, MemberState, Phase, StopOrder, StopReason, Workload, WorkloadSummary},
};
use store::FailedCondition;

use super::{
    App, answers,
    face::{Call, Written},
};
use crate::{
    auth,
    decide::{submit, update},
    draft::Draft,
    hub::{Committed, now},
    keys, lifecycle,
    secrets::{Place, Secrets, unreadable},
    view::{Versioned, View, gone},
};

/// Most workloads of one submission, and most ids of one cancellation.
const AT_ONCE_MAX: usize = 10_000;
/// What a sum of usage looks back on where nothing is asked for.
const USAGE_WINDOW: Span = Span::secs(30 * 86_400);

/// `workload.submit`
pub async fn submit(call: Call, request: SubmitRequest) -> Result<Vec<Submitted>, ApiError> {
    if request.workloads.is_empty() {
        return Err(ApiError::invalid("workloads", "nothing was submitted"));
    }
    if request.workloads.len() > AT_ONCE_MAX {
        return Err(ApiError::invalid(
            "workloads",
            format!("at most {AT_ONCE_MAX} workloads can be submitted at once"),
        ));
    }
    // Before anything else: what the first call made would stand in the way of its own repetition.
    if let Some(key) = call.idempotency.as_ref().filter(|_| !request.dry_run)
        && let Some(earlier) = answers::earlier::<Vec<WorkloadId>>(&call, key).await?
    {
        return made_earlier(&call.app.hub.view(), &earlier);
    }
    let at = now();
    let mut workloads = Vec::with_capacity(request.workloads.len());
    for mut submission in request.workloads {
        let namespace = auth::namespace(&call.identity, submission.namespace.as_deref())?.to_owned();
        submission.namespace = Some(namespace);
        let random = auth::random_number()?;
        workloads.push(submit::workload(submission, random, &call.identity.name, at)?);
    }
    let app = &call.app;
    check_secrets(&call, &workloads).await?;
    check_names(&app.hub.view(), &workloads)?;
    if request.dry_run || request.no_queue {
        let previews = app.planner.preview(workloads.clone()).await?;
        if request.no_queue
            && let Some((w, told)) = workloads
                .iter()
                .zip(&previews)
                .find(|(_, told)| told.placement.is_empty())
        {
            return Err(no_room(w, told));
        }
        if request.dry_run {
            return Ok(workloads
                .into_iter()
                .zip(previews)
                .map(|(workload, preview)| Submitted {
                    workload,
                    preview: Some(preview),
                })
                .collect());
        }
    }
    warn_of_the_impossible(&app.hub.view(), &mut workloads);
    let ids: Vec<WorkloadId> = workloads.iter().map(|w| w.id.clone()).collect();
    if let Some(earlier) = create(&call, &workloads, &ids).await? {
        return made_earlier(&app.hub.view(), &earlier);
    }
    Ok(workloads
        .into_iter()
        .map(|workload| Submitted {
            workload,
            preview: None,
        })
        .collect())
}

/// What an earlier call with the same idempotency key made.
fn made_earlier(view: &View, ids: &[WorkloadId]) -> Result<Vec<Submitted>, ApiError> {
    let found = ids.iter().map(|id| {
        let workload = view.workload(id).ok_or_else(|| gone(id.as_str()))?;
        Ok(Submitted {
            workload: Workload::clone(workload),
            preview: None,
        })
    });
    found.collect()
}

/// Writes new workloads in one transaction. `Some`: the same call came in between, and made these.
async fn create(call: &Call, workloads: &[Workload], ids: &[WorkloadId]) -> Result<Option<Vec<WorkloadId>>, ApiError> {
    let hub = &call.app.hub;
    let identity = &call.identity.token_id;
    let lease = match &call.idempotency {
        None => None,
        Some(_) => Some(answers::lease(&call.app).await?),
    };
    let mut draft = Draft::new();
    for workload in workloads {
        draft.create_workload(workload, lifecycle::submitted(workload));
    }
    if let (Some(key), Some(lease)) = (&call.idempotency, lease) {
        draft.answer(identity, key, &ids, lease);
    }
    match hub.commit(draft).await? {
        Committed::Done => Ok(None),
        Committed::Overtaken(failed) => {
            if let Some(key) = &call.idempotency
                && let Some(ids) = answers::earlier::<Vec<WorkloadId>>(call, key).await?
            {
                return Ok(Some(ids));
            }
            Err(taken(&hub.view(), workloads, &failed))
        }
    }
}

fn taken(view: &View, workloads: &[Workload], failed: &[FailedCondition]) -> ApiError {
    let name_of = |w: &&Workload| failed.iter().any(|f| *f.key == *keys::name(&w.namespace, &w.name));
    match workloads.iter().find(name_of) {
        Some(w) => submit::name_taken(
            &w.name,
            &w.namespace,
            view.active_named(&w.namespace, &w.name).map(|w| &w.id),
        ),
        None => ApiError::conflict("it changed meanwhile: try again"),
    }
}

/// Checks that the secrets that workloads use are there, and that the caller may use them.
pub(super) async fn check_secrets(call: &Call, workloads: &[Workload]) -> Result<(), ApiError> {
    let secrets = Secrets {
        store: call.app.hub.store(),
        trust: &call.app.trust,
    };
    let mut known = std::collections::HashSet::new();
    for w in workloads {
        for (i, used) in w.spec.secrets.iter().enumerate() {
            if !call.identity.allows(Scope::WriteSecrets) {
                let message = format!("{} may not give secrets to workloads", call.identity.name);
                return Err(ApiError::new(ErrorCode::PermissionDenied, message)
                    .hint("ask an admin for a token with the scope write-secrets"));
            }
            if !known.insert((&w.namespace, &used.secret)) {
                continue;
            }
            let field = format!("spec.secrets[{i}]");
            let place = Place::new(&w.namespace, &used.secret)?;
            let secret = secrets.get(&place).await.map_err(|e| ApiError {
                field: Some(field.clone()),
                ..e
            })?;
            secret.value.read(None, now()).map_err(|e| ApiError {
                field: Some(field),
                ..unreadable(&e)
            })?;
        }
    }
    Ok(())
}

fn check_names(view: &View, workloads: &[Workload]) -> Result<(), ApiError> {
    let mut seen = std::collections::HashSet::new();
    for w in workloads {
        if let Some(holder) = view.active_named(&w.namespace, &w.name) {
            return Err(submit::name_taken(&w.name, &w.namespace, Some(&holder.id)));
        }
        if !seen.insert((&w.namespace, &w.name)) {
            return Err(submit::name_taken(&w.name, &w.namespace, None));
        }
    }
    Ok(())
}

fn no_room(w: &Workload, told: &Explanation) -> ApiError {
    let hint = match told.suggestions.first() {
        Some(change) => format!("it would start now with this change: {change}"),
        None => "leave out --no-queue, and it waits; or try --priority high".to_owned(),
    };
    ApiError::new(ErrorCode::NoGpusAvailable, format!("{} can't start now", w.name))
        .cause(told.summary.clone())
        .hint(hint)
}

/// Says so at once where no node of today's fleet is large enough.
fn warn_of_the_impossible(view: &View, workloads: &mut [Workload]) {
    let largest = view
        .nodes()
        .filter_map(|n| n.inventory.as_ref())
        .map(|i| i.gpus.len() as u32)
        .max()
        .unwrap_or(0);
    for w in workloads {
        let wanted = w.spec.gpus.count;
        if wanted > largest {
            w.warnings.push(format!(
                "today's fleet can never run this: it asks for {wanted} GPUs on one node, and the largest node has {largest}"
            ));
        }
        let native = w.spec.image == HOST_IMAGE;
        let runs = |engine: &EngineInfo| (engine.kind == EngineKind::Native) == native;
        let offered = view
            .nodes()
            .filter_map(|n| n.inventory.as_ref())
            .any(|i| i.engines.iter().any(runs));
        if !offered {
            let what = if native {
                "processes of its own (image 'host')"
            } else {
                "containers"
            };
            w.warnings
                .push(format!("today's fleet can never run this: no node runs {what}"));
        }
    }
}

/// `workload.list`
pub async fn list(call: Call, filter: WorkloadFilter) -> Result<Written<Vec<WorkloadSummary>>, ApiError> {
    // Cloning the `Arc`s is all that happens under the lock.
    let planned = call.app.hub.planned();
    let (mut found, node): (Vec<Versioned<Workload>>, Option<NodeName>) = {
        let view = call.app.hub.view();
        let node = filter
            .node
            .as_deref()
            .map(|n| view.find_node(n).map(|n| n.name.clone()))
            .transpose()?;
        let active_only = filter.running || filter.pending;
        let all: Vec<_> = if active_only {
            view.active().cloned().collect()
        } else {
            view.workloads().cloned().collect()
        };
        (all, node)
    };
    found.retain(|w| {
        (!filter.running || w.phase == Phase::Running)
            && (!filter.pending || w.phase == Phase::Pending)
            && (!filter.mine || w.owner == call.identity.name)
            && filter
                .since
                .is_none_or(|since| w.submitted_at >= since || w.finished_at.is_none_or(|at| at >= since))
            && node
                .as_ref()
                .is_none_or(|node| w.members.iter().any(|m| m.node == *node))
            && filter.namespace.as_ref().is_none_or(|ns| *ns == w.namespace)
            && call.identity.reaches(&w.namespace)
    });
    sort(&mut found, filter.sort.as_deref())?;
    found.truncate(filter.limit.map_or(usize::MAX, |l| l as usize));
    Ok(Written::json(call.app.rows.list(&found, planned)?))
}

fn sort(found: &mut [Versioned<Workload>], key: Option<&str>) -> Result<(), ApiError> {
    // Compared by reference: a long queue is sorted for each list, and a key of its own for each would cost more than
    // all the rest.
    fn node(w: &Workload) -> Option<&NodeName> {
        w.members.first().map(|m| &m.node)
    }
    let gpus = |w: &Workload| std::cmp::Reverse(w.spec.gpus.count * w.spec.node_count());
    let age = |a: &Workload, b: &Workload| a.submitted_at.cmp(&b.submitted_at);
    match key.unwrap_or("submitted") {
        // Equal times stay in the order of ids, in which they came.
        "submitted" => found.sort_by_cached_key(|w| w.submitted_at),
        "name" => found.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| age(a, b))),
        "phase" => found.sort_by_key(|w| (w.phase, w.submitted_at)),
        "priority" => found.sort_by_key(|w| (std::cmp::Reverse(w.spec.priority), w.submitted_at)),
        "gpus" => found.sort_by_key(|w| (gpus(w), w.submitted_at)),
        "node" => found.sort_by(|a, b| node(a).cmp(&node(b)).then_with(|| age(a, b))),
        "owner" => found.sort_by(|a, b| a.owner.cmp(&b.owner).then_with(|| age(a, b))),
        "started" => found.sort_by_key(|w| (w.started_at, w.submitted_at)),
        "finished" => found.sort_by_key(|w| (w.finished_at, w.submitted_at)),
        other => {
            return Err(ApiError::invalid("sort", format!("'{other}' is no key to sort by"))
                .hint("submitted, name, phase, priority, gpus, node, owner, started, finished"));
        }
    }
    Ok(())
}

/// A workload as `workload status` shows it.
pub async fn detail(app: &App, workload: Arc<Workload>) -> Result<WorkloadDetail, ApiError> {
    let explanation = match workload.phase {
        Phase::Pending => Some(app.planner.explain(Arc::clone(&workload)).await?),
        _ => None,
    };
    let pull = workload.members.iter().find_map(|m| {
        app.live.pull(&JobKey {
            workload: workload.id.clone(),
            attempt: workload.attempt,
            rank: m.rank,
        })
    });
    let pull = pull.filter(|_| workload.phase == Phase::Pulling);
    Ok(WorkloadDetail {
        workload: Arc::unwrap_or_clone(workload),
        explanation,
        pull,
    })
}

fn find(call: &Call, id: &str, given: &Option<String>) -> Result<Versioned<Workload>, ApiError> {
    let within = auth::within(&call.identity, given.as_deref())?;
    call.app.hub.view().find_workload(id, within).cloned()
}

/// `workload.get`
pub async fn get(call: Call, request: WorkloadRef) -> Result<WorkloadDetail, ApiError> {
    let workload = find(&call, &request.id, &request.namespace)?;
    detail(&call.app, workload.value).await
}

/// `workload.explain`
pub async fn explain(call: Call, request: WorkloadRef) -> Result<Explanation, ApiError> {
    let workload = find(&call, &request.id, &request.namespace)?;
    let w = &workload.value;
    if w.phase == Phase::Pending {
        return call.app.planner.explain(Arc::clone(w)).await;
    }
    let last = w.timeline.last();
    let why = w.message.clone().or_else(|| last.and_then(|t| t.message.clone()));
    let placed = w
        .timeline
        .iter()
        .rev()
        .find(|t| t.phase == Phase::Scheduled && t.attempt == w.attempt);
    Ok(Explanation {
        summary: match why {
            Some(why) => format!("{} is {}: {why}", w.name, w.phase),
            None => format!("{} is {}", w.name, w.phase),
        },
        placement: w
            .members
            .iter()
            .map(|m| api::op::ProposedMember {
                rank: m.rank,
                node: m.node.clone(),
                gpus: m
                    .gpus
                    .iter()
                    .map(|g| api::workload::GpuOnNode {
                        node: m.node.clone(),
                        index: g.index,
                    })
                    .collect(),
            })
            .collect(),
        because: placed.and_then(|t| t.message.clone()).into_iter().collect(),
        ..Explanation::default()
    })
}

/// Changes a workload by a decision, and shows it as it is then.
async fn change(
    call: &Call,
    id: &str,
    given: &Option<String>,
    mut decide: impl FnMut(&View, &Versioned<Workload>) -> Result<Option<Draft>, ApiError>,
) -> Result<WorkloadSummary, ApiError> {
    let mut found = None;
    let within = auth::within(&call.identity, given.as_deref())?;
    call.app
        .hub
        .decide(|view| {
            let workload = view.find_workload(id, within)?;
            found = Some(workload.id.clone());
            decide(view, workload)
        })
        .await?;
    let view = call.app.hub.view();
    let workload = found.and_then(|id| view.workload(&id)).ok_or_else(|| gone(id))?;
    Ok(WorkloadSummary::from(&**workload))
}

/// `workload.cancel`
pub async fn cancel(call: Call, request: CancelRequest) -> Result<Vec<WorkloadSummary>, ApiError> {
    if request.ids.is_empty() || request.ids.len() > AT_ONCE_MAX {
        return Err(ApiError::invalid("ids", format!("name 1 to {AT_ONCE_MAX} workloads")));
    }
    let by = call.actor();
    let within = auth::within(&call.identity, request.namespace.as_deref())?;
    let mut ids: Vec<WorkloadId> = Vec::new();
    call.app
        .hub
        .decide(|view| {
            let mut draft = Draft::new();
            let mut any = false;
            ids.clear();
            for id in &request.ids {
                let before = view.find_workload(id, within)?;
                if ids.contains(&before.id) {
                    continue;
                }
                if before.phase.ended() && request.ids.len() == 1 {
                    return Err(ApiError::conflict(format!(
                        "{} has already ended: it is {}",
                        before.name, before.phase
                    )));
                }
                ids.push(before.id.clone());
                if let Some(step) = lifecycle::cancel(before, request.grace, &by, now()) {
                    draft.step(before, step);
                    any = true;
                }
            }
            Ok(any.then_some(draft))
        })
        .await?;
    let view = call.app.hub.view();
    Ok(ids
        .iter()
        .filter_map(|id| view.workload(id))
        .map(|w| WorkloadSummary::from(&**w))
        .collect())
}

/// `workload.update`
pub async fn update(call: Call, request: UpdateRequest) -> Result<WorkloadSummary, ApiError> {
    if request.memory.is_none() && request.timeout.is_none() && request.priority.is_none() {
        return Err(
            ApiError::invalid("memory", "nothing to change was named").hint("--memory, --timeout or --priority")
        );
    }
    let by = call.actor();
    let change_to = update::Change {
        memory: request.memory,
        timeout: request.timeout,
        priority: request.priority,
    };
    change(&call, &request.id, &request.namespace, |view, before| {
        update::update(view, before, change_to, &by, now())
    })
    .await
}

/// `workload.migrate`
pub async fn migrate(call: Call, request: MigrateRequest) -> Result<WorkloadSummary, ApiError> {
    let by = call.actor();
    change(&call, &request.id, &request.namespace, |view, before| {
        if !before.phase.placed() {
            return Err(ApiError::conflict(format!(
                "{} is {}: only a placed workload can be moved",
                before.name, before.phase
            )));
        }
        let target = match &request.target {
            None => None,
            Some(_) if before.members.len() > 1 => {
                return Err(ApiError::conflict(format!(
                    "{} runs on {} nodes: it can't be moved to a single one",
                    before.name,
                    before.members.len()
                ))
                .hint("leave out --target, and it goes to any other nodes"));
            }
            Some(text) => {
                let node = view.find_node(text)?;
                if before.members.iter().any(|m| m.node == node.name) {
                    return Err(ApiError::conflict(format!(
                        "{} is already on {}",
                        before.name, node.name
                    )));
                }
                if node.reach != Reach::Online || node.drain.is_some() {
                    return Err(ApiError::conflict(format!("{} takes no work now", node.name)));
                }
                Some(node.name.clone())
            }
        };
        if before.spec.node.is_some() {
            return Err(ApiError::conflict(format!(
                "{} is pinned to its node by --node",
                before.name
            )));
        }
        let order = StopOrder {
            reason: StopReason::Migrated,
            grace: before.spec.grace(),
            by: by.clone(),
            at: now(),
            in_favour_of: None,
            message: None,
        };
        let Some(mut step) = lifecycle::order_stop(before, order) else {
            return Err(ApiError::conflict(format!("{} is already being stopped", before.name)));
        };
        step.workload.target = target;
        let mut draft = Draft::new();
        draft.step(before, step);
        Ok(Some(draft))
    })
    .await
}

/// `workload.usage`
pub async fn usage(call: Call, request: UsageRequest) -> Result<Vec<UsageRow>, ApiError> {
    let by = request.by.as_deref().unwrap_or("owner");
    let label = by.strip_prefix("label:");
    if !matches!(by, "owner" | "node") && label.is_none_or(str::is_empty) {
        return Err(ApiError::invalid("by", format!("'{by}' is nothing to sum up by")).hint("owner, node or label:KEY"));
    }
    let at = now();
    let from = time::before(at, request.last.unwrap_or(USAGE_WINDOW));
    let workloads: Vec<Arc<Workload>> = call.app.hub.view().workloads().map(|w| Arc::clone(&w.value)).collect();
    let oldest = workloads.iter().map(|w| w.submitted_at).min().unwrap_or(at);
    let since = from.max(oldest);
    let mut rows: BTreeMap<String, (f64, std::collections::BTreeSet<WorkloadId>, u32)> = BTreeMap::new();
    for w in workloads.iter().filter(|w| call.identity.reaches(&w.namespace)) {
        let attempts = w
            .past
            .iter()
            .map(|p| p.members.as_slice())
            .chain([w.members.as_slice()]);
        for members in attempts {
            for member in members {
                let hours = hours_in(member, from, at);
                if hours <= 0.0 {
                    continue;
                }
                let key = match (by, label) {
                    (_, Some(label)) => w.labels.get(label).cloned().unwrap_or_default(),
                    ("node", _) => member.node.to_string(),
                    _ => w.owner.clone(),
                };
                let row = rows.entry(key).or_default();
                row.0 += hours * member.gpus.len() as f64;
                row.1.insert(w.id.clone());
                row.2 += u32::from(member.rank == 0);
            }
        }
    }
    Ok(rows
        .into_iter()
        .map(|(key, (gpu_hours, workloads, attempts))| UsageRow {
            key,
            gpu_hours,
            workloads: workloads.len() as u32,
            attempts,
            since,
        })
        .collect())
}

/// Hours for which a member ran within a window.
fn hours_in(member: &Member, from: Timestamp, to: Timestamp) -> f64 {
    let (start, end) = match &member.state {
        MemberState::Running { started_at, .. } => (*started_at, to),
        MemberState::Ended {
            started_at: Some(started_at),
            at,
            ..
        } => (*started_at, *at),
        _ => return 0.0,
    };
    time::between(start.max(from), end.min(to)).millis() as f64 / 3_600_000.0
}
