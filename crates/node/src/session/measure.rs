//! Looks at everything once an interval: machine, GPUs, and the workloads that run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::{
    GpuIndex, Size,
    metric::label,
    node::Inventory,
    wire::{FactKind, SeriesKey},
    workload::JobKey,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use hyper::{Request, header};
use tokio::{sync::watch, time::timeout};

use super::{Output, http, probe::Probe};
use crate::{
    agent::Now,
    engine::Engine,
    sample::{
        Labels, Own, Raw, Reading, Recorder, Sample,
        kernel::queue::{Facts, Place, name_gpu},
        labels, samples,
    },
    spool::Volume,
};

/// How long a workload may take to answer, each for its engine and its endpoint.
const PATIENCE: Duration = Duration::from_secs(3);

/// Workloads that are asked at once.
const AT_ONCE: usize = 16;

/// A workload that runs.
pub(super) struct Job {
    pub(super) key: JobKey,
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) memory: Option<Size>,
    /// The real one.
    pub(super) metrics_port: Option<u16>,
}

/// Asks how much workloads say.
#[derive(Clone)]
pub(super) struct Volumes {
    output: Arc<dyn Output>,
    /// A question is open.
    busy: Arc<AtomicBool>,
}

impl Volumes {
    pub(super) fn new(output: Arc<dyn Output>) -> Self {
        Self {
            output,
            busy: Arc::default(),
        }
    }

    /// Of all workloads that have said something. `None`: the disk doesn't answer.
    async fn ask(self) -> Option<HashMap<JobKey, Volume>> {
        // A disk that hangs holds up one thread, not one each time.
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let asked = tokio::task::spawn_blocking(move || {
            let volumes = self.output.volumes();
            self.busy.store(false, Ordering::Release);
            volumes
        });
        match timeout(PATIENCE, asked).await.ok()?.ok()? {
            Ok(volumes) => Some(volumes),
            Err(error) => {
                tracing::warn!(%error, "how much workloads say can't be read");
                None
            }
        }
    }
}

/// What a look at everything gave.
pub(super) struct Measured {
    at: Now,
    raw: Raw,
    scraped: Vec<(JobKey, Vec<Sample>)>,
    facts: Vec<(FactKind, String)>,
}

/// Looks at everything.
pub(super) async fn look(at: Now, probe: Arc<Probe>, volumes: Volumes, jobs: Vec<Job>) -> Measured {
    let of_jobs = stream::iter(jobs)
        .map(look_at)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    let ((mut sources, facts), of_jobs, mut volumes) = futures_util::join!(probe.measure(), of_jobs, volumes.ask());
    let mut scraped = Vec::new();
    for (key, mut readings, page) in of_jobs {
        if let Some(volumes) = &mut volumes {
            readings.extend(said(volumes.remove(&key)));
        }
        sources.push((labels(&key), readings));
        scraped.extend(page.map(|page| (key, page)));
    }
    // That lines are lost may be found after their workload's end.
    for (key, volume) in volumes.into_iter().flatten().filter(|(_, volume)| volume.lost > 0) {
        sources.push((labels(&key), vec![lost(volume)]));
    }
    Measured {
        at,
        raw: Raw { sources },
        scraped,
        facts,
    }
}

/// Fills in whose control group reached its limit.
pub(super) async fn name_job(what: &mut FactKind, engines: &[Arc<dyn Engine>]) {
    let FactKind::OomKill {
        cgroup: Some(cgroup),
        job,
        ..
    } = what
    else {
        return;
    };
    for engine in engines {
        // A daemon that doesn't answer must not keep the fact itself back.
        *job = timeout(PATIENCE, engine.owner(cgroup)).await.ok().flatten();
        if job.is_some() {
            return;
        }
    }
}

/// What a workload that runs has said. `None`: nothing.
fn said(volume: Option<Volume>) -> impl Iterator<Item = Reading> {
    let volume = volume.unwrap_or(Volume {
        bytes: Some(0),
        ..Volume::default()
    });
    let bytes = volume.bytes.map(|bytes| Reading::total("workload.log.bytes", bytes));
    [Reading::total("workload.log.lines", volume.lines), lost(volume)]
        .into_iter()
        .chain(bytes)
}

fn lost(volume: Volume) -> Reading {
    Reading::count("workload.log.lost", volume.lost)
}

async fn look_at(job: Job) -> (JobKey, Vec<Reading>, Option<Vec<Sample>>) {
    let stats = async { timeout(PATIENCE, job.engine.as_ref()?.stats(&job.key)).await.ok()? };
    let page = async {
        let port = job.metrics_port?;
        match timeout(PATIENCE, scrape(port)).await {
            Ok(Ok(page)) => return Some(samples(&page)),
            Ok(Err(why)) => tracing::debug!(job = %job.key, port, why, "a workload's metrics can't be read"),
            Err(_) => tracing::debug!(job = %job.key, port, "a workload's metrics don't come"),
        }
        None
    };
    let (stats, page) = futures_util::join!(stats, page);
    let stats = stats.unwrap_or_default();
    let mut readings = vec![Reading::now("workload.restarts", job.key.attempt.saturating_sub(1))];
    // Milliseconds of CPU time a second, of which a thousand are a core.
    readings.extend(stats.cpu_ms.map(|ms| Reading {
        value: crate::sample::Value::Total(ms as f64 / 1000.0),
        ..Reading::now("workload.cpu", 0)
    }));
    readings.extend(
        stats
            .memory_bytes
            .map(|bytes| Reading::count("workload.memory", bytes.0)),
    );
    readings.extend(job.memory.map(|limit| Reading::count("workload.memory.limit", limit.0)));
    readings.extend(stats.io_bytes.map(|bytes| Reading::total("workload.io", bytes.0)));
    (job.key, readings, page)
}

