//! Jobs whose shim isn't a child of this agent's spawner: found after a restart, or left over.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use api::{
    Timestamp,
    workload::{JobKey, Outcome, Usage},
};
use rustix::process::{Signal, pidfd_send_signal};

use super::{
    Job, Shared,
    cgroup::Cgroup,
    proc::{self, Proc, Stat},
    record::Step,
    supervise::{finish, news},
};
use crate::{engine::Found, spool::folder::awaitable};

/// Finds the jobs of an earlier life, watches the living ones, and kills what belongs to none. Jobs that were
/// accepted and not begun come back as `relaunch`.
pub(super) async fn adopt(shared: &Arc<Shared>) -> Adopted {
    let mut adopted = Adopted::default();
    let jobs = match shared.records.jobs() {
        Ok(jobs) => jobs,
        Err(error) => {
            adopted.leftovers.push(format!("the run folder can't be read: {error}"));
            return adopted;
        }
    };
    for key in jobs {
        adopt_job(shared, key, &mut adopted).await;
    }
    let Some(tree) = &shared.tree else { return adopted };
    for name in tree.jobs() {
        let known = name.parse().is_ok_and(|key: JobKey| shared.lock().contains_key(&key));
        if !known {
            let cgroup = tree.whole_job(&name);
            let count = cgroup.processes().len();
            kill_remains(None, Some(cgroup), None).await;
            adopted.leftovers.push(format!(
                "the cgroup of {name} belonged to no known job: {count} processes killed"
            ));
        }
    }
    adopted
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    pub(super) found: Vec<Found>,
    pub(super) leftovers: Vec<String>,
    pub(super) relaunch: Vec<JobKey>,
}

async fn adopt_job(shared: &Arc<Shared>, key: JobKey, adopted: &mut Adopted) {
    let spec = shared.records.spec(&key);
    // A shim that ends between these two looks has written its end before it died.
    let alive = |steps: &[Step]| match steps.first() {
        Some(Step::Shim(shim)) => shim.open().unwrap_or(None),
        _ => None,
    };
    let read = |adopted: &mut Adopted| {
        shared.records.steps(&key).unwrap_or_else(|error| {
            adopted
                .leftovers
                .push(format!("the state of {key} can't be read: {error}"));
            Vec::new()
        })
    };
    let handle = alive(&read(adopted));
    let steps = read(adopted);
    let mut job = Job {
        assignment: spec.as_ref().ok().map(|spec| Arc::new(spec.job.clone())),
        seen: steps.len(),
        kill_at_ns: shared.records.stop(&key).ok().flatten().map(|order| order.kill_at_ns),
        ..Job::default()
    };
    for step in &steps {
        match step {
            Step::Shim(shim) => job.shim = Some(*shim),
            Step::Started { at, main } => {
                job.started_at = Some(*at);
                job.main = Some(*main);
            }
            Step::Ended {
                at,
                outcome,
                usage,
                fenced,
            } => {
                job.fenced = *fenced;
                job.ended = Some((*at, outcome.clone(), *usage));
            }
        }
    }
    // A job that was refused has an end and no spec.
    if let Err(error) = &spec
        && job.ended.is_none()
    {
        adopted
            .leftovers
            .push(format!("the record of {key} can't be read: {error}"));
    }
    let same_boot = spec.as_ref().map_or(true, |spec| spec.boot == shared.boot);
    let started_at = job.started_at;
    if job.ended.is_none() && (!same_boot || (spec.is_err() && handle.is_none())) {
        let why = if same_boot {
            kill_remains(Some(shared.workdir(&key)), shared.cgroup(&key, None), job.main).await;
            "its record was lost"
        } else {
            "the machine restarted"
        };
        let ended = (
            Timestamp::now(),
            Outcome::Unknown { why: why.to_owned() },
            Usage::default(),
        );
        let step = Step::Ended {
            at: ended.0,
            outcome: ended.1.clone(),
            usage: ended.2,
            fenced: false,
        };
        if let Err(error) = shared.records.close(&key, &step) {
            tracing::warn!(job = %key, %error, "its end can't be recorded");
        }
        job.seen += 1;
        job.ended = Some(ended);
    }
    let ended = job.ended.clone();
    let claimed = job.shim.is_some();
    // Nobody has kept them; one that is to stop doesn't need them any more.
    let needs = spec.is_ok_and(|spec| !spec.job.secrets.is_empty()) && job.kill_at_ns.is_none();
    let wants_secrets = needs && ended.is_none() && handle.is_none() && !claimed;
    job.wants_secrets = wants_secrets;
    shared.lock().insert(key.clone(), job);
    if ended.is_none() {
        match handle {
            Some(handle) => watch(shared, key.clone(), handle),
            None if claimed => abandoned(shared, key.clone(), "died while the agent was away".to_owned()),
            None if wants_secrets => {}
            None => adopted.relaunch.push(key.clone()),
        }
    }
    adopted.found.push(Found {
        job: key,
        started_at,
        ended,
        wants_secrets,
    });
}

