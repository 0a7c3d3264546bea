//! NVIDIA's XID errors: what each says, whose fault it is, how bad it is, and what helps.
//!
//! Numbers, names and remedies follow NVIDIA's public XID catalogue; the words are ours. Agents judge GPUs by it, the
//! diagnosis and the rules of alerts stand on it.

/// Whose fault it is, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The program's: other work on the GPU goes on.
    Program,
    /// Memory of the GPU.
    Memory,
    /// Another part of the GPU or of the machine.
    Hardware,
    /// Driver or firmware.
    Driver,
    /// NVLink, or another link.
    Link,
    /// It tells about another error, or what was done.
    Note,
    /// It isn't in the table.
    Unknown,
}

/// How bad it is for the GPU and the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A program's own fault, or a mere note.
    Info,
    /// Something to look at.
    Warning,
    /// Work fails, or is about to.
    Critical,
}

/// What helps, the heaviest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remedy {
    /// Nothing has to be done.
    Ignore,
    /// Look again; act if it grows.
    Watch,
    /// Start the workload again.
    RestartWorkload,
    /// Power supplies, power cables, the rack's budget.
    CheckPower,
    /// Cables, risers, seating, NVLink bridges, switches.
    CheckCabling,
    /// Driver or firmware of another version.
    UpdateDriver,
    /// Take work off the GPU and reset it.
    ResetGpu,
    /// Take work off the node and reboot it.
    RebootNode,
    /// Take work off the node and have the part replaced.
    Replace,
}

/// An XID error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid {
    /// Its number.
    pub code: u32,
    /// Its name in the driver.
    pub mnemonic: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// How bad it is.
    pub severity: Severity,
    /// What helps.
    pub remedy: Remedy,
}

impl Xid {
    /// Whether it says something about the GPU: it is neither a program's own fault nor a mere note.
    #[must_use]
    pub fn bears_on_gpu(&self) -> bool {
        self.severity > Severity::Info
    }

    /// Whether nothing should run on the GPU until it is reset, its node rebooted, or it is replaced.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Critical && self.remedy >= Remedy::ResetGpu
    }
}

macro_rules! table {
    ($( $code:literal $mnemonic:literal $fault:ident $severity:ident $remedy:ident $meaning:literal; )*) => {
        /// All that are known, by number.
        pub const TABLE: &[Xid] = &[
            $( Xid {
                code: $code,
                mnemonic: $mnemonic,
                meaning: $meaning,
                fault: Fault::$fault,
                severity: Severity::$severity,
                remedy: Remedy::$remedy,
            }, )*
        ];
    };
}

