//! AMD GPUs by what the amdgpu driver shows in sysfs: no library needed.
//!
//! `class/drm/card*/device` holds identity, memory and load, its `hwmon` temperature and power, and
//! `class/kfd/kfd/topology` how many Infinity Fabric hops lie between two GPUs.

mod kfd;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use api::{
    GpuIndex, Size,
    node::{GpuHealth, GpuInfo, GpuLink, GpuPair, GpuSample, Vendor},
};

use super::{Driver, DriverError, pci};
use crate::sample::Reading;

/// AMD's PCI vendor number, as sysfs writes it.
const AMD: &str = "0x1002";

/// Less device memory than this is a processor's own graphics, not something to compute on.
const SMALLEST_BYTES: u64 = 2 << 30;

/// Names of accelerators by PCI device number, for boards whose firmware doesn't say (`product_name` is empty).
const MODELS: [(&str, &str); 10] = [
    ("0x738c", "AMD Instinct MI100"),
    ("0x7408", "AMD Instinct MI250X"),
    ("0x740c", "AMD Instinct MI250X / MI250"),
    ("0x740f", "AMD Instinct MI210"),
    ("0x74a0", "AMD Instinct MI300A"),
    ("0x74a1", "AMD Instinct MI300X"),
    ("0x74a5", "AMD Instinct MI325X"),
    ("0x73bf", "AMD Radeon RX 6800 / 6900"),
    ("0x744c", "AMD Radeon RX 7900"),
    ("0x7448", "AMD Radeon PRO W7900"),
];

/// A GPU that was found.
#[derive(Debug, Clone)]
struct Card {
    /// Its sysfs folder.
    device: PathBuf,
    info: GpuInfo,
}

/// The AMD GPUs of this machine.
///
/// Indexes count the GPUs in the order of their PCI addresses, as ROCm does. The UUID is `GPU-` and the driver's
/// `unique_id`, which ROCm takes to name a device; boards without one are called `PCI-` and their address.
pub struct Amd {
    sysfs: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Every GPU that an inventory has held, by index.
    cards: BTreeMap<GpuIndex, Card>,
    notes: Vec<String>,
}

impl Amd {
    /// The GPUs below a sysfs root (`/sys`).
    ///
    /// # Errors
    /// [`DriverError::Absent`] when the amdgpu driver runs no GPU.
    pub fn open(sysfs: impl Into<PathBuf>) -> Result<Self, DriverError> {
        let driver = Self {
            sysfs: sysfs.into(),
            seen: Mutex::default(),
        };
        if driver.devices().is_empty() {
            return Err(DriverError::Absent {
                vendor: "AMD",
                why: format!("no amdgpu device in {}", driver.sysfs.join("class/drm").display()),
            });
        }
        Ok(driver)
    }

    /// The sysfs folders of the GPUs that amdgpu runs, by PCI address.
    fn devices(&self) -> BTreeMap<String, PathBuf> {
        let Ok(entries) = fs::read_dir(self.sysfs.join("class/drm")) else {
            return BTreeMap::new();
        };
        entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                // `card0` is a GPU, `card0-DP-1` a socket of it.
                let number = name.to_str().and_then(|name| name.strip_prefix("card"));
                number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            })
            .filter_map(|entry| {
                let device = entry.path().join("device");
                let uevent = pci::read(&device.join("uevent"))?;
                let runs = pci::read(&device.join("vendor")).as_deref() == Some(AMD)
                    && value(&uevent, "DRIVER=") == Some("amdgpu");
                let address = pci::normalise(value(&uevent, "PCI_SLOT_NAME=")?)?;
                // The real folder says where on the bus it is, and goes when the device goes.
                runs.then(|| (address, fs::canonicalize(&device).unwrap_or(device)))
            })
            .collect()
    }

    fn describe(&self, address: &str, device: &Path) -> Card {
        let read = |file: &str| pci::read(&device.join(file));
        let uuid = match read("unique_id") {
            Some(id) if id.bytes().any(|b| b != b'0') => format!("GPU-{id}"),
            _ => format!("PCI-{address}"),
        };
        let number = read("device").unwrap_or_default();
        let known = MODELS
            .iter()
            .find(|(id, _)| *id == number)
            .map(|(_, name)| (*name).to_owned());
        let model = read("product_name")
            .or(known)
            .unwrap_or_else(|| format!("AMD GPU {number}").trim_end().to_owned());
        Card {
            info: GpuInfo {
                index: 0,
                uuid,
                vendor: Vendor::Amd,
                model,
                memory_total_bytes: number_in(&device.join("mem_info_vram_total")).map(Size),
                pci_address: Some(address.to_owned()),
                numa_node: pci::numa_node(device),
                power_limit_watts: hwmon(device)
                    .and_then(|hwmon| number_in(&hwmon.join("power1_cap")))
                    .and_then(|microwatts| u32::try_from(microwatts / 1_000_000).ok()),
                driver_version: pci::read(&self.sysfs.join("module/amdgpu/version")),
            },
            device: device.to_owned(),
        }
    }
}

