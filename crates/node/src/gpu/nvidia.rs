//! NVIDIA GPUs by NVML, which is loaded at run time: a machine without it just has no NVIDIA GPUs.
//!
//! A thread of its own owns the library, because its calls can hang for minutes when a GPU or the driver is in
//! trouble. Who asks waits for a bounded time, and is told that the driver doesn't answer; the agent goes on. When
//! the driver itself goes away (an upgrade while the agent runs), the thread loads the library anew at the next
//! question.

mod fields;
mod measure;
mod read;

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use api::{
    GpuIndex,
    node::{GpuHealth, GpuInfo, GpuPair, GpuSample, Vendor},
};
use nvml_wrapper::{Nvml, error::NvmlError};

use self::read::Reader;
use super::{Driver, DriverError};
use crate::sample::Reading;

/// The vendor's name in errors.
const NVIDIA: &str = "NVIDIA";

/// Where the library is when the loader doesn't find it by name: WSL, Kubernetes nodes of Google and others, NixOS.
const ELSEWHERE: [&str; 4] = [
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/home/kubernetes/bin/nvidia/lib64/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
];

/// How NVML is found and asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// The library. `None`: `libnvidia-ml.so.1`, where the system keeps it.
    pub library: Option<PathBuf>,
    /// Where sysfs is mounted.
    pub sysfs: PathBuf,
    /// Longest wait for an answer.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            library: None,
            sysfs: PathBuf::from("/sys"),
            // A first call without persistence mode initialises every GPU, which takes some seconds.
            patience: Duration::from_secs(10),
        }
    }
}

/// GPUs as an inventory finds them, with notes on those that it had to leave out.
type Inventory = (Vec<GpuInfo>, Vec<String>);

/// A question to the thread that owns the library.
enum Question {
    Inventory(Sender<Result<Inventory, DriverError>>),
    Links(Sender<Vec<GpuPair>>),
    Sample(Sender<Vec<GpuSample>>),
    Readings(GpuIndex, Sender<Vec<Reading>>),
}

/// What the driver and its thread share.
#[derive(Default)]
struct Shared {
    /// Every GPU that an inventory has held.
    seen: BTreeSet<GpuIndex>,
    /// Questions asked and answered so far; they are answered in order.
    asked: u64,
    answered: u64,
    /// The number of a question that somebody gave up waiting for, and when it was asked.
    given_up: Option<(u64, Instant)>,
    /// Of the last inventory.
    notes: Vec<String>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The NVIDIA GPUs of this machine.
///
/// A GPU's index is NVML's, which orders by PCI address; CUDA does so only with `CUDA_DEVICE_ORDER=PCI_BUS_ID`, so
/// GPUs are best handed to programs by their UUID.
pub struct Nvidia {
    questions: Sender<Question>,
    shared: Arc<Mutex<Shared>>,
    patience: Duration,
}

impl Nvidia {
    /// Loads the library and opens the driver.
    ///
    /// # Errors
    /// [`DriverError::Absent`] without a library or loaded driver; [`DriverError::Failed`] where there is one that
    /// doesn't work or doesn't answer in time, or where a library was named that can't be loaded.
    pub fn open(options: Options) -> Result<Self, DriverError> {
        let (questions, asked) = mpsc::channel();
        let (ready, opened) = mpsc::channel();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let patience = options.patience;
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || work(&options, &asked, &ready, &theirs))
            .map_err(|error| failed(format!("its thread can't start: {error}")))?;
        match opened.recv_timeout(patience) {
            Ok(result) => result?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(failed(format!("NVML didn't start within {} s", patience.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(failed("its thread has ended".to_owned())),
        }
        Ok(Self {
            questions,
            shared,
            patience,
        })
    }

    /// Asks the thread; an error says in words why there is no answer.
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Result<T, String> {
        let asked = Instant::now();
        let (reply, answer) = mpsc::channel();
        let number = {
            let mut shared = lock(&self.shared);
            if let Some((number, since)) = shared.given_up
                && shared.answered < number
            {
                return Err(format!("NVML hasn't answered for {} s", since.elapsed().as_secs()));
            }
            self.questions
                .send(question(reply))
                .map_err(|_| "the NVML thread has ended".to_owned())?;
            shared.given_up = None;
            shared.asked += 1;
            shared.asked
        };
        match answer.recv_timeout(self.patience) {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Disconnected) => Err("the NVML thread has ended".to_owned()),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.shared).given_up.get_or_insert((number, asked));
                Err(format!("NVML didn't answer within {} s", self.patience.as_secs_f32()))
            }
        }
    }
}

impl Driver for Nvidia {
    fn vendor(&self) -> Vendor {
        Vendor::Nvidia
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        let (gpus, notes) = self.ask(Question::Inventory).map_err(failed)??;
        lock(&self.shared).notes = notes;
        Ok(gpus)
    }

    fn links(&self) -> Vec<GpuPair> {
        self.ask(Question::Links).unwrap_or_default()
    }

    fn sample(&self) -> Vec<GpuSample> {
        self.ask(Question::Sample)
            .unwrap_or_else(|why| unknown(&lock(&self.shared).seen, &why))
    }

