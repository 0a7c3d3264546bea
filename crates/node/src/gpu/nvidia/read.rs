//! NVML's answers turned into ours. Each call is classified on its own: what a GPU doesn't have is `None`, and
//! trouble with one GPU never hides the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use api::{
    GpuIndex, Size,
    node::{GpuInfo, GpuLink, GpuPair, GpuSample, Vendor},
};
use nvml_wrapper::{
    Device, EventSet, Nvml,
    bitmasks::{device::ThrottleReasons, event::EventTypes},
    enum_wrappers::device::{
        EccCounter, MemoryError, P2pCapabilitiesIndex, P2pStatus, TemperatureSensor, TopologyLevel,
    },
    enums::{device::SampleValue, event::XidError},
    error::NvmlError,
    structs::device::FieldId,
    sys_exports::field_id::{
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
    },
};

use super::{
    super::{
        DriverError,
        health::{Facts, Recovery, XidMemory},
        pci,
    },
    Inventory, failed, measure, refused,
};
use crate::{gpu::basic, sample::Reading};

/// Most NVLink ports of any GPU that the library knows.
pub(super) const NVLINK_PORTS: u32 = 18;

/// Most XID errors that one sample reads per GPU; a GPU in a bad way reports them without end.
const XIDS_PER_SAMPLE: usize = 32;

/// What an error of a single call means.
enum Meaning {
    /// This GPU or driver doesn't have that reading, or doesn't tell us.
    NotReported,
    /// The GPU is off the bus.
    Lost,
    /// The GPU must be reset first.
    ResetRequired,
    /// The driver is gone: nothing about this GPU.
    DriverGone,
    /// Anything else.
    Trouble,
}

fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::NoPermission
        | NvmlError::NoData
        | NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        // Argument version mismatch, deprecated: this driver's generation doesn't answer that question.
        | NvmlError::UnexpectedVariant(25 | 26) => Meaning::NotReported,
        NvmlError::GpuLost
        // GPU not found.
        | NvmlError::UnexpectedVariant(28) => Meaning::Lost,
        NvmlError::ResetRequired => Meaning::ResetRequired,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => Meaning::DriverGone,
        _ => Meaning::Trouble,
    }
}

/// Asks one GPU after the other thing, and remembers what went wrong.
#[derive(Default)]
pub(super) struct Probe {
    facts: Facts,
    answers: u32,
    driver_gone: bool,
}

impl Probe {
    pub(super) fn ask<T>(&mut self, what: &str, call: impl FnOnce() -> Result<T, NvmlError>) -> Option<T> {
        // A lost GPU answers nothing, and each further call may hang.
        if self.facts.lost || self.driver_gone {
            return None;
        }
        let error = match call() {
            Ok(value) => {
                self.answers += 1;
                return Some(value);
            }
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::NotReported => {}
            Meaning::Lost => self.facts.lost = true,
            Meaning::ResetRequired => self.facts.reset_required = true,
            Meaning::DriverGone => {
                self.driver_gone = true;
                self.facts.silent = Some(error.to_string());
            }
            Meaning::Trouble => self.facts.unreadable.push(format!("{what} ({error})")),
        }
        None
    }

    /// The facts; a GPU that answered nothing but trouble is silent.
    fn finish(mut self) -> Facts {
        if self.answers == 0 && !self.facts.unreadable.is_empty() && self.facts.silent.is_none() {
            self.facts.silent = Some(self.facts.unreadable.swap_remove(0));
        }
        self.facts
    }
}

/// Reads with one load of the library.
pub(super) struct Reader<'nvml> {
    nvml: &'nvml Nvml,
    sysfs: &'nvml Path,
    /// Where XID errors of a GPU arrive; GPUs that can't report them are missing.
    events: BTreeMap<GpuIndex, EventSet<'nvml>>,
    xids: BTreeMap<GpuIndex, XidMemory>,
    driver_gone: bool,
}

impl<'nvml> Reader<'nvml> {
    pub(super) fn new(nvml: &'nvml Nvml, sysfs: &'nvml Path) -> Self {
        Self {
            nvml,
            sysfs,
            events: BTreeMap::new(),
            xids: BTreeMap::new(),
            driver_gone: false,
        }
    }

    /// Whether the library must be loaded anew.
    pub(super) fn driver_gone(&self) -> bool {
        self.driver_gone
    }

