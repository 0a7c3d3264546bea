//! Asks the machine and its drivers, each on a thread of its own: one that hangs holds up nobody.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use api::node::{EngineInfo, GpuHealth, GpuInfo, GpuPair, GpuSample, Inventory, NodeSample, Vendor};
use tokio::{sync::oneshot, time::timeout};

use crate::{
    gpu::{Driver, DriverError},
    host::Host,
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
}

impl Machine for Host {
    fn inventory(&self) -> Inventory {
        self.inventory()
    }

    fn sample(&self) -> NodeSample {
        self.sample()
    }
}

/// GPUs and links, as a driver tells them.
type Gpus = (Result<Vec<GpuInfo>, DriverError>, Vec<GpuPair>);

enum Ask {
    Inventory(oneshot::Sender<Gpus>),
    Sample(oneshot::Sender<Vec<GpuSample>>),
}

/// A driver's thread. It ends when this is dropped and the driver answers.
struct Asked {
    vendor: Vendor,
    asks: mpsc::Sender<Ask>,
    busy: Arc<AtomicBool>,
    /// As it last was.
    gpus: Mutex<Vec<GpuInfo>>,
    links: Mutex<Vec<GpuPair>>,
}

impl Asked {
    fn start(driver: Box<dyn Driver>) -> std::io::Result<Self> {
        let vendor = driver.vendor();
        let (asks, queue) = mpsc::channel::<Ask>();
        let busy = Arc::new(AtomicBool::new(false));
        thread::Builder::new().name("gpu-driver".to_owned()).spawn({
            let busy = Arc::clone(&busy);
            move || {
                while let Ok(ask) = queue.recv() {
                    match ask {
                        Ask::Inventory(answer) => {
                            let gpus = driver.inventory();
                            let links = driver.links();
                            busy.store(false, Ordering::Release);
                            drop(answer.send((gpus, links)));
                        }
                        Ask::Sample(answer) => {
                            let sample = driver.sample();
                            busy.store(false, Ordering::Release);
                            drop(answer.send(sample));
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
            links: Mutex::default(),
        })
    }

    /// Asks, unless an earlier question is still open. `None`: no answer in time.
    async fn ask<T>(&self, patience: Duration, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        self.asks.send(ask(sender)).ok()?;
        timeout(patience, answer).await.ok()?.ok()
    }
}

/// The machine and its drivers.
pub(super) struct Probe {
    machine: Arc<dyn Machine>,
    drivers: Vec<Asked>,
    notes: Vec<String>,
}

impl Probe {
    pub(super) fn new(
        machine: Arc<dyn Machine>,
        drivers: Vec<Box<dyn Driver>>,
        notes: Vec<String>,
    ) -> std::io::Result<Self> {
        Ok(Self {
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
            match driver.ask(INVENTORY_PATIENCE, Ask::Inventory).await {
                Some((Ok(gpus), links)) => {
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
        let answers = self.drivers.iter().map(|driver| driver.ask(PATIENCE, Ask::Sample));
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
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