impl Driver for Amd {
    fn vendor(&self) -> Vendor {
        Vendor::Amd
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.notes.clear();
        let mut gpus = Vec::new();
        for (address, device) in self.devices() {
            let mut card = self.describe(&address, &device);
            if let Some(Size(bytes)) = card.info.memory_total_bytes.filter(|size| size.0 < SMALLEST_BYTES) {
                let size = Size(bytes);
                seen.notes.push(format!(
                    "the AMD GPU at {address} is left out: {size} of memory of its own"
                ));
                continue;
            }
            // A GPU keeps its index while this driver lives, also when one before it has vanished.
            let known = seen.cards.values().find(|known| known.info.uuid == card.info.uuid);
            card.info.index = known.map_or_else(
                || seen.cards.last_key_value().map_or(0, |(last, _)| last + 1),
                |known| known.info.index,
            );
            seen.cards.insert(card.info.index, card.clone());
            gpus.push(card.info);
        }
        gpus.sort_by_key(|gpu| gpu.index);
        Ok(gpus)
    }

    fn links(&self) -> Vec<GpuPair> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fabric = kfd::Fabric::read(&self.sysfs);
        let cards: Vec<&Card> = seen.cards.values().collect();
        let mut pairs = Vec::new();
        for (i, a) in cards.iter().enumerate() {
            for b in &cards[i + 1..] {
                if let Some(link) = link(a, b, &fabric) {
                    pairs.push(GpuPair {
                        a: a.info.index,
                        b: b.info.index,
                        link,
                    });
                }
            }
        }
        pairs
    }

    fn sample(&self) -> Vec<GpuSample> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.cards.values().map(sample).collect()
    }

    fn readings(&self, index: GpuIndex) -> Vec<Reading> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.cards.get(&index).map_or_else(Vec::new, readings)
    }

    fn notes(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).notes.clone()
    }
}

fn readings(card: &Card) -> Vec<Reading> {
    let sample = sample(card);
    let mut readings = super::basic(&sample);
    if matches!(sample.health, GpuHealth::Failed { .. }) {
        return readings;
    }
    let device = &card.device;
    let mut add = |metric, value: Option<f64>| readings.extend(value.map(|value| Reading::now(metric, value)));
    let number = |file: &str| number_in(&device.join(file)).map(|n| n as f64);
    add("gpu.memory.total", number("mem_info_vram_total"));
    add(
        "gpu.memory.bandwidth",
        number("mem_busy_percent").filter(|percent| *percent <= 100.0),
    );
    if let Some(hwmon) = hwmon(device) {
        let number = |file: &str| number_in(&hwmon.join(file)).map(|n| n as f64);
        // The junction's limits (temp2) are where there is no edge sensor.
        let limit = |end: &str| {
            ["temp1", "temp2"]
                .iter()
                .find_map(|sensor| number(&format!("{sensor}_{end}")))
        };
        add("gpu.temperature.memory", number("temp3_input").map(|n| n / 1000.0));
        add("gpu.temperature.slowdown", limit("crit").map(|n| n / 1000.0));
        add("gpu.temperature.shutdown", limit("emergency").map(|n| n / 1000.0));
        add("gpu.power.limit", number("power1_cap").map(|n| n / 1e6));
        add("gpu.clock.sm", number("freq1_input").map(|n| n / 1e6));
        add("gpu.clock.memory", number("freq2_input").map(|n| n / 1e6));
        let fan = number("pwm1").zip(number("pwm1_max")).filter(|(_, most)| *most > 0.0);
        add("gpu.fan", fan.map(|(now, most)| now * 100.0 / most));
    }
    add("gpu.pcie.replays", number("pcie_replay_count"));
    add("gpu.pcie.width", number("current_link_width"));
    add(
        "gpu.pcie.generation",
        pci::read(&device.join("current_link_speed"))
            .as_deref()
            .and_then(generation),
    );
    if let Some(errors) = pci::read(&device.join("ras/umc_err_count")) {
        let count = |key| value(&errors, key).and_then(|text| text.trim().parse::<f64>().ok());
        add("gpu.ecc.uncorrected", count("ue:"));
        add("gpu.ecc.corrected", count("ce:"));
    }
    readings
}

/// The PCIe generation of a link's speed, as sysfs writes it: `16.0 GT/s PCIe`.
fn generation(speed: &str) -> Option<f64> {
    let generation = match speed.split_whitespace().next()? {
        "2.5" => 1,
        "5.0" | "5" => 2,
        "8.0" | "8" => 3,
        "16.0" | "16" => 4,
        "32.0" | "32" => 5,
        "64.0" | "64" => 6,
        _ => return None,
    };
    Some(f64::from(generation))
}