table! {
    8 "FIFO_ERROR_IDLE_TIMEOUT" Program Info RestartWorkload "work stopped making progress and was timed out";
    11 "GR_ERROR_MISSING_HW" Program Info RestartWorkload "invalid or corrupted command stream";
    13 "GR_EXCEPTION" Program Info RestartWorkload "compute engine exception: bad memory access or instruction in a kernel";
    31 "FIFO_ERROR_MMU_ERR_FLT" Program Info RestartWorkload "memory page fault: the program used an address that isn't its own";
    32 "PBDMA_ERROR" Program Info RestartWorkload "the command fetcher met invalid or corrupted commands";
    37 "FECS_ERR_UNIMP_FIRMWARE_METHOD" Driver Info Watch "the driver asked firmware for something it doesn't have";
    38 "FECS_ERR_WATCHDOG_TIMEOUT" Driver Warning UpdateDriver "front-end firmware of the driver timed out";
    39 "CE0_ERROR" Program Info RestartWorkload "copy engine exception";
    40 "CE1_ERROR" Program Info RestartWorkload "copy engine exception";
    41 "CE2_ERROR" Program Info RestartWorkload "copy engine exception";
    42 "VIC_ERROR" Program Info RestartWorkload "video compositor exception";
    43 "RESETCHANNEL_VERIF_ERROR" Program Info RestartWorkload "the GPU stopped this program's work after a fault of the program";
    44 "GR_FAULT_DURING_CTXSW" Driver Warning RestartWorkload "fault while switching between programs";
    45 "PREEMPTIVE_REMOVAL" Note Info Ignore "work was cleaned up after another error, or because its program was ended";
    46 "GPU_TIMEOUT_ERROR" Driver Critical ResetGpu "the GPU stopped processing";
    47 "NVENC0_ERROR" Program Info RestartWorkload "video encoder exception";
    48 "GPU_ECC_DBE" Memory Critical ResetGpu "double-bit memory error: data was lost";
    54 "SILENT_RUNNING_PWR_REDUCED_CLOCKING" Hardware Critical CheckPower "auxiliary power is missing: the GPU runs slowly";
    56 "DISPLAY_ENGINE_ERROR" Driver Warning Watch "display engine error";
    57 "FBPA_ERROR" Hardware Critical Replace "memory interface could not be set up";
    58 "FB_MEMORY_ERROR" Hardware Critical Replace "unstable memory interface";
    59 "PMU_ERROR" Driver Warning ResetGpu "power-management controller error (older drivers)";
    60 "SEC2_ERROR" Driver Warning RestartWorkload "security processor exception";
    61 "PMU_BREAKPOINT" Driver Warning ResetGpu "power-management controller stopped at a breakpoint";
    62 "PMU_HALT_ERROR" Hardware Critical ResetGpu "power-management controller halted";
    63 "INFOROM_DRAM_RETIREMENT_EVENT" Memory Warning ResetGpu "a worn memory row (or page) is recorded for replacement at the next reset";
    64 "INFOROM_DRAM_RETIREMENT_FAILURE" Memory Critical Replace "a worn memory row (or page) could not be replaced";
    65 "NVENC1_ERROR" Program Info RestartWorkload "video encoder exception";
    66 "FECS_ERR_REG_ACCESS_VIOLATION" Driver Info Watch "illegal access by the driver";
    67 "FECS_ERR_VERIF_VIOLATION" Driver Info Watch "illegal access by the driver";
    68 "NVDEC0_ERROR" Program Info RestartWorkload "video decoder exception";
    69 "GR_CLASS_ERROR" Program Info RestartWorkload "the program gave the compute engine a wrong command";
    70 "CE3_ERROR" Program Info RestartWorkload "copy engine exception";
    71 "CE4_ERROR" Program Info RestartWorkload "copy engine exception";
    72 "CE5_ERROR" Program Info RestartWorkload "copy engine exception";
    73 "NVENC2_ERROR" Program Info RestartWorkload "video encoder exception";
    74 "NVLINK_ERROR" Link Critical CheckCabling "NVLink error: the link, the GPU at its other end, or the bridge between";
    75 "CE6_ERROR" Program Info RestartWorkload "copy engine exception";
    76 "CE7_ERROR" Program Info RestartWorkload "copy engine exception";
    77 "CE8_ERROR" Program Info RestartWorkload "copy engine exception";
    78 "VGPU_START_ERROR" Driver Warning UpdateDriver "a virtual GPU could not be started";
    79 "GPU_HAS_FALLEN_OFF_THE_BUS" Hardware Critical RebootNode "the GPU doesn't answer on PCIe any more";
    80 "PBDMA_PUSHBUFFER_CRC_MISMATCH" Hardware Warning RestartWorkload "commands arrived corrupted";
    81 "VGA_SUBSYSTEM_ERROR" Hardware Warning Watch "VGA subsystem error";
    82 "NVJPG0_ERROR" Program Info RestartWorkload "JPEG engine exception";
    83 "NVDEC1_ERROR" Program Info RestartWorkload "video decoder exception";
    84 "NVDEC2_ERROR" Program Info RestartWorkload "video decoder exception";
    85 "CE9_ERROR" Program Info RestartWorkload "copy engine exception";
    86 "OFA0_ERROR" Program Info RestartWorkload "optical flow engine exception";
    88 "NVDEC3_ERROR" Program Info RestartWorkload "video decoder exception";
    89 "NVDEC4_ERROR" Program Info RestartWorkload "video decoder exception";
    92 "EXCESSIVE_SBE_INTERRUPTS" Memory Warning Watch "many single-bit memory errors, all corrected";
    93 "INFOROM_ERASE_LIMIT_EXCEEDED" Hardware Warning Watch "the GPU's own store of settings was written too often";
    94 "CONTAINED_ERROR" Memory Warning RestartWorkload "memory error that was kept to one program, which ended";
    95 "UNCONTAINED_ERROR" Memory Critical ResetGpu "memory error that could not be kept to one program: all work on the GPU is suspect";
    108 "NVLINK_REMOTE_TRANSLATION_ERROR" Link Info RestartWorkload "a remote GPU's address could not be translated";
    109 "CTXSW_TIMEOUT_ERROR" Driver Critical ResetGpu "switching between programs timed out";
    110 "SEC_FAULT_ERROR" Hardware Critical ResetGpu "security fault";
    111 "DISPLAY_BUNDLE_ERROR" Driver Info Watch "display error";
    118 "DISPLAY_PIXEL_PIPELINE_ERROR" Driver Info Watch "display error";
    119 "GSP_RPC_TIMEOUT" Driver Critical ResetGpu "the GPU's system processor doesn't answer the driver";
    120 "GSP_ERROR" Driver Critical ResetGpu "the GPU's system processor met an error";
    121 "C2C_ERROR" Link Warning Watch "errors on the chip-to-chip link, corrected";
    122 "SPI_PMU_RPC_READ_FAIL" Hardware Warning ResetGpu "the GPU's own store of settings can't be read";
    123 "SPI_PMU_RPC_WRITE_FAIL" Hardware Warning ResetGpu "the GPU's own store of settings can't be written";
    124 "SPI_PMU_RPC_ERASE_FAIL" Hardware Warning ResetGpu "the GPU's own store of settings can't be erased";
    125 "INFOROM_FS_ERROR" Hardware Warning Replace "the GPU's own store of settings is damaged";
    136 "ALI_TRAINING_FAIL" Link Critical ResetGpu "an NVLink could not be brought up";
    137 "NVLINK_PRIV_ERR" Link Info RestartWorkload "a remote GPU's memory was used without permission; often follows a program's fault elsewhere";
    140 "UNRECOVERABLE_ECC_ERROR_ESCAPE" Memory Critical ResetGpu "memory error that the driver could not deal with";
    141 "FAST_PATH_ERROR" Driver Info Watch "error on a fast path of the driver";
    143 "GPU_INIT_ERROR" Hardware Critical ResetGpu "the GPU could not be initialised";
    144 "NVLINK_SAW_ERROR" Link Warning ResetGpu "NVLink 5 error (switch attachment)";
    145 "NVLINK_RLW_ERROR" Link Warning ResetGpu "NVLink 5 error (remote link wrapper)";
    146 "NVLINK_TLW_ERROR" Link Warning ResetGpu "NVLink 5 error (transaction layer)";
    147 "NVLINK_TREX_ERROR" Link Info Watch "NVLink 5 error (test and tracing unit)";
    148 "NVLINK_NVLPW_CTRL_ERROR" Link Info Watch "NVLink 5 error (power control)";
    149 "NVLINK_NETIR_ERROR" Link Critical ResetGpu "NVLink 5 error (network interface): a link went down or lost data";
    150 "NVLINK_MSE_ERROR" Link Critical ResetGpu "NVLink 5 error (management engine)";
    151 "KEY_ROTATION_ERROR" Driver Critical RebootNode "key rotation failed (confidential computing)";
    154 "GPU_RECOVERY_ACTION_CHANGED" Note Info Ignore "the driver says what has to be done to recover";
    155 "NVLINK_SW_DEFINED_ERROR" Link Critical ResetGpu "NVLink 5 error (found by software)";
    156 "RESOURCE_RETIREMENT_EVENT" Memory Warning ResetGpu "a worn part of the GPU is recorded for retirement at the next reset";
    157 "RESOURCE_RETIREMENT_FAILURE" Memory Critical Replace "a worn part of the GPU could not be retired";
    158 "GPU_FATAL_TIMEOUT" Hardware Critical ResetGpu "the GPU timed out for good";
}

