//! Drivers that find GPUs and read their numbers of the moment.

use api::node::{GpuInfo, GpuPair, GpuSample, Vendor};

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

    /// Their numbers of the moment, by index, for every GPU of the last inventory: one that vanished is there with
    /// its health saying so.
    fn sample(&self) -> Vec<GpuSample>;
}