    fn readings(&self, index: GpuIndex) -> Vec<Reading> {
        self.ask(|reply| Question::Readings(index, reply))
            .unwrap_or_else(|_| vec![super::up(false)])
    }

    fn notes(&self) -> Vec<String> {
        lock(&self.shared).notes.clone()
    }
}

/// Samples that say of each GPU that nothing is known.
fn unknown(seen: &BTreeSet<GpuIndex>, why: &str) -> Vec<GpuSample> {
    seen.iter()
        .map(|&index| GpuSample {
            index,
            health: GpuHealth::Unknown { reason: why.to_owned() },
            ..GpuSample::default()
        })
        .collect()
}

fn failed(why: String) -> DriverError {
    DriverError::Failed { vendor: NVIDIA, why }
}

/// Loads the library: the named one, else by name, else where it is known to hide.
fn open_library(options: &Options) -> Result<Nvml, DriverError> {
    let load = |path: &OsStr| Nvml::builder().lib_path(path).init();
    if let Some(path) = &options.library {
        return load(path.as_os_str()).map_err(|error| match error {
            NvmlError::LibloadingError(error) => failed(format!("{} can't be loaded: {error}", path.display())),
            error => refused(&error),
        });
    }
    let mut missing = match Nvml::init() {
        Ok(nvml) => return Ok(nvml),
        Err(NvmlError::LibloadingError(error)) => error.to_string(),
        Err(error) => return Err(refused(&error)),
    };
    for path in ELSEWHERE.iter().filter(|path| std::path::Path::new(path).exists()) {
        match load(OsStr::new(path)) {
            Ok(nvml) => return Ok(nvml),
            Err(NvmlError::LibloadingError(error)) => missing = error.to_string(),
            Err(error) => return Err(refused(&error)),
        }
    }
    Err(DriverError::Absent {
        vendor: NVIDIA,
        why: missing,
    })
}

/// Why the library, once loaded, refused to start.
fn refused(error: &NvmlError) -> DriverError {
    match error {
        NvmlError::DriverNotLoaded => DriverError::Absent {
            vendor: NVIDIA,
            why: "the library is there but the kernel driver isn't loaded".to_owned(),
        },
        NvmlError::LibRmVersionMismatch => failed(
            "library and kernel driver have different versions: the driver was upgraded without a reload or reboot"
                .to_owned(),
        ),
        NvmlError::NoPermission => failed("no permission to open /dev/nvidiactl".to_owned()),
        error => failed(error.to_string()),
    }
}

/// The thread: answers until nobody can ask any more.
fn work(
    options: &Options,
    questions: &Receiver<Question>,
    ready: &Sender<Result<(), DriverError>>,
    shared: &Mutex<Shared>,
) {
    let mut nvml = match open_library(options) {
        Ok(nvml) => {
            if ready.send(Ok(())).is_err() {
                return;
            }
            Some(nvml)
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    while let Ok(question) = questions.recv() {
        // After a load that was given up: try anew for each question.
        match nvml.take().map_or_else(|| open_library(options), Ok) {
            Ok(nvml) => serve(&nvml, options, question, questions, shared),
            Err(error) => refuse(question, &error, shared),
        }
    }
}

/// Answers with one load of the library, until the driver has gone or nobody asks any more.
fn serve(nvml: &Nvml, options: &Options, first: Question, questions: &Receiver<Question>, shared: &Mutex<Shared>) {
    let mut reader = Reader::new(nvml, &options.sysfs);
    let mut next = Some(first);
    while let Some(question) = next {
        // Whoever asked may have given up: a send that fails is nothing to act on.
        match question {
            Question::Inventory(reply) => {
                let found = reader.inventory();
                if let Ok((gpus, _)) = &found {
                    lock(shared).seen.extend(gpus.iter().map(|gpu| gpu.index));
                }
                answered(shared);
                let _ = reply.send(found);
            }
            Question::Links(reply) => {
                let seen = lock(shared).seen.clone();
                let links = reader.links(&seen);
                answered(shared);
                let _ = reply.send(links);
            }
            Question::Sample(reply) => {
                let seen = lock(shared).seen.clone();
                let samples = reader.sample(&seen);
                answered(shared);
                let _ = reply.send(samples);
            }
            Question::Readings(index, reply) => {
                let readings = reader.readings(index);
                answered(shared);
                let _ = reply.send(readings);
            }
        }
        if reader.driver_gone() {
            return;
        }
        next = questions.recv().ok();
    }
}

fn answered(shared: &Mutex<Shared>) {
    lock(shared).answered += 1;
}

/// Answers a question while the driver is away.
fn refuse(question: Question, error: &DriverError, shared: &Mutex<Shared>) {
    answered(shared);
    match question {
        Question::Inventory(reply) => {
            // A driver that was there before isn't absent now: it has stopped working.
            let (DriverError::Absent { why, .. } | DriverError::Failed { why, .. }) = error;
            let _ = reply.send(Err(failed(why.clone())));
        }
        Question::Links(reply) => {
            let _ = reply.send(Vec::new());
        }
        Question::Sample(reply) => {
            let samples = unknown(&lock(shared).seen, &error.to_string());
            let _ = reply.send(samples);
        }
        Question::Readings(_, reply) => {
            let _ = reply.send(vec![super::up(false)]);
        }
    }
}