    pub(super) fn inventory(&mut self) -> Result<Inventory, DriverError> {
        let count = self.nvml.device_count().map_err(|error| {
            self.driver_gone = matches!(meaning(&error), Meaning::DriverGone);
            refused(&error)
        })?;
        let driver = self.nvml.sys_driver_version().ok();
        let mut gpus = Vec::new();
        let mut notes = Vec::new();
        for index in 0..count {
            let info = self
                .nvml
                .device_by_index(index)
                .and_then(|device| Ok((self.describe(index, &device, driver.clone())?, device)));
            match info {
                Ok((info, device)) => {
                    if in_mig_mode(&device) == Ok(true) {
                        notes.push(format!(
                            "NVIDIA GPU {index} is in MIG mode: its instances aren't handed out yet"
                        ));
                    }
                    self.listen(index, &device);
                    gpus.push(info);
                }
                Err(error) if matches!(meaning(&error), Meaning::DriverGone) => {
                    self.driver_gone = true;
                    return Err(refused(&error));
                }
                Err(error) => notes.push(format!("NVIDIA GPU {index} of {count} is left out: {error}")),
            }
        }
        if gpus.is_empty() && !notes.is_empty() {
            return Err(failed(notes.join("; ")));
        }
        Ok((gpus, notes))
    }

    /// What is fixed about a GPU; an error means that it can't even be identified.
    fn describe(&self, index: GpuIndex, device: &Device<'_>, driver: Option<String>) -> Result<GpuInfo, NvmlError> {
        let uuid = device.uuid()?;
        let model = match device.name() {
            Ok(name) => name,
            Err(error) if matches!(meaning(&error), Meaning::Lost | Meaning::DriverGone) => return Err(error),
            Err(_) => "NVIDIA GPU of unknown model".to_owned(),
        };
        let pci_address = device.pci_info().ok().and_then(|info| pci::normalise(&info.bus_id));
        let numa_node = pci_address
            .as_ref()
            .and_then(|address| pci::numa_node(&self.sysfs.join("bus/pci/devices").join(address)));
        Ok(GpuInfo {
            index,
            uuid,
            vendor: Vendor::Nvidia,
            model,
            memory_total_bytes: device.memory_info().ok().map(|memory| Size(memory.total)),
            pci_address,
            numa_node,
            power_limit_watts: device.enforced_power_limit().ok().map(|milliwatts| milliwatts / 1000),
            driver_version: driver,
        })
    }