/// What is known of a number. One that isn't in the table is a warning whose meaning is unknown.
#[must_use]
pub fn lookup(code: u32) -> Xid {
    let unknown = Xid {
        code,
        mnemonic: "UNKNOWN",
        meaning: "unknown: not in the table",
        fault: Fault::Unknown,
        severity: Severity::Warning,
        remedy: Remedy::Watch,
    };
    TABLE
        .binary_search_by_key(&code, |x| x.code)
        .map_or(unknown, |at| TABLE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_what_matters() {
        assert!(TABLE.windows(2).all(|w| w[0].code < w[1].code));
        for code in [
            8, 11, 13, 31, 32, 38, 43, 44, 45, 46, 48, 54, 56, 57, 61, 62, 63, 64, 68, 69, 71, 73, 74, 79, 92, 94, 95,
            109, 110, 118, 119, 120, 121, 122, 123, 136, 137, 140, 143, 144, 145, 146, 147, 148, 149, 150, 154, 158,
        ] {
            assert_ne!(lookup(code).fault, Fault::Unknown, "{code}");
        }
        assert_eq!(lookup(9999).fault, Fault::Unknown);
        assert_eq!(lookup(9999).code, 9999);
    }

    #[test]
    fn a_programs_fault_is_no_fault_of_the_node() {
        for xid in TABLE.iter().filter(|x| x.fault == Fault::Program) {
            assert_eq!(
                (xid.severity, xid.remedy),
                (Severity::Info, Remedy::RestartWorkload),
                "{xid:?}"
            );
        }
        for xid in TABLE.iter().filter(|x| x.severity == Severity::Critical) {
            assert!(xid.remedy >= Remedy::CheckPower, "{xid:?}");
        }
    }

    #[test]
    fn what_puts_a_gpu_away() {
        let fatal: Vec<u32> = TABLE.iter().filter(|x| x.is_fatal()).map(|x| x.code).collect();
        for code in [48, 62, 64, 79, 95, 119, 120, 140] {
            assert!(fatal.contains(&code), "{code}");
        }
        for code in [13, 31, 43, 45, 63, 74, 92, 94, 154, 9999] {
            assert!(!lookup(code).is_fatal(), "{code}");
        }
        assert!(lookup(94).bears_on_gpu() && lookup(9999).bears_on_gpu());
        assert!(!lookup(13).bears_on_gpu() && !lookup(45).bears_on_gpu());
    }
}
