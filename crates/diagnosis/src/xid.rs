//! NVIDIA's XID errors: what each says, whose fault it is, and what helps.
//!
//! Numbers, names and remedies follow NVIDIA's public XID catalogue; the words are ours.

use serde::{Deserialize, Serialize};

use crate::{Remedy, Severity};

/// Whose fault it is, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// An XID error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Xid {
    /// Its number.
    pub code: u32,
    /// Its name in the driver.
    pub mnemonic: &'static str,
    /// What it says.
    pub meaning: &'static str,
    /// Whose fault it is.
    pub fault: Fault,
    /// How bad it is for the GPU and the node; a program's own fault is `info`.
    pub severity: Severity,
    /// What helps.
    pub remedy: Remedy,
}

const fn x(
    code: u32,
    mnemonic: &'static str,
    meaning: &'static str,
    fault: Fault,
    severity: Severity,
    remedy: Remedy,
) -> Xid {
    Xid {
        code,
        mnemonic,
        meaning,
        fault,
        severity,
        remedy,
    }
}

use Fault::{Driver, Hardware, Link, Memory, Note, Program};
use Remedy::{CheckCabling, CheckPower, Ignore, RebootNode, Replace, ResetGpu, RestartWorkload, UpdateDriver, Watch};
use Severity::{Critical, Info, Warning};