    /// Begins to listen for XID errors of a GPU, if it can report them.
    fn listen(&mut self, index: GpuIndex, device: &Device<'nvml>) {
        if self.events.contains_key(&index) {
            return;
        }
        let listens = device
            .supported_event_types()
            .is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR));
        if !listens {
            return;
        }
        // One set a GPU: registering a GPU that refuses throws its whole set away.
        if let Ok(set) = self.nvml.create_event_set()
            && let Ok(set) = device.register_events(EventTypes::CRITICAL_XID_ERROR, set)
        {
            self.events.insert(index, set);
        }
    }

    /// All that can be measured of a GPU.
    pub(super) fn readings(&mut self, index: GpuIndex) -> Vec<Reading> {
        let mut probe = Probe::default();
        let mut sample = GpuSample::default();
        let device = self.device(&mut probe, index);
        if let Some(device) = &device {
            numbers(&mut probe, device, &mut sample);
        }
        let mut readings = basic(&sample);
        if let Some(device) = &device {
            measure::readings(self.nvml, device, &mut probe, &mut readings);
        }
        self.driver_gone |= probe.driver_gone;
        readings
    }

    fn device(&self, probe: &mut Probe, index: GpuIndex) -> Option<Device<'nvml>> {
        probe.ask("the GPU", || match self.nvml.device_by_index(index) {
            // Fewer GPUs than there were.
            Err(NvmlError::InvalidArg | NvmlError::NotFound) => Err(NvmlError::GpuLost),
            found => found,
        })
    }

    pub(super) fn sample(&mut self, seen: &BTreeSet<GpuIndex>) -> Vec<GpuSample> {
        seen.iter().map(|&index| self.sample_one(index)).collect()
    }

    fn sample_one(&mut self, index: GpuIndex) -> GpuSample {
        let mut probe = Probe::default();
        let mut sample = GpuSample {
            index,
            ..GpuSample::default()
        };
        let device = self.device(&mut probe, index);
        if let Some(device) = &device {
            // Holding a handle isn't yet an answer of the GPU.
            probe.answers = 0;
            numbers(&mut probe, device, &mut sample);
            probe_health(&mut probe, device);
        }
        self.driver_gone |= probe.driver_gone;
        let mut facts = probe.finish();
        let xids = self.xids.entry(index).or_default();
        if let Some(set) = self.events.get(&index)
            && !facts.lost
        {
            for code in arrived(set) {
                xids.note(code);
            }
        }
        xids.complete(&mut facts);
        sample.health = facts.judge();
        sample
    }

    pub(super) fn links(&self, seen: &BTreeSet<GpuIndex>) -> Vec<GpuPair> {
        let ports: Vec<Ports> = seen.iter().filter_map(|&index| self.ports(index)).collect();
        let known: BTreeSet<&str> = ports.iter().map(|gpu| gpu.address.as_str()).collect();
        let mut pairs = Vec::new();
        for (i, a) in ports.iter().enumerate() {
            for b in &ports[i + 1..] {
                let lanes = a.lanes_to(b, &known);
                let link = if lanes > 0 && !self.peers_are_cut_off(a.index, b.index) {
                    Some(GpuLink::NvLink { lanes })
                } else {
                    self.common_ancestor(a.index, b.index)
                };
                if let Some(link) = link {
                    pairs.push(GpuPair {
                        a: a.index,
                        b: b.index,
                        link,
                    });
                }
            }
        }
        pairs
    }

    fn ports(&self, index: GpuIndex) -> Option<Ports> {
        let device = self.nvml.device_by_index(index).ok()?;
        let address = pci::normalise(&device.pci_info().ok()?.bus_id)?;
        let mut remotes = Vec::new();
        for port in 0..NVLINK_PORTS {
            let link = device.link_wrapper_for(port);
            match link.is_active() {
                Ok(true) => remotes.push(
                    link.remote_pci_info()
                        .ok()
                        .and_then(|info| pci::normalise(&info.bus_id)),
                ),
                Ok(false) => {}
                // There are no more ports.
                Err(NvmlError::InvalidArg | NvmlError::GpuLost) => break,
                Err(_) => {}
            }
        }
        Some(Ports {
            index,
            address,
            remotes,
        })
    }

    /// Whether the driver says that two GPUs can't reach each other over NVLink although both have active ports:
    /// without a fabric manager, or in different partitions of the fabric.
    fn peers_are_cut_off(&self, a: GpuIndex, b: GpuIndex) -> bool {
        let status = self.nvml.device_by_index(a).and_then(|a| {
            let b = self.nvml.device_by_index(b)?;
            a.p2p_status(&b, P2pCapabilitiesIndex::NvLink)
        });
        status.is_ok_and(|status| status != P2pStatus::Ok)
    }

    fn common_ancestor(&self, a: GpuIndex, b: GpuIndex) -> Option<GpuLink> {
        let a = self.nvml.device_by_index(a).ok()?;
        let b = self.nvml.device_by_index(b).ok()?;
        Some(match a.topology_common_ancestor(b).ok()? {
            TopologyLevel::Internal | TopologyLevel::Single | TopologyLevel::Multiple => GpuLink::SameSwitch,
            TopologyLevel::HostBridge | TopologyLevel::Node => GpuLink::SameNuma,
            TopologyLevel::System => GpuLink::System,
        })
    }
}

/// The active NVLink ports of a GPU.
struct Ports {
    index: GpuIndex,
    address: String,
    /// What is at their other ends; `None` where the driver doesn't say (switches, in virtual machines).
    remotes: Vec<Option<String>>,
}

impl Ports {
    /// Lanes between two GPUs: those that join them directly, else those that both have into the switches.
    fn lanes_to(&self, other: &Self, gpus: &BTreeSet<&str>) -> u32 {
        let direct = |from: &Self, to: &Self| from.count(|remote| remote == Some(to.address.as_str()));
        let switched = |from: &Self| from.count(|remote| remote.is_none_or(|remote| !gpus.contains(remote)));
        match direct(self, other).max(direct(other, self)) {
            0 => switched(self).min(switched(other)),
            lanes => lanes,
        }
    }