/// Waits for the end of a shim that isn't our spawner's child.
pub(super) fn watch(shared: &Arc<Shared>, job: JobKey, handle: OwnedFd) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        if let Err(error) = readable(handle).await {
            tracing::error!(%job, %error, "its shim can't be watched");
            return;
        }
        shim_gone(&shared, &job, "died");
    });
}

async fn readable(handle: OwnedFd) -> io::Result<()> {
    awaitable(handle)?.readable().await?.retain_ready();
    Ok(())
}

/// A shim has ended: by itself after all was done, or before.
pub(super) fn shim_gone(shared: &Arc<Shared>, job: &JobKey, how: &str) {
    news(shared, job);
    let shim = match shared.lock().get(job) {
        Some(known) if known.ended.is_none() => known.shim,
        _ => return,
    };
    match shim.map(Proc::open) {
        // Another shim holds the job: it had been launched twice.
        Some(Ok(Some(handle))) => watch(shared, job.clone(), handle),
        _ => abandoned(shared, job.clone(), how.to_owned()),
    }
}

/// Ends a job whose shim died without having written how it ended.
fn abandoned(shared: &Arc<Shared>, job: JobKey, how: String) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let (main, cpu, claimed) = match shared.lock().get(&job) {
            Some(known) => (
                known.main,
                known.assignment.as_ref().and_then(|assignment| assignment.cpu),
                known.shim.is_some(),
            ),
            None => return,
        };
        kill_remains(Some(shared.workdir(&job)), shared.cgroup(&job, cpu), main).await;
        let outcome = if claimed {
            Outcome::Unknown {
                why: format!("its shim {how}"),
            }
        } else {
            Outcome::StartFailed {
                code: api::ErrorCode::Internal,
                message: format!("its shim {how} before it began"),
                retryable: true,
            }
        };
        finish(&shared, &job, outcome);
    });
}

/// Kills all that is left of a job, and waits until it is gone: what is in its cgroup, what carries its working
/// folder in the environment, and the process group of its command as long as that lives.
async fn kill_remains(workdir: Option<PathBuf>, cgroup: Option<Cgroup>, main: Option<Proc>) {
    loop {
        let (workdir, in_cgroup) = (workdir.clone(), cgroup.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let mut handles = in_cgroup.as_ref().map(Cgroup::kill).unwrap_or_default();
            let members = in_cgroup.map(|cgroup| cgroup.processes().len()).unwrap_or_default();
            handles.extend(kill_marked(workdir.as_deref(), main));
            (handles, members)
        })
        .await;
        let Ok((handles, members)) = looked else { return };
        if handles.is_empty() && members == 0 {
            break;
        }
        for handle in handles {
            if let Err(error) = readable(handle).await {
                tracing::error!(%error, "a process can't be watched");
                return;
            }
        }
    }
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
}

fn kill_marked(workdir: Option<&Path>, main: Option<Proc>) -> Vec<OwnedFd> {
    let mark = workdir.map(|workdir| format!("CLAWBERNETES_WORKDIR={}", workdir.display()).into_bytes());
    let group = main
        .filter(|main| Proc::of(main.pid) == Some(*main))
        .map(|main| main.pid);
    let belongs = |pid: i32| {
        group.is_some_and(|group| Stat::of(pid).is_some_and(|stat| stat.group == group))
            || mark.as_ref().is_some_and(|mark| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == mark))
            })
    };
    proc::all()
        .into_iter()
        .filter(|pid| belongs(*pid))
        .filter_map(|pid| Proc::of(pid)?.open().ok()?.map(|handle| (pid, handle)))
        // The handle was made after the first look: whoever it stands for must belong too.
        .filter(|(pid, _)| belongs(*pid))
        .map(|(_, handle)| {
            let _ = pidfd_send_signal(&handle, Signal::KILL);
            handle
        })
        .collect()
}
