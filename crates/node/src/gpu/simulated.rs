//! GPUs that `--simulate-gpus` makes up, to learn and to test with: marked as simulated wherever they are shown, and
//! the same code path as for real ones above the driver trait.
//!
//! All numbers follow from the time (which is passed in), from which GPUs are held, and from the scenario's steps,
//! so that the same run shows the same numbers.

mod model;
mod scenario;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api::{
    GpuIndex, NodeName, Size,
    node::{GpuInfo, GpuLink, GpuPair, GpuSample, Vendor},
    wire::FactKind,
};

use self::{
    model::{Form, Model},
    scenario::Trouble,
};
pub use self::{
    model::{SimulatedGpus, SpecError},
    scenario::{Scenario, ScenarioError},
};
use super::{Driver, DriverError};
use crate::sample::Reading;

/// Tells the time since the simulation began.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Clock {
    /// A clock that reads what it is told to.
    pub fn new(read: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Real time, from now on.
    #[must_use]
    pub fn running() -> Self {
        let start = Instant::now();
        Self::new(move || start.elapsed())
    }

    fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

/// How long a GPU takes from cold to warm and back.
const WARMING: Duration = Duration::from_secs(60);

/// Core temperature of an idle and of a busy GPU.
const IDLE_CELSIUS: f32 = 33.0;
const BUSY_CELSIUS: f32 = 67.0;

/// At which a GPU slows itself down, and shuts itself down.
const SLOWDOWN_CELSIUS: i16 = 90;
const SHUTDOWN_CELSIUS: i16 = 95;

/// Shares of the power limit that an idle and a busy GPU draw.
const IDLE_POWER: f32 = 0.12;
const BUSY_POWER: f32 = 0.88;

/// Share of its memory that a held GPU uses.
const HELD_MEMORY: f64 = 0.72;

/// Where a GPU's temperature was going when its load last changed.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    held: bool,
    since: Duration,
    /// From 0 (cold) to 1 (warm) at that time.
    warmth: f32,
}

impl Load {
    fn warmth_at(self, now: Duration) -> f32 {
        let moved = now.saturating_sub(self.since).as_secs_f32() / WARMING.as_secs_f32();
        if self.held {
            (self.warmth + moved).min(1.0)
        } else {
            (self.warmth - moved).max(0.0)
        }
    }
}

/// Made-up GPUs.
#[derive(Debug)]
pub struct Simulated {
    node: NodeName,
    models: Vec<Model>,
    scenario: Scenario,
    clock: Clock,
    loads: Mutex<Vec<Load>>,
    /// Until when its log has been told.
    said: Mutex<Option<Duration>>,
}

impl Simulated {
    /// The GPUs of a node. Their UUIDs follow from the node's name: the same after a restart, different on each node.
    ///
    /// # Errors
    /// The scenario names a GPU that there isn't.
    pub fn new(node: NodeName, gpus: &SimulatedGpus, scenario: Scenario, clock: Clock) -> Result<Self, ScenarioError> {
        let models = gpus.models();
        scenario.check_gpus(models.len())?;
        Ok(Self {
            node,
            loads: Mutex::new(vec![Load::default(); models.len()]),
            models,
            scenario,
            clock,
            said: Mutex::default(),
        })
    }

    fn indexed(&self) -> impl Iterator<Item = (GpuIndex, &Model)> {
        (0..).zip(&self.models)
    }

    fn describe(&self, index: GpuIndex, model: &Model) -> GpuInfo {
        GpuInfo {
            index,
            uuid: uuid(&self.node, index),
            vendor: Vendor::Simulated,
            model: model.name.clone(),
            memory_total_bytes: model.memory,
            pci_address: None,
            numa_node: Some(self.numa_node(index)),
            power_limit_watts: model.power_watts,
            driver_version: None,
        }
    }

    /// Two sockets with half of the GPUs each; a single GPU is at the first.
    fn numa_node(&self, index: GpuIndex) -> u32 {
        u32::from(self.models.len() > 1 && index as usize >= self.models.len().div_ceil(2))
    }