/// All that are known, by number.
pub const TABLE: &[Xid] = &[
    x(
        8,
        "FIFO_ERROR_IDLE_TIMEOUT",
        "work stopped making progress and was timed out",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        11,
        "GR_ERROR_MISSING_HW",
        "invalid or corrupted command stream",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        13,
        "GR_EXCEPTION",
        "compute engine exception: bad memory access or instruction in a kernel",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        31,
        "FIFO_ERROR_MMU_ERR_FLT",
        "memory page fault: the program used an address that isn't its own",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        32,
        "PBDMA_ERROR",
        "the command fetcher met invalid or corrupted commands",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        37,
        "FECS_ERR_UNIMP_FIRMWARE_METHOD",
        "the driver asked firmware for something it doesn't have",
        Driver,
        Info,
        Watch,
    ),
    x(
        38,
        "FECS_ERR_WATCHDOG_TIMEOUT",
        "front-end firmware of the driver timed out",
        Driver,
        Warning,
        UpdateDriver,
    ),
    x(39, "CE0_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(40, "CE1_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(41, "CE2_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(
        42,
        "VIC_ERROR",
        "video compositor exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        43,
        "RESETCHANNEL_VERIF_ERROR",
        "the GPU stopped this program's work after a fault of the program",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        44,
        "GR_FAULT_DURING_CTXSW",
        "fault while switching between programs",
        Driver,
        Warning,
        RestartWorkload,
    ),
    x(
        45,
        "PREEMPTIVE_REMOVAL",
        "work was cleaned up after another error, or because its program was ended",
        Note,
        Info,
        Ignore,
    ),
    x(
        46,
        "GPU_TIMEOUT_ERROR",
        "the GPU stopped processing",
        Driver,
        Critical,
        ResetGpu,
    ),
    x(
        47,
        "NVENC0_ERROR",
        "video encoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        48,
        "GPU_ECC_DBE",
        "double-bit memory error: data was lost",
        Memory,
        Critical,
        ResetGpu,
    ),
    x(
        54,
        "SILENT_RUNNING_PWR_REDUCED_CLOCKING",
        "auxiliary power is missing: the GPU runs slowly",
        Hardware,
        Critical,
        CheckPower,
    ),
    x(
        56,
        "DISPLAY_ENGINE_ERROR",
        "display engine error",
        Driver,
        Warning,
        Watch,
    ),
    x(
        57,
        "FBPA_ERROR",
        "memory interface could not be set up",
        Hardware,
        Critical,
        Replace,
    ),
    x(
        58,
        "FB_MEMORY_ERROR",
        "unstable memory interface",
        Hardware,
        Critical,
        Replace,
    ),
    x(
        59,
        "PMU_ERROR",
        "power-management controller error (older drivers)",
        Driver,
        Warning,
        ResetGpu,
    ),
    x(
        60,
        "SEC2_ERROR",
        "security processor exception",
        Driver,
        Warning,
        RestartWorkload,
    ),
    x(
        61,
        "PMU_BREAKPOINT",
        "power-management controller stopped at a breakpoint",
        Driver,
        Warning,
        ResetGpu,
    ),
    x(
        62,
        "PMU_HALT_ERROR",
        "power-management controller halted",
        Hardware,
        Critical,
        ResetGpu,
    ),
    x(
        63,
        "INFOROM_DRAM_RETIREMENT_EVENT",
        "a worn memory row (or page) is recorded for replacement at the next reset",
        Memory,
        Warning,
        ResetGpu,
    ),
    x(
        64,
        "INFOROM_DRAM_RETIREMENT_FAILURE",
        "a worn memory row (or page) could not be replaced",
        Memory,
        Critical,
        Replace,
    ),
    x(
        65,
        "NVENC1_ERROR",
        "video encoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        66,
        "FECS_ERR_REG_ACCESS_VIOLATION",
        "illegal access by the driver",
        Driver,
        Info,
        Watch,
    ),
    x(
        67,
        "FECS_ERR_VERIF_VIOLATION",
        "illegal access by the driver",
        Driver,
        Info,
        Watch,
    ),
    x(
        68,
        "NVDEC0_ERROR",
        "video decoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        69,
        "GR_CLASS_ERROR",
        "the program gave the compute engine a wrong command",
        Program,
        Info,
        RestartWorkload,
    ),
    x(70, "CE3_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(71, "CE4_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(72, "CE5_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(
        73,
        "NVENC2_ERROR",
        "video encoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        74,
        "NVLINK_ERROR",
        "NVLink error: the link, the GPU at its other end, or the bridge between",
        Link,
        Critical,
        CheckCabling,
    ),
    x(75, "CE6_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(76, "CE7_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(77, "CE8_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(
        78,
        "VGPU_START_ERROR",
        "a virtual GPU could not be started",
        Driver,
        Warning,
        UpdateDriver,
    ),
    x(
        79,
        "GPU_HAS_FALLEN_OFF_THE_BUS",
        "the GPU doesn't answer on PCIe any more",
        Hardware,
        Critical,
        RebootNode,
    ),
    x(
        80,
        "PBDMA_PUSHBUFFER_CRC_MISMATCH",
        "commands arrived corrupted",
        Hardware,
        Warning,
        RestartWorkload,
    ),
    x(
        81,
        "VGA_SUBSYSTEM_ERROR",
        "VGA subsystem error",
        Hardware,
        Warning,
        Watch,
    ),
    x(
        82,
        "NVJPG0_ERROR",
        "JPEG engine exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        83,
        "NVDEC1_ERROR",
        "video decoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        84,
        "NVDEC2_ERROR",
        "video decoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(85, "CE9_ERROR", "copy engine exception", Program, Info, RestartWorkload),
    x(
        86,
        "OFA0_ERROR",
        "optical flow engine exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        88,
        "NVDEC3_ERROR",
        "video decoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        89,
        "NVDEC4_ERROR",
        "video decoder exception",
        Program,
        Info,
        RestartWorkload,
    ),
    x(
        92,
        "EXCESSIVE_SBE_INTERRUPTS",
        "many single-bit memory errors, all corrected",
        Memory,
        Warning,
        Watch,
    ),
    x(
        93,
        "INFOROM_ERASE_LIMIT_EXCEEDED",
        "the GPU's own store of settings was written too often",
        Hardware,
        Warning,
        Watch,
    ),
    x(
        94,
        "CONTAINED_ERROR",
        "memory error that was kept to one program, which ended",
        Memory,
        Warning,
        RestartWorkload,
    ),
    x(
        95,
        "UNCONTAINED_ERROR",
        "memory error that could not be kept to one program: all work on the GPU is suspect",
        Memory,
        Critical,
        ResetGpu,
    ),
    x(
        108,
        "NVLINK_REMOTE_TRANSLATION_ERROR",
        "a remote GPU's address could not be translated",
        Link,
        Info,
        RestartWorkload,
    ),
    x(
        109,
        "CTXSW_TIMEOUT_ERROR",
        "switching between programs timed out",
        Driver,
        Critical,
        ResetGpu,
    ),
    x(110, "SEC_FAULT_ERROR", "security fault", Hardware, Critical, ResetGpu),
    x(111, "DISPLAY_BUNDLE_ERROR", "display error", Driver, Info, Watch),
    x(
        118,
        "DISPLAY_PIXEL_PIPELINE_ERROR",
        "display error",
        Driver,
        Info,
        Watch,
    ),
    x(
        119,
        "GSP_RPC_TIMEOUT",
        "the GPU's system processor doesn't answer the driver",
        Driver,
        Critical,
        ResetGpu,
    ),
    x(
        120,
        "GSP_ERROR",
        "the GPU's system processor met an error",
        Driver,
        Critical,
        ResetGpu,
    ),
    x(
        121,
        "C2C_ERROR",
        "errors on the chip-to-chip link, corrected",
        Link,
        Warning,
        Watch,
    ),
    x(
        122,
        "SPI_PMU_RPC_READ_FAIL",
        "the GPU's own store of settings can't be read",
        Hardware,
        Warning,
        ResetGpu,
    ),
    x(
        123,
        "SPI_PMU_RPC_WRITE_FAIL",
        "the GPU's own store of settings can't be written",
        Hardware,
        Warning,
        ResetGpu,
    ),
    x(
        124,
        "SPI_PMU_RPC_ERASE_FAIL",
        "the GPU's own store of settings can't be erased",
        Hardware,
        Warning,
        ResetGpu,
    ),
    x(
        125,
        "INFOROM_FS_ERROR",
        "the GPU's own store of settings is damaged",
        Hardware,
        Warning,
        Replace,
    ),
    x(
        136,
        "ALI_TRAINING_FAIL",
        "an NVLink could not be brought up",
        Link,
        Critical,
        ResetGpu,
    ),
    x(
        137,
        "NVLINK_PRIV_ERR",
        "a remote GPU's memory was used without permission; often follows a program's fault elsewhere",
        Link,
        Info,
        RestartWorkload,
    ),
    x(
        140,
        "UNRECOVERABLE_ECC_ERROR_ESCAPE",
        "memory error that the driver could not deal with",
        Memory,
        Critical,
        ResetGpu,
    ),
    x(
        141,
        "FAST_PATH_ERROR",
        "error on a fast path of the driver",
        Driver,
        Info,
        Watch,
    ),
    x(
        143,
        "GPU_INIT_ERROR",
        "the GPU could not be initialised",
        Hardware,
        Critical,
        ResetGpu,
    ),
    x(
        144,
        "NVLINK_SAW_ERROR",
        "NVLink 5 error (switch attachment)",
        Link,
        Warning,
        ResetGpu,
    ),
    x(
        145,
        "NVLINK_RLW_ERROR",
        "NVLink 5 error (remote link wrapper)",
        Link,
        Warning,
        ResetGpu,
    ),
    x(
        146,
        "NVLINK_TLW_ERROR",
        "NVLink 5 error (transaction layer)",
        Link,
        Warning,
        ResetGpu,
    ),
    x(
        147,
        "NVLINK_TREX_ERROR",
        "NVLink 5 error (test and tracing unit)",
        Link,
        Info,
        Watch,
    ),
    x(
        148,
        "NVLINK_NVLPW_CTRL_ERROR",
        "NVLink 5 error (power control)",
        Link,
        Info,
        Watch,
    ),
    x(
        149,
        "NVLINK_NETIR_ERROR",
        "NVLink 5 error (network interface): a link went down or lost data",
        Link,
        Critical,
        ResetGpu,
    ),
    x(
        150,
        "NVLINK_MSE_ERROR",
        "NVLink 5 error (management engine)",
        Link,
        Critical,
        ResetGpu,
    ),
    x(
        151,
        "KEY_ROTATION_ERROR",
        "key rotation failed (confidential computing)",
        Driver,
        Critical,
        RebootNode,
    ),
    x(
        154,
        "GPU_RECOVERY_ACTION_CHANGED",
        "the driver says what has to be done to recover",
        Note,
        Info,
        Ignore,
    ),
    x(
        155,
        "NVLINK_SW_DEFINED_ERROR",
        "NVLink 5 error (found by software)",
        Link,
        Critical,
        ResetGpu,
    ),
    x(
        156,
        "RESOURCE_RETIREMENT_EVENT",
        "a worn part of the GPU is recorded for retirement at the next reset",
        Memory,
        Warning,
        ResetGpu,
    ),
    x(
        157,
        "RESOURCE_RETIREMENT_FAILURE",
        "a worn part of the GPU could not be retired",
        Memory,
        Critical,
        Replace,
    ),
    x(
        158,
        "GPU_FATAL_TIMEOUT",
        "the GPU timed out for good",
        Hardware,
        Critical,
        ResetGpu,
    ),
];

/// What is known of a number. One that isn't in the table is a warning whose meaning is unknown.
#[must_use]
pub fn lookup(code: u32) -> Xid {
    TABLE.binary_search_by_key(&code, |x| x.code).map_or(
        x(
            code,
            "UNKNOWN",
            "unknown: not in the table",
            Fault::Unknown,
            Warning,
            Watch,
        ),
        |at| TABLE[at],
    )
}

/// What the driver asks for in the text of an XID 154. `None`: nothing, or nothing that is understood.
#[must_use]
pub fn recovery_action(text: &str) -> Option<Remedy> {
    // First match wins: "changed from 0x1 (GPU Reset Required) to 0x2 (Node Reboot Required)" means the second.
    let asked = text
        .rsplit_once(" to ")
        .map_or(text, |(_, asked)| asked)
        .to_ascii_lowercase();
    [
        ("reboot", RebootNode),
        ("drain and reset", ResetGpu),
        ("reset", ResetGpu),
        ("drain p2p", RestartWorkload),
    ]
    .into_iter()
    .find(|(word, _)| asked.contains(word))
    .map(|(_, remedy)| remedy)
}

/// Whether the text of an XID 154 says that nothing has to be done any more.
#[must_use]
pub fn is_all_clear(text: &str) -> bool {
    text.rsplit_once(" to ")
        .is_some_and(|(_, now)| now.to_ascii_lowercase().contains("none"))
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
        for xid in TABLE.iter().filter(|x| x.fault == Program) {
            assert_eq!((xid.severity, xid.remedy), (Info, RestartWorkload), "{xid:?}");
        }
        for xid in TABLE.iter().filter(|x| x.severity == Critical) {
            assert!(xid.remedy >= Remedy::CheckPower, "{xid:?}");
        }
    }

    #[test]
    fn the_drivers_own_word_is_read() {
        let text = |from: &str, to: &str| format!("GPU recovery action changed from {from} to {to}");
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x1 (GPU Reset Required)")),
            Some(ResetGpu)
        );
        assert_eq!(
            recovery_action(&text("0x1 (GPU Reset Required)", "0x2 (Node Reboot Required)")),
            Some(RebootNode)
        );
        assert_eq!(recovery_action(&text("0x1 (GPU Reset Required)", "0x0 (None)")), None);
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x3 (Drain P2P)")),
            Some(RestartWorkload)
        );
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x4 (Drain and Reset)")),
            Some(ResetGpu)
        );
        assert_eq!(recovery_action(""), None);
        assert!(is_all_clear(&text("0x1 (GPU Reset Required)", "0x0 (None)")));
        assert!(!is_all_clear(&text("0x0 (None)", "0x1 (GPU Reset Required)")) && !is_all_clear(""));
    }
}
