//! What NVML can tell of a GPU beyond its health.

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::{
        device::{Clock, EccCounter, MemoryError, PcieUtilCounter, TemperatureThreshold},
        nv_link::ErrorCounter,
    },
    structs::device::FieldId,
    sys_exports::field_id::{
        NVML_FI_DEV_MEMORY_TEMP, NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
        NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL, NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
        NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL, NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE,
        NVML_FI_DEV_REMAPPED_PENDING, NVML_FI_DEV_REMAPPED_UNC,
    },
};

use super::{
    fields,
    read::{NVLINK_PORTS, Probe, whole},
};
use crate::sample::Reading;

/// Fields that are numbers of the whole GPU.
const FIELDS: [(u32, &str); 5] = [
    (NVML_FI_DEV_MEMORY_TEMP, "gpu.temperature.memory"),
    (NVML_FI_DEV_REMAPPED_COR, "gpu.remap.corrected"),
    (NVML_FI_DEV_REMAPPED_UNC, "gpu.remap.uncorrected"),
    (NVML_FI_DEV_REMAPPED_PENDING, "gpu.remap.pending"),
    (NVML_FI_DEV_REMAPPED_FAILURE, "gpu.remap.failed"),
];

/// Fields that together are the errors of all NVLinks.
const LINK_ERRORS: [u32; 4] = [
    NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
];

/// Adds what the GPU reports.
pub(super) fn readings(nvml: &Nvml, device: &Device<'_>, probe: &mut Probe, readings: &mut Vec<Reading>) {
    let mut add = |metric, value: Option<f64>| readings.extend(value.map(|value| Reading::now(metric, value)));
    let memory = probe.ask("memory", || device.memory_info());
    add("gpu.memory.total", memory.map(|memory| memory.total as f64));
    let rates = probe.ask("utilization", || device.utilization_rates());
    add(
        "gpu.memory.bandwidth",
        rates.map(|rates| f64::from(rates.memory.min(100))),
    );
    for (metric, threshold) in [
        ("gpu.temperature.slowdown", TemperatureThreshold::Slowdown),
        ("gpu.temperature.shutdown", TemperatureThreshold::Shutdown),
    ] {
        add(
            metric,
            probe
                .ask(metric, || device.temperature_threshold(threshold))
                .map(f64::from),
        );
    }
    let limit = probe.ask("power limit", || device.enforced_power_limit());
    add(
        "gpu.power.limit",
        limit.map(|milliwatts| f64::from(milliwatts) / 1000.0),
    );
    for (metric, clock) in [("gpu.clock.sm", Clock::SM), ("gpu.clock.memory", Clock::Memory)] {
        add(metric, probe.ask(metric, || device.clock_info(clock)).map(f64::from));
    }
    let fans = probe.ask("fans", || device.num_fans()).unwrap_or(0);
    let fastest = (0..fans)
        .filter_map(|fan| probe.ask("fan", || device.fan_speed(fan)))
        .max();
    add("gpu.fan", fastest.map(f64::from));
    for (metric, way) in [
        ("gpu.pcie.rx", PcieUtilCounter::Receive),
        ("gpu.pcie.tx", PcieUtilCounter::Send),
    ] {
        // KB/s, over the last 20 ms.
        let kilobytes = probe.ask(metric, || device.pcie_throughput(way));
        add(metric, kilobytes.map(|kilobytes| f64::from(kilobytes) * 1000.0));
    }
    let replays = probe.ask("PCIe replays", || device.pcie_replay_counter());
    add("gpu.pcie.replays", replays.map(f64::from));
    let generation = probe.ask("PCIe generation", || device.current_pcie_link_gen());
    add("gpu.pcie.generation", generation.map(f64::from));
    let width = probe.ask("PCIe width", || device.current_pcie_link_width());
    add("gpu.pcie.width", width.map(f64::from));
    for (metric, kind) in [
        ("gpu.ecc.corrected", MemoryError::Corrected),
        ("gpu.ecc.uncorrected", MemoryError::Uncorrected),
    ] {
        let errors = probe.ask(metric, || device.total_ecc_errors(kind, EccCounter::Volatile));
        add(metric, errors.map(|errors| errors as f64));
    }
    let throttle = probe.ask("throttle reasons", || device.current_throttle_reasons());
    add("gpu.throttle", throttle.map(|reasons| reasons.bits() as f64));
    let ids: Vec<FieldId> = FIELDS
        .iter()
        .map(|(id, _)| *id)
        .chain(LINK_ERRORS)
        .map(FieldId)
        .collect();
    let values = probe
        .ask("fields", || device.field_values_for(&ids))
        .unwrap_or_default();
    let values: Vec<Option<u64>> = values.into_iter().map(|value| whole(value.ok()?.value.ok()?)).collect();
    for ((_, metric), value) in FIELDS.iter().zip(&values) {
        add(metric, value.map(|value| value as f64));
    }
    let errors = total(values.iter().skip(FIELDS.len()).copied());
    add(
        "gpu.nvlink.errors",
        errors
            .or_else(|| link_errors(device, probe))
            .map(|errors| errors as f64),
    );
    let ways = [
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    ];
    let asked: Vec<(u32, u32)> = ways
        .iter()
        .flat_map(|id| (0..NVLINK_PORTS).map(|port| (*id, port)))
        .collect();
    let kibibytes = probe
        .ask("NVLink traffic", || fields::of_ports(nvml, device, &asked))
        .unwrap_or_default();
    for (metric, ports) in ["gpu.nvlink.rx", "gpu.nvlink.tx"]
        .into_iter()
        .zip(kibibytes.chunks(NVLINK_PORTS as usize))
    {
        if let Some(kibibytes) = total(ports.iter().copied()) {
            readings.push(Reading::total(metric, kibibytes.saturating_mul(1024)));
        }
    }
}

/// The sum of those that are known. `None`: none is.
fn total(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().reduce(u64::saturating_add)
}

/// The errors of the active NVLinks, one by one, for drivers without totals.
fn link_errors(device: &Device<'_>, probe: &mut Probe) -> Option<u64> {
    let mut counts = Vec::new();
    for port in 0..NVLINK_PORTS {
        let link = device.link_wrapper_for(port);
        // A port that isn't there ends it, and is no trouble.
        let Ok(active) = link.is_active() else { break };
        if active {
            for counter in [
                ErrorCounter::DlCrcFlit,
                ErrorCounter::DlCrcData,
                ErrorCounter::DlReplay,
                ErrorCounter::DlRecovery,
            ] {
                counts.push(probe.ask("NVLink errors", || link.error_counter(counter)));
            }
        }
    }
    total(counts.into_iter())
}