    fn sample_one(&self, index: GpuIndex, model: &Model, load: Load, now: Duration) -> GpuSample {
        let trouble = self.scenario.at(now, index);
        let health = trouble.facts().judge();
        if matches!(trouble, Trouble { lost: true, .. } | Trouble { silent: true, .. }) {
            return GpuSample {
                index,
                health,
                ..GpuSample::default()
            };
        }
        // From -1 to 1, changing every second.
        let sway = (mix(u64::from(index), now.as_secs()) % 2001) as f32 / 1000.0 - 1.0;
        let warmth = load.warmth_at(now);
        let works = load.held && health.usable();
        let utilization = if works { 93.0 + 5.0 * sway } else { 0.0 };
        let celsius = match trouble.hot {
            Some(celsius) => celsius,
            None => (IDLE_CELSIUS + warmth * (BUSY_CELSIUS - IDLE_CELSIUS) + sway).round() as i16,
        };
        let power = model.power_watts.map(|limit| {
            let share = match (works, trouble.hot.is_some()) {
                (false, _) => IDLE_POWER,
                // A throttled GPU runs at a fraction of its clock.
                (true, true) => BUSY_POWER / 2.0,
                (true, false) => BUSY_POWER + 0.02 * sway,
            };
            limit as f32 * share
        });
        GpuSample {
            index,
            memory_used_bytes: model
                .memory
                .map(|Size(total)| Size(if works { (total as f64 * HELD_MEMORY) as u64 } else { 0 })),
            utilization_percent: Some(utilization as u8),
            temperature_celsius: Some(celsius),
            power_watts: power,
            health,
        }
    }

    fn readings_of(&self, index: GpuIndex, model: &Model, load: Load, now: Duration) -> Vec<Reading> {
        let sample = self.sample_one(index, model, load, now);
        let mut readings = super::basic(&sample);
        if sample.temperature_celsius.is_none() {
            return readings;
        }
        let trouble = self.scenario.at(now, index);
        let facts = trouble.facts();
        let works = sample.utilization_percent.is_some_and(|percent| percent > 0);
        let hot = facts.throttled_by_heat;
        // As a loaded accelerator moves data: about a third of PCIe 5.0 x16, a quarter of its links.
        let moves = |rate: f64| if works { rate } else { 0.0 };
        let numbers = [
            ("gpu.memory.total", model.memory.map(|size| size.0 as f64)),
            ("gpu.memory.bandwidth", Some(moves(41.0))),
            ("gpu.temperature.slowdown", Some(f64::from(SLOWDOWN_CELSIUS))),
            ("gpu.temperature.shutdown", Some(f64::from(SHUTDOWN_CELSIUS))),
            ("gpu.power.limit", model.power_watts.map(f64::from)),
            (
                "gpu.clock.sm",
                Some(if works { if hot { 990.0 } else { 1980.0 } } else { 345.0 }),
            ),
            ("gpu.pcie.rx", Some(moves(20e9))),
            ("gpu.pcie.tx", Some(moves(8e9))),
            ("gpu.pcie.replays", Some(0.0)),
            ("gpu.nvlink.rx", model.form.is_direct().then(|| moves(110e9))),
            ("gpu.nvlink.tx", model.form.is_direct().then(|| moves(110e9))),
            ("gpu.nvlink.errors", model.form.is_direct().then_some(0.0)),
            ("gpu.ecc.corrected", Some(0.0)),
            ("gpu.ecc.uncorrected", Some(facts.ecc_uncorrected as f64)),
            // NVML's bits: idle; slowed down by the hardware, because of heat.
            (
                "gpu.throttle",
                Some(if hot { 72.0 } else { f64::from(u8::from(!works)) }),
            ),
        ];
        readings.extend(
            numbers
                .into_iter()
                .filter_map(|(metric, value)| Some(Reading::now(metric, value?))),
        );
        readings
    }

    fn link(&self, a: GpuIndex, b: GpuIndex, models: (&Model, &Model)) -> GpuLink {
        match models {
            (one, other) if one.name == other.name && one.form.is_direct() => match one.form {
                Form::NvLink { lanes } => GpuLink::NvLink { lanes },
                Form::Xgmi => GpuLink::Xgmi { hops: 1 },
                Form::Pcie => GpuLink::System,
            },
            _ if self.numa_node(a) != self.numa_node(b) => GpuLink::System,
            _ if a / 2 == b / 2 => GpuLink::SameSwitch,
            _ => GpuLink::SameNuma,
        }
    }
}

impl Driver for Simulated {
    fn vendor(&self) -> Vendor {
        Vendor::Simulated
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        let now = self.clock.now();
        Ok(self
            .indexed()
            .filter(|(index, _)| !self.scenario.at(now, *index).lost)
            .map(|(index, model)| self.describe(index, model))
            .collect())
    }

    fn links(&self) -> Vec<GpuPair> {
        let mut pairs = Vec::new();
        for (a, one) in self.indexed() {
            for (b, other) in self.indexed().skip(a as usize + 1) {
                let link = self.link(a, b, (one, other));
                pairs.push(GpuPair { a, b, link });
            }
        }
        pairs
    }

    fn sample(&self) -> Vec<GpuSample> {
        let now = self.clock.now();
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.indexed()
            .zip(loads)
            .map(|((index, model), load)| self.sample_one(index, model, load, now))
            .collect()
    }