fn sample(card: &Card) -> GpuSample {
    let device = &card.device;
    let mut sample = GpuSample {
        index: card.info.index,
        ..GpuSample::default()
    };
    if let Some(reason) = gone(device) {
        sample.health = GpuHealth::Failed { reason };
        return sample;
    }
    sample.memory_used_bytes = number_in(&device.join("mem_info_vram_used")).map(Size);
    sample.utilization_percent = number_in(&device.join("gpu_busy_percent"))
        .and_then(|percent| u8::try_from(percent).ok())
        .filter(|percent| *percent <= 100);
    if let Some(hwmon) = hwmon(device) {
        // Data-centre boards have no edge sensor (temp1); the junction (temp2) is the next best.
        sample.temperature_celsius = ["temp1_input", "temp2_input"]
            .iter()
            .find_map(|file| pci::read(&hwmon.join(file))?.parse::<i64>().ok())
            .and_then(|millidegrees| i16::try_from(millidegrees / 1000).ok());
        sample.power_watts = ["power1_average", "power1_input"]
            .iter()
            .find_map(|file| number_in(&hwmon.join(file)))
            .map(|microwatts| (microwatts as f64 / 1e6) as f32);
    }
    let uncorrected = uncorrectable_errors(device);
    if uncorrected > 0 {
        sample.health = GpuHealth::Degraded {
            reason: format!("{uncorrected} uncorrectable memory errors since the driver was loaded"),
        };
    }
    sample
}

/// Why the device can't be used any more, if so: its folder went with it, or it doesn't answer on the bus, where
/// nobody reads as all ones.
fn gone(device: &Path) -> Option<String> {
    if let Err(error) = fs::read(device.join("vendor")) {
        return Some(match error.kind() {
            io::ErrorKind::NotFound => "fell off the bus: its device has vanished".to_owned(),
            _ => format!("doesn't answer any more: {error}"),
        });
    }
    let mut id = [0; 4];
    let silent = fs::File::open(device.join("config"))
        .and_then(|mut config| io::Read::read_exact(&mut config, &mut id))
        .is_ok_and(|()| id == [0xff; 4]);
    silent.then(|| "fell off the bus: it doesn't answer there".to_owned())
}

/// Errors in device memory that ECC couldn't correct; 0 also where the driver doesn't count them.
fn uncorrectable_errors(device: &Path) -> u64 {
    pci::read(&device.join("ras/umc_err_count"))
        .and_then(|text| value(&text, "ue:")?.trim().parse().ok())
        .unwrap_or(0)
}

/// How two GPUs reach each other; `None` when nothing says.
fn link(a: &Card, b: &Card, fabric: &kfd::Fabric) -> Option<GpuLink> {
    let hops = fabric.hops(a.info.pci_address.as_deref()?, b.info.pci_address.as_deref()?);
    if let Some(hops) = hops {
        return Some(GpuLink::Xgmi { hops });
    }
    let hive = |card: &Card| {
        pci::read(&card.device.join("xgmi_hive_info/xgmi_hive_id")).filter(|id| id.bytes().any(|b| b != b'0'))
    };
    if let (Some(a), Some(b)) = (hive(a), hive(b))
        && a == b
    {
        // One hive, but nothing tells the distance within it: at least one.
        return Some(GpuLink::Xgmi { hops: 1 });
    }
    match shared_bus(&a.device, &b.device) {
        Some(Shared::Switch) => Some(GpuLink::SameSwitch),
        Some(Shared::HostBridge) => Some(GpuLink::SameNuma),
        None => match (a.info.numa_node, b.info.numa_node) {
            (Some(a), Some(b)) if a == b => Some(GpuLink::SameNuma),
            (Some(_), Some(_)) => Some(GpuLink::System),
            _ => None,
        },
    }
}

/// What two devices have in common on the PCI bus.
#[derive(Debug, PartialEq, Eq)]
enum Shared {
    Switch,
    HostBridge,
}

/// Compares the real sysfs folders of two devices: `…/devices/pci0000:00/0000:00:01.1/0000:01:00.0/…`.
fn shared_bus(a: &Path, b: &Path) -> Option<Shared> {
    let mut common = a
        .iter()
        .zip(b.iter())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.to_string_lossy());
    common.find(|part| part.starts_with("pci") && part.contains(':'))?;
    Some(if common.next().is_some() {
        Shared::Switch
    } else {
        Shared::HostBridge
    })
}

/// The folder of a device's own sensors.
fn hwmon(device: &Path) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(device.join("hwmon"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    folders.into_iter().next()
}

fn number_in(file: &Path) -> Option<u64> {
    pci::read(file)?.parse().ok()
}

/// The rest of the line that begins with `key`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_devices_share_is_read_from_their_paths() {
        let root = "/sys/devices/pci0000:40/0000:40:01.1";
        let share = |a: &str, b: &str| shared_bus(Path::new(a), Path::new(b));
        assert_eq!(
            share(
                &format!("{root}/0000:41:00.0/0000:42:00.0"),
                &format!("{root}/0000:41:00.0/0000:42:01.0")
            ),
            Some(Shared::Switch)
        );
        assert_eq!(
            share(
                &format!("{root}/0000:41:00.0"),
                "/sys/devices/pci0000:40/0000:40:03.1/0000:43:00.0"
            ),
            Some(Shared::HostBridge)
        );
        assert_eq!(
            share(
                &format!("{root}/0000:41:00.0"),
                "/sys/devices/pci0000:c0/0000:c0:01.1/0000:c1:00.0"
            ),
            None
        );
    }
}
