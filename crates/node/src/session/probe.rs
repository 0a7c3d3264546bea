//! Asks the machine and its drivers, each on a thread of its own: one that hangs holds up nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use api::{
    GpuIndex,
    node::{EngineInfo, GpuHealth, GpuInfo, GpuPair, GpuSample, Inventory, NodeSample, Vendor},
    wire::FactKind,
};
use tokio::{sync::oneshot, time::timeout};

use super::measure::gpu_labels;
use crate::{
    gpu::{self, Driver, DriverError},
    host::Host,
    sample::{Reading, Source},
};

/// How long a heartbeat waits for numbers.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an inventory waits for a driver: the first call may load it.
const INVENTORY_PATIENCE: Duration = Duration::from_secs(20);

/// All of a machine but its GPUs. Calls may block for milliseconds.
pub trait Machine: Send + Sync + 'static {
    /// The machine; GPUs, links and engines are filled in by the agent.
    fn inventory(&self) -> Inventory;

    /// Its numbers of the moment; the GPUs are filled in by the agent.
    fn sample(&self) -> NodeSample;

    /// All that can be measured of it now, beside its GPUs.
    fn readings(&self) -> Vec<Reading>;
}

impl Machine for Host {
    fn inventory(&self) -> Inventory {
        self.inventory()
    }

    fn sample(&self) -> NodeSample {
        self.sample()
    }

    fn readings(&self) -> Vec<Reading> {
        self.readings()
    }
}

/// GPUs and links, as a driver tells them.
type Gpus = (Result<Vec<GpuInfo>, DriverError>, Vec<GpuPair>);

enum Ask {
    Inventory(oneshot::Sender<Gpus>),
    Sample(oneshot::Sender<Vec<GpuSample>>),
    Readings(GpuIndex, oneshot::Sender<Vec<Reading>>),
    Facts(oneshot::Sender<Vec<(FactKind, String)>>),
}

/// What was read, and what a kernel's log would have said.
pub(super) type Everything = (Vec<Source>, Vec<(FactKind, String)>);

/// Who asks a driver. Each has one question open at most, so that a driver that hangs gathers none; they don't stand
/// in each other's way.
#[derive(Clone, Copy)]
enum Asker {
    Inventory,
    Heartbeat,
    Measure,
}

/// A driver's thread. It ends when this is dropped and the driver answers.
struct Asked {
    vendor: Vendor,
    asks: mpsc::Sender<Ask>,
    /// By [`Asker`].
    busy: Arc<[AtomicBool; 3]>,
    /// As it last was.
    gpus: Mutex<Vec<GpuInfo>>,
    /// All that an inventory has ever held.
    met: Mutex<BTreeMap<GpuIndex, GpuInfo>>,
    links: Mutex<Vec<GpuPair>>,
}

impl Asked {
    fn start(driver: Box<dyn Driver>) -> std::io::Result<Self> {
        let vendor = driver.vendor();
        let (asks, queue) = mpsc::channel::<Ask>();
        let busy = Arc::new([const { AtomicBool::new(false) }; 3]);
        thread::Builder::new().name("gpu-driver".to_owned()).spawn({
            let busy = Arc::clone(&busy);
            move || {
                let free = |asker: Asker| busy[asker as usize].store(false, Ordering::Release);
                while let Ok(ask) = queue.recv() {
                    match ask {
                        Ask::Inventory(answer) => {
                            let gpus = driver.inventory();
                            let links = driver.links();
                            free(Asker::Inventory);
                            drop(answer.send((gpus, links)));
                        }
                        Ask::Sample(answer) => {
                            let sample = driver.sample();
                            free(Asker::Heartbeat);
                            drop(answer.send(sample));
                        }
                        Ask::Readings(index, answer) => {
                            let readings = driver.readings(index);
                            free(Asker::Measure);
                            drop(answer.send(readings));
                        }
                        Ask::Facts(answer) => {
                            let facts = driver.facts();
                            free(Asker::Measure);
                            drop(answer.send(facts));
                        }
                    }
                }
            }
        })?;
        Ok(Self {
            vendor,
            asks,
            busy,
            gpus: Mutex::default(),
            met: Mutex::default(),
            links: Mutex::default(),
        })
    }