    fn readings(&self, index: GpuIndex) -> Vec<Reading> {
        let now = self.clock.now();
        let load = self
            .loads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(index as usize)
            .copied();
        let model = self.models.get(index as usize);
        model
            .zip(load)
            .map_or_else(Vec::new, |(model, load)| self.readings_of(index, model, load, now))
    }

    fn facts(&self) -> Vec<(FactKind, String)> {
        let now = self.clock.now();
        let before = self.said.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        let mut facts = Vec::new();
        for (gpu, code) in self.scenario.xids(before, now) {
            for index in (0..)
                .take(self.models.len())
                .filter(|index| gpu.is_none_or(|gpu| gpu == *index))
            {
                let what = FactKind::Xid {
                    xid: u32::try_from(code).unwrap_or(u32::MAX),
                    pci: format!("simulated:{index}"),
                    gpu: Some(index),
                    uuid: Some(uuid(&self.node, index)),
                    pid: None,
                };
                facts.push((what, format!("simulated: Xid {code} of GPU {index}")));
            }
        }
        facts
    }

    fn notes(&self) -> Vec<String> {
        let unknown: BTreeSet<&str> = self
            .models
            .iter()
            .filter(|model| !model.known)
            .map(|model| model.name.as_str())
            .collect();
        unknown
            .into_iter()
            .map(|name| {
                format!("'{name}' isn't a GPU model that the simulation knows: what isn't given of it is unknown")
            })
            .collect()
    }

    fn set_held(&self, held: &[GpuIndex]) {
        let now = self.clock.now();
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, load) in (0..).zip(loads.iter_mut()) {
            let holds = held.contains(&index);
            if load.held != holds {
                *load = Load {
                    held: holds,
                    since: now,
                    warmth: load.warmth_at(now),
                };
            }
        }
    }
}