    fn count(&self, which: impl Fn(Option<&str>) -> bool) -> u32 {
        let count = self.remotes.iter().filter(|remote| which(remote.as_deref())).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// The numbers of the moment.
fn numbers(probe: &mut Probe, device: &Device<'_>, sample: &mut GpuSample) {
    sample.memory_used_bytes = probe
        .ask("memory", || device.memory_info())
        .map(|memory| Size(memory.used));
    sample.utilization_percent = probe
        .ask("utilization", || device.utilization_rates())
        .map(|rates| u8::try_from(rates.gpu.min(100)).unwrap_or(100));
    sample.temperature_celsius = probe
        .ask("temperature", || device.temperature(TemperatureSensor::Gpu))
        .and_then(|celsius| i16::try_from(celsius).ok());
    sample.power_watts = probe
        .ask("power", || device.power_usage())
        .map(|milliwatts| milliwatts as f32 / 1000.0);
}

fn in_mig_mode(device: &Device<'_>) -> Result<bool, ()> {
    device.mig_mode().map(|mode| mode.current == 1).map_err(|_| ())
}

/// Reads all that bears on health.
fn probe_health(probe: &mut Probe, device: &Device<'_>) {
    probe.facts.mig = probe
        .ask("MIG mode", || device.mig_mode())
        .is_some_and(|mode| mode.current == 1);
    probe.facts.ecc_uncorrected = probe
        .ask("ECC errors", || {
            device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile)
        })
        .unwrap_or(0);
    probe.facts.retirement_pending = probe
        .ask("page retirement", || device.are_pages_pending_retired())
        .unwrap_or(false);
    if let Some(reasons) = probe.ask("throttle reasons", || device.current_throttle_reasons()) {
        probe.facts.throttled_by_heat = reasons.contains(ThrottleReasons::HW_THERMAL_SLOWDOWN);
        probe.facts.throttled_by_power = reasons.contains(ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN);
    }
    let fields = [
        NVML_FI_DEV_REMAPPED_FAILURE,
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
    ];
    let values = probe
        .ask("row remapping", || device.field_values_for(&fields.map(FieldId)))
        .unwrap_or_default();
    for value in values.into_iter().flatten() {
        let Some(number) = value.value.ok().and_then(whole) else {
            continue;
        };
        match value.field.0 {
            NVML_FI_DEV_REMAPPED_FAILURE => probe.facts.remap_failed = number != 0,
            NVML_FI_DEV_REMAPPED_PENDING => probe.facts.remap_pending = number != 0,
            NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => probe.facts.recovery = recovery(number),
            _ => {}
        }
    }
}

pub(super) fn whole(value: SampleValue) -> Option<u64> {
    match value {
        SampleValue::U32(n) => Some(n.into()),
        SampleValue::U64(n) => Some(n),
        SampleValue::I64(n) => u64::try_from(n).ok(),
        SampleValue::F64(_) => None,
    }
}

/// NVML's `nvmlDeviceGpuRecoveryAction_t`.
fn recovery(action: u64) -> Recovery {
    match action {
        1 => Recovery::Reset,
        2 => Recovery::Reboot,
        3 => Recovery::DrainPeers,
        4 => Recovery::ResetWhenFree,
        _ => Recovery::None,
    }
}

/// The XID errors that have arrived since last asked.
fn arrived(set: &EventSet<'_>) -> Vec<u64> {
    let mut codes = Vec::new();
    for _ in 0..XIDS_PER_SAMPLE {
        match set.wait(0) {
            Ok(event) => {
                if let Some(XidError::Value(code)) = event.event_data {
                    codes.push(code);
                }
            }
            // Nothing more, or trouble that the other readings name.
            Err(_) => break,
        }
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(index: GpuIndex, remotes: &[Option<&str>]) -> Ports {
        Ports {
            index,
            address: format!("gpu{index}"),
            remotes: remotes.iter().map(|remote| remote.map(str::to_owned)).collect(),
        }
    }

    #[test]
    fn direct_lanes_come_before_switched_ones() {
        let a = ports(0, &[Some("gpu1"), Some("gpu1"), Some("switch")]);
        let b = ports(1, &[Some("gpu0"), Some("gpu0"), Some("switch")]);
        let c = ports(2, &[Some("switch"), None]);
        let d = ports(3, &[]);
        let gpus = ["gpu0", "gpu1", "gpu2", "gpu3"].into();
        assert_eq!(a.lanes_to(&b, &gpus), 2);
        assert_eq!(a.lanes_to(&c, &gpus), 1, "no more than the one with fewer has");
        assert_eq!(c.lanes_to(&d, &gpus), 0);
    }
}