    /// Asks, unless an earlier question is still open. `None`: no answer in time.
    async fn ask<T>(&self, asker: Asker, patience: Duration, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        if self.busy[asker as usize].swap(true, Ordering::AcqRel) {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        self.asks.send(ask(sender)).ok()?;
        timeout(patience, answer).await.ok()?.ok()
    }
}

impl Asked {
    /// All that can be measured of its GPUs, one after the other, so that a heartbeat waits for one at most.
    async fn measure(&self) -> Everything {
        let met: Vec<GpuInfo> = lock(&self.met).values().cloned().collect();
        let mut sources = Vec::new();
        let mut answers = true;
        for gpu in met {
            let mut readings = None;
            if answers {
                let ask = |answer| Ask::Readings(gpu.index, answer);
                readings = self.ask(Asker::Measure, PATIENCE, ask).await;
                answers = readings.is_some();
            }
            sources.push((gpu_labels(&gpu), readings.unwrap_or_else(|| vec![gpu::up(false)])));
        }
        let facts = if answers {
            self.ask(Asker::Measure, PATIENCE, Ask::Facts).await
        } else {
            None
        };
        (sources, facts.unwrap_or_default())
    }
}

/// The machine and its drivers.
pub(super) struct Probe {
    machine: Arc<dyn Machine>,
    drivers: Vec<Asked>,
    notes: Vec<String>,
    /// The machine is being measured.
    measuring: Arc<AtomicBool>,
}

impl Probe {
    pub(super) fn new(
        machine: Arc<dyn Machine>,
        drivers: Vec<Box<dyn Driver>>,
        notes: Vec<String>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            measuring: Arc::default(),
            machine,
            drivers: drivers.into_iter().map(Asked::start).collect::<Result<_, _>>()?,
            notes,
        })
    }

    /// Adds to what a person should know.
    pub(super) fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        self.notes.extend(notes);
    }

    /// The machine as it is now. A driver that doesn't answer is taken as it last was, with a note.
    pub(super) async fn inventory(&self, engines: Vec<EngineInfo>) -> Inventory {
        let machine = Arc::clone(&self.machine);
        // It panics only where the machine's own code does, and then there is nothing to go on with.
        let mut inventory = match tokio::task::spawn_blocking(move || machine.inventory()).await {
            Ok(inventory) => inventory,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        inventory.notes.extend(self.notes.iter().cloned());
        for driver in &self.drivers {
            match driver.ask(Asker::Inventory, INVENTORY_PATIENCE, Ask::Inventory).await {
                Some((Ok(gpus), links)) => {
                    lock(&driver.met).extend(gpus.iter().map(|gpu| (gpu.index, gpu.clone())));
                    *lock(&driver.gpus) = gpus;
                    *lock(&driver.links) = links;
                }
                Some((Err(error), _)) => inventory.notes.push(error.to_string()),
                None => inventory
                    .notes
                    .push(format!("the {:?} driver doesn't answer", driver.vendor)),
            }
            inventory.gpus.extend(lock(&driver.gpus).iter().cloned());
            inventory.links.extend(lock(&driver.links).iter().copied());
        }
        inventory.gpus.sort_by_key(|gpu| gpu.index);
        inventory.engines = engines;
        inventory
    }

    /// The numbers of the moment. GPUs of a driver that doesn't answer are there with unknown health.
    pub(super) async fn sample(&self) -> NodeSample {
        let machine = Arc::clone(&self.machine);
        let mut sample = match timeout(PATIENCE, tokio::task::spawn_blocking(move || machine.sample())).await {
            Ok(Ok(sample)) => sample,
            _ => NodeSample::default(),
        };
        let answers = self
            .drivers
            .iter()
            .map(|driver| driver.ask(Asker::Heartbeat, PATIENCE, Ask::Sample));
        for (driver, answer) in self.drivers.iter().zip(futures_util::future::join_all(answers).await) {
            sample.gpus.extend(answer.unwrap_or_else(|| {
                let unknown = |gpu: &GpuInfo| GpuSample {
                    index: gpu.index,
                    health: GpuHealth::Unknown {
                        reason: "the driver doesn't answer".to_owned(),
                    },
                    ..GpuSample::default()
                };
                lock(&driver.gpus).iter().map(unknown).collect()
            }));
        }
        sample.gpus.sort_by_key(|gpu| gpu.index);
        sample
    }

    /// All that can be measured now. Of what doesn't answer, nothing; of GPUs that don't, that.
    pub(super) async fn measure(&self) -> Everything {
        let machine = async {
            // A disk that hangs holds up one thread, not one each time.
            if self.measuring.swap(true, Ordering::AcqRel) {
                return Vec::new();
            }
            let (machine, measuring) = (Arc::clone(&self.machine), Arc::clone(&self.measuring));
            let readings = tokio::task::spawn_blocking(move || {
                let readings = machine.readings();
                measuring.store(false, Ordering::Release);
                readings
            });
            match timeout(PATIENCE, readings).await {
                Ok(Ok(readings)) => readings,
                _ => Vec::new(),
            }
        };
        let gpus = futures_util::future::join_all(self.drivers.iter().map(Asked::measure));
        let (machine, gpus) = futures_util::join!(machine, gpus);
        let mut sources = vec![(Vec::new(), machine)];
        let mut facts = Vec::new();
        for (readings, said) in gpus {
            sources.extend(readings);
            facts.extend(said);
        }
        (sources, facts)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