/// FNV-1a, whose result never changes between versions: UUIDs depend on it.
fn hash(bytes: impl IntoIterator<Item = u8>, seed: u64) -> u64 {
    bytes.into_iter().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn mix(a: u64, b: u64) -> u64 {
    let hash = hash(
        a.to_le_bytes().into_iter().chain(b.to_le_bytes()),
        0xcbf2_9ce4_8422_2325,
    );
    (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
}

fn uuid(node: &NodeName, index: GpuIndex) -> String {
    let bytes = || node.as_str().bytes().chain([0]).chain(index.to_le_bytes());
    let high = hash(bytes(), 0xcbf2_9ce4_8422_2325);
    let low = hash(bytes(), high);
    format!(
        "SIM-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use api::node::GpuHealth;

    use super::*;

    /// A clock that tests move, and the driver that reads it.
    fn simulated(gpus: &str, scenario: &str) -> (Arc<AtomicU64>, Simulated) {
        let time = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&time);
        let clock = Clock::new(move || Duration::from_millis(read.load(Ordering::SeqCst)));
        let scenario = scenario.parse().expect("a scenario");
        let gpus = gpus.parse().expect("GPUs");
        let driver = Simulated::new(NodeName::new("gpu-1"), &gpus, scenario, clock).expect("a driver");
        (time, driver)
    }

    #[test]
    fn gpus_are_marked_and_keep_their_identity() {
        let (_, driver) = simulated("8xH100", "");
        let gpus = driver.inventory().expect("inventory");
        assert_eq!(gpus.len(), 8);
        assert_eq!(gpus[0].model, "NVIDIA H100 80GB HBM3");
        assert_eq!(gpus[0].memory_total_bytes, Some(Size::mib(81_559)));
        assert!(gpus.iter().all(|gpu| gpu.simulated() && gpu.uuid.starts_with("SIM-")));
        let uuids: BTreeSet<_> = gpus.iter().map(|gpu| &gpu.uuid).collect();
        assert_eq!(uuids.len(), 8);
        assert_eq!(
            gpus[0].uuid,
            uuid(&NodeName::new("gpu-1"), 0),
            "the same after a restart"
        );
        assert_eq!(
            gpus[0].uuid, "SIM-4fda008a-606e-84d1-01eb-2ce8033bbcc5",
            "and after an upgrade"
        );
        assert_ne!(gpus[0].uuid, uuid(&NodeName::new("gpu-2"), 0));
        assert_eq!(gpus[3].numa_node, Some(0));
        assert_eq!(gpus[4].numa_node, Some(1));
    }

    #[test]
    fn sxm_models_are_a_full_mesh_and_others_pairs_behind_switches() {
        let (_, driver) = simulated("8xH100", "");
        let links = driver.links();
        assert_eq!(links.len(), 28);
        assert!(
            links
                .iter()
                .all(|pair| pair.a < pair.b && pair.link == GpuLink::NvLink { lanes: 18 })
        );

        let (_, driver) = simulated("4xL4", "");
        let links: Vec<_> = driver.links().iter().map(|pair| (pair.a, pair.b, pair.link)).collect();
        assert_eq!(links[0], (0, 1, GpuLink::SameSwitch));
        assert_eq!(links[1], (0, 2, GpuLink::System));

        let (_, driver) = simulated("2xH100,2xL4", "");
        let links = driver.links();
        assert_eq!(links[0].link, GpuLink::NvLink { lanes: 18 });
        assert_eq!(
            links[1].link,
            GpuLink::System,
            "different models aren't joined by NVLink"
        );
    }

    #[test]
    fn a_held_gpu_works_and_warms_up() {
        let (time, driver) = simulated("2xA100-40GB", "");
        driver.set_held(&[1]);
        time.store(30_000, Ordering::SeqCst);
        let half = driver.sample();
        time.store(90_000, Ordering::SeqCst);
        let warm = driver.sample();
        assert_eq!(warm, driver.sample(), "the same question has the same answer");
        assert_eq!(warm[0].utilization_percent, Some(0));
        assert_eq!(warm[0].memory_used_bytes, Some(Size(0)));
        assert!(warm[1].utilization_percent >= Some(88));
        assert!(warm[1].memory_used_bytes > Some(Size::gib(20)));
        assert!(warm[1].power_watts > warm[0].power_watts);
        assert!(warm[0].temperature_celsius < half[1].temperature_celsius);
        assert!(half[1].temperature_celsius < warm[1].temperature_celsius);
        driver.set_held(&[]);
        time.store(200_000, Ordering::SeqCst);
        assert!(driver.sample()[1].temperature_celsius < Some(40));
    }

    #[test]
    fn a_scenario_replays_to_the_second() {
        let (time, driver) = simulated(
            "4xH100",
            "
            steps:
              - {at: 10s, gpu: 0, event: thermal-throttle, celsius: 91}
              - {at: 20s, gpu: 1, event: xid, code: 94}
              - {at: 30s, gpu: 2, event: ecc-errors, count: 3}
              - {at: 40s, gpu: 3, event: falls-off-bus}
              - {at: 50s, event: recovers}
            ",
        );
        driver.set_held(&[0, 1, 2, 3]);
        let names = |ms: u64| {
            time.store(ms, Ordering::SeqCst);
            driver.sample().iter().map(|gpu| gpu.health.name()).collect::<Vec<_>>()
        };
        assert_eq!(names(9_999), ["ok"; 4]);
        assert_eq!(names(10_000), ["degraded", "ok", "ok", "ok"]);
        assert_eq!(driver.sample()[0].temperature_celsius, Some(91));
        assert_eq!(names(45_000), ["degraded", "degraded", "degraded", "failed"]);
        assert_eq!(
            driver.inventory().expect("inventory").len(),
            3,
            "the one that vanished is missing"
        );
        assert_eq!(
            driver.sample()[3].temperature_celsius,
            None,
            "and says nothing but that"
        );
        assert_eq!(names(50_000), ["ok"; 4]);
        assert_eq!(driver.inventory().expect("inventory").len(), 4);
    }

    #[test]
    fn an_unknown_model_is_kept_as_it_is() {
        let (_, driver) = simulated("2xFancy9000,1xNova@48Gi", "");
        let gpus = driver.inventory().expect("inventory");
        assert_eq!(
            (gpus[0].model.as_str(), gpus[0].memory_total_bytes),
            ("Fancy9000", None)
        );
        assert_eq!(
            (gpus[2].model.as_str(), gpus[2].memory_total_bytes),
            ("Nova", Some(Size::gib(48)))
        );
        assert_eq!(driver.sample()[0].memory_used_bytes, None, "unknown, not zero");
        assert_eq!(driver.notes().len(), 2);
    }

    #[test]
    fn a_scenario_for_other_gpus_is_refused() {
        let scenario: Scenario = "steps: [{at: 1s, gpu: 2, event: recovers}]"
            .parse()
            .expect("a scenario");
        let gpus = "2xL4".parse().expect("GPUs");
        let error = Simulated::new(NodeName::new("n"), &gpus, scenario, Clock::running()).expect_err("refused");
        assert_eq!(error.to_string(), "step 1 names GPU 2, but there are only 2 (0 to 1)");
    }

    #[test]
    fn health_is_worded_as_for_real_gpus() {
        let (_, driver) = simulated("1xH100", "steps: [{at: 0s, event: xid, code: 95}]");
        assert_eq!(
            driver.sample()[0].health,
            GpuHealth::Failed {
                reason: "XID 95: memory error that could not be kept to one program: all work on the GPU is suspect"
                    .to_owned()
            }
        );
    }
}
