//! Which GPUs this machine has.

use std::{env, path::PathBuf, sync::Arc};

use api::{
    GpuIndex,
    node::{GpuInfo, GpuPair, GpuSample, Vendor},
    wire::FactKind,
};

use super::{Driver, DriverError, amd::Amd, nvidia, nvidia::Nvidia, pci, simulated::Simulated};
use crate::sample::Reading;

/// Names NVML's library, where the system's own isn't meant.
pub const NVML_LIBRARY: &str = "CLAWBERNETES_NVML_LIBRARY";

/// Distance between the first indexes of two drivers. No driver has that many GPUs in one machine.
pub const INDEX_SPAN: GpuIndex = 64;

/// Where to look for GPUs.
#[derive(Debug)]
pub struct Options {
    /// How NVML is found and asked.
    pub nvidia: nvidia::Options,
    /// Where sysfs is mounted.
    pub sysfs: PathBuf,
    /// These instead of real ones, which aren't even looked for: real and made-up GPUs on one node would only
    /// mislead.
    pub simulated: Option<Arc<Simulated>>,
}

impl Options {
    /// This machine, with what the environment says ([`NVML_LIBRARY`]).
    #[must_use]
    pub fn from_env() -> Self {
        Self {
            nvidia: nvidia::Options {
                library: env::var_os(NVML_LIBRARY)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from),
                ..nvidia::Options::default()
            },
            sysfs: PathBuf::from("/sys"),
            simulated: None,
        }
    }
}

/// Finds the drivers of this machine's GPUs, and says in words what was looked for and not found or doesn't work.
///
/// Indexes never clash: the first driver that is found keeps its own count from 0; where a machine has GPUs of
/// several vendors, those of the next driver begin at [`INDEX_SPAN`]. A driver that doesn't answer yet is among them,
/// since it may later; one that can't be opened isn't, until this is called again. Blocks for seconds.
#[must_use]
pub fn detect(options: Options) -> (Vec<Box<dyn Driver>>, Vec<String>) {
    if let Some(simulated) = options.simulated {
        let notes = simulated.notes();
        return (vec![Box::new(simulated)], notes);
    }
    let mut drivers: Vec<Box<dyn Driver>> = Vec::new();
    let mut notes = Vec::new();
    let mut add = |driver: Result<Box<dyn Driver>, DriverError>, name: &str, pci_vendor: &str| {
        let driver = match driver {
            Ok(driver) => driver,
            Err(error) => {
                notes.push(error.to_string());
                let idle = pci::count_gpus(&options.sysfs, pci_vendor);
                if idle > 0 && matches!(error, DriverError::Absent { .. }) {
                    notes.push(format!(
                        "{idle} {name} GPUs are on the PCI bus without a working driver"
                    ));
                }
                return;
            }
        };
        // An inventory, so that the driver knows of whom to speak from the first sample on.
        let found = driver.inventory();
        notes.extend(driver.notes());
        match found {
            Ok(gpus) if gpus.is_empty() => {
                notes.push(format!("the {name} driver is there but has no GPU"));
                return;
            }
            Ok(_) => {}
            // It may answer later.
            Err(error) => notes.push(error.to_string()),
        }
        let base = INDEX_SPAN * GpuIndex::try_from(drivers.len()).unwrap_or(0);
        drivers.push(if base == 0 {
            driver
        } else {
            Box::new(Shifted { driver, base })
        });
    };
    let nvidia = Nvidia::open(options.nvidia).map(|driver| Box::new(driver) as _);
    add(nvidia, "NVIDIA", "0x10de");
    let amd = Amd::open(&options.sysfs).map(|driver| Box::new(driver) as _);
    add(amd, "AMD", "0x1002");
    (drivers, notes)
}

/// A driver whose indexes begin further up.
struct Shifted {
    driver: Box<dyn Driver>,
    base: GpuIndex,
}

impl Driver for Shifted {
    fn vendor(&self) -> Vendor {
        self.driver.vendor()
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        let mut gpus = self.driver.inventory()?;
        gpus.iter_mut().for_each(|gpu| gpu.index += self.base);
        Ok(gpus)
    }

    fn links(&self) -> Vec<GpuPair> {
        let mut pairs = self.driver.links();
        for pair in &mut pairs {
            pair.a += self.base;
            pair.b += self.base;
        }
        pairs
    }

    fn sample(&self) -> Vec<GpuSample> {
        let mut samples = self.driver.sample();
        samples.iter_mut().for_each(|sample| sample.index += self.base);
        samples
    }

    fn readings(&self, index: GpuIndex) -> Vec<Reading> {
        index
            .checked_sub(self.base)
            .map_or_else(Vec::new, |own| self.driver.readings(own))
    }

    fn facts(&self) -> Vec<(FactKind, String)> {
        let mut facts = self.driver.facts();
        for (fact, _) in &mut facts {
            if let FactKind::Xid { gpu: Some(gpu), .. } | FactKind::AmdGpu { gpu: Some(gpu), .. } = fact {
                *gpu += self.base;
            }
        }
        facts
    }

    fn notes(&self) -> Vec<String> {
        self.driver.notes()
    }

    fn set_held(&self, held: &[GpuIndex]) {
        let own: Vec<GpuIndex> = held.iter().filter_map(|index| index.checked_sub(self.base)).collect();
        self.driver.set_held(&own);
    }
}

#[cfg(test)]
mod tests {
    use api::NodeName;

    use super::{
        super::simulated::{Clock, Scenario},
        *,
    };

    #[test]
    fn simulated_gpus_stand_alone() {
        let gpus = "2xNova,1xH100".parse().expect("GPUs");
        let simulated =
            Simulated::new(NodeName::new("n"), &gpus, Scenario::default(), Clock::running()).expect("a driver");
        let (drivers, notes) = detect(Options {
            simulated: Some(Arc::new(simulated)),
            ..Options::from_env()
        });
        assert_eq!(drivers.len(), 1);
        assert_eq!(drivers[0].inventory().map(|gpus| gpus.len()), Ok(3));
        assert_eq!(notes.len(), 1, "{notes:?}");
    }
}