/// A workload's page: workloads of every engine are reached at the node's own address.
async fn scrape(port: u16) -> Result<String, String> {
    let authority = format!("127.0.0.1:{port}");
    let request = Request::get("/metrics")
        .header(header::HOST, &authority)
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .body(Full::new(Bytes::new()))
        .map_err(|error| error.to_string())?;
    let (status, body) = http::send(&authority, request)
        .await
        .map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The last value of each series.
pub(super) type Latest = Arc<Vec<(Arc<SeriesKey>, f64)>>;

/// All that was measured and isn't with the gateway yet.
pub(super) struct Measuring {
    pub(super) recorder: Recorder,
    pub(super) own: Own,
    pub(super) facts: Facts,
    /// A look is under way.
    pub(super) looking: bool,
    pub(super) volumes: Volumes,
    /// Where how far the gateway knows the kernel's log is kept.
    place: Place,
    boot_id: Option<String>,
    /// GPUs by PCI address, also those that have vanished.
    gpus: BTreeMap<String, (GpuIndex, String)>,
    latest: watch::Sender<Latest>,
}

impl Measuring {
    pub(super) fn new(interval: Duration, place: Place, inventory: &Inventory, output: Arc<dyn Output>) -> Self {
        let mut new = Self {
            recorder: Recorder::default(),
            own: Own::new(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)),
            facts: Facts::default(),
            looking: false,
            volumes: Volumes::new(output),
            place,
            boot_id: inventory.boot_id.clone(),
            gpus: BTreeMap::new(),
            latest: watch::Sender::default(),
        };
        new.inventory(inventory);
        new
    }

    /// Where the last values can be had.
    pub(super) fn latest(&self) -> watch::Receiver<Latest> {
        self.latest.subscribe()
    }

    /// A job has gone.
    pub(super) fn forget(&mut self, job: &JobKey) {
        self.own.forget(job);
        self.recorder.forget(&labels(job));
    }

    /// The machine was looked at.
    pub(super) fn inventory(&mut self, inventory: &Inventory) {
        for gpu in &inventory.gpus {
            if let Some(address) = &gpu.pci_address {
                self.gpus.insert(address.clone(), (gpu.index, gpu.uuid.clone()));
            }
        }
    }

    /// Takes what a look gave. Gives the workloads that passed their cap for the first time.
    pub(super) fn take(&mut self, measured: Measured) -> Vec<JobKey> {
        self.looking = false;
        let at_ms = measured.at.wall.as_millisecond();
        let mut over = Vec::new();
        for (job, samples) in measured.scraped {
            if self.own.scraped(&job, at_ms, &samples) {
                over.push(job);
            }
        }
        let own = self.own.take();
        self.recorder.record(measured.at.mono_ms, at_ms, measured.raw, own);
        self.latest.send_replace(Arc::new(self.recorder.latest().to_vec()));
        for (what, line) in measured.facts {
            self.facts.push(None, measured.at.wall, what, line);
        }
        over
    }

    /// Takes what the kernel's log said.
    pub(super) fn fact(&mut self, sequence: u64, at: api::Timestamp, mut what: FactKind, line: String) {
        name_gpu(&mut what, |pci| self.gpus.get(pci).cloned());
        tracing::debug!(line, "the kernel's log");
        self.facts.push(Some(sequence), at, what, line);
    }

    /// A new session.
    pub(super) fn begin(&mut self) {
        self.recorder.begin();
        self.facts.begin();
    }

    /// The gateway has these facts. Gives what is to be kept of that; it blocks for as long as the disk takes.
    pub(super) fn facts_acked(&mut self, through: u64) -> Option<impl FnOnce() + Send + use<>> {
        let sequence = self.facts.acked(through)?;
        let boot_id = self.boot_id.clone()?;
        let place = self.place.clone();
        Some(move || {
            if let Err(error) = place.save(&boot_id, sequence) {
                tracing::warn!(%error, "how far the gateway knows the kernel's log couldn't be kept");
            }
        })
    }

    /// The number of the last record of the kernel's log that the gateway knows.
    pub(super) fn known(&self) -> Option<u64> {
        self.place.load(self.boot_id.as_deref()?)
    }
}

/// The labels of all of a GPU's series.
pub(super) fn gpu_labels(gpu: &api::node::GpuInfo) -> Labels {
    vec![
        (label::GPU, gpu.index.to_string()),
        (label::UUID, gpu.uuid.clone()),
        (label::MODEL, gpu.model.clone()),
    ]
}
