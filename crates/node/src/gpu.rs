//! Drivers that find GPUs and read their numbers of the moment.
//!
//! - [`nvidia`]: NVML, loaded at run time
//! - [`amd`]: sysfs of the amdgpu driver
//! - [`simulated`]: made-up GPUs with replayable faults
//! - [`probe`]: which of them this machine has

pub mod amd;
mod health;
pub mod nvidia;
pub(crate) mod pci;
pub mod probe;
pub mod simulated;

use api::{
    GpuIndex,
    node::{GpuInfo, GpuPair, GpuSample, Vendor},
    wire::FactKind,
};

use crate::sample::Reading;

/// Why a driver can't be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// There is no such driver or device on this machine: nothing to worry about.
    #[error("no {vendor} driver: {why}")]
    Absent {
        /// Whose.
        vendor: &'static str,
        /// How it was noticed.
        why: String,
    },
    /// It is there and doesn't work.
    #[error("the {vendor} driver failed: {why}")]
    Failed {
        /// Whose.
        vendor: &'static str,
        /// What it said.
        why: String,
    },
}

/// A source of GPUs. Calls may block for milliseconds: call them off the runtime's threads.
pub trait Driver: Send + Sync {
    /// Whose GPUs.
    fn vendor(&self) -> Vendor;

    /// The GPUs as they are now, by index. A GPU that vanished is missing.
    ///
    /// # Errors
    /// The driver itself doesn't answer.
    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError>;

    /// Links between them; pairs that the driver can't tell are missing.
    fn links(&self) -> Vec<GpuPair>;

    /// Their numbers of the moment, by index, for every GPU that any inventory of this driver has held: one that
    /// vanished since is there with its health saying so.
    fn sample(&self) -> Vec<GpuSample>;

    /// All that can be measured of a GPU now; nothing is remembered of it. What it doesn't report is missing; of one
    /// that doesn't answer there is `gpu.up` alone.
    fn readings(&self, index: GpuIndex) -> Vec<Reading>;

    /// What a kernel's log would have said of its GPUs since the last call, with the line. Real GPUs are in the real
    /// log.
    fn facts(&self) -> Vec<(FactKind, String)> {
        Vec::new()
    }

    /// What a person should know of the last inventory: GPUs that couldn't be read, modes that aren't supported.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Tells which GPUs workloads hold now, all of them each time. Real GPUs show by themselves what they do.
    fn set_held(&self, _held: &[GpuIndex]) {}
}

impl<D: Driver + ?Sized> Driver for std::sync::Arc<D> {
    fn vendor(&self) -> Vendor {
        (**self).vendor()
    }

    fn inventory(&self) -> Result<Vec<GpuInfo>, DriverError> {
        (**self).inventory()
    }

    fn links(&self) -> Vec<GpuPair> {
        (**self).links()
    }

    fn sample(&self) -> Vec<GpuSample> {
        (**self).sample()
    }

    fn readings(&self, index: GpuIndex) -> Vec<Reading> {
        (**self).readings(index)
    }

    fn facts(&self) -> Vec<(FactKind, String)> {
        (**self).facts()
    }

    fn notes(&self) -> Vec<String> {
        (**self).notes()
    }

    fn set_held(&self, held: &[GpuIndex]) {
        (**self).set_held(held);
    }
}

/// What samples and readings have in common.
fn basic(sample: &GpuSample) -> Vec<Reading> {
    let numbers = [
        sample
            .memory_used_bytes
            .map(|size| Reading::count("gpu.memory", size.0)),
        sample
            .utilization_percent
            .map(|percent| Reading::now("gpu.utilization", percent)),
        sample
            .temperature_celsius
            .map(|celsius| Reading::now("gpu.temperature", celsius)),
        sample.power_watts.map(|watts| Reading::now("gpu.power", watts)),
    ];
    let mut readings: Vec<Reading> = numbers.into_iter().flatten().collect();
    readings.push(up(!readings.is_empty()));
    readings
}

/// Whether a GPU answers.
pub(crate) fn up(up: bool) -> Reading {
    Reading::now("gpu.up", u8::from(up))
}
