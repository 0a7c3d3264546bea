//! NVIDIA's XID errors as findings have them: the table of [`api::xid`], in this crate's words for how bad and what helps.

use api::xid;
pub use api::xid::Fault;

use crate::{Remedy, Severity};

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
    /// How bad it is for the GPU and the node; a program's own fault is `info`.
    pub severity: Severity,
    /// What helps.
    pub remedy: Remedy,
}

impl From<xid::Xid> for Xid {
    fn from(known: xid::Xid) -> Self {
        Self {
            code: known.code,
            mnemonic: known.mnemonic,
            meaning: known.meaning,
            fault: known.fault,
            severity: match known.severity {
                xid::Severity::Info => Severity::Info,
                xid::Severity::Warning => Severity::Warning,
                xid::Severity::Critical => Severity::Critical,
            },
            remedy: match known.remedy {
                xid::Remedy::Ignore => Remedy::Ignore,
                xid::Remedy::Watch => Remedy::Watch,
                xid::Remedy::RestartWorkload => Remedy::RestartWorkload,
                xid::Remedy::CheckPower => Remedy::CheckPower,
                xid::Remedy::CheckCabling => Remedy::CheckCabling,
                xid::Remedy::UpdateDriver => Remedy::UpdateDriver,
                xid::Remedy::ResetGpu => Remedy::ResetGpu,
                xid::Remedy::RebootNode => Remedy::RebootNode,
                xid::Remedy::Replace => Remedy::Replace,
            },
        }
    }
}

/// All that are known, by number.
pub fn all() -> impl Iterator<Item = Xid> {
    xid::TABLE.iter().copied().map(Xid::from)
}

/// What is known of a number. One that isn't in the table is a warning whose meaning is unknown.
#[must_use]
pub fn lookup(code: u32) -> Xid {
    xid::lookup(code).into()
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
        ("reboot", Remedy::RebootNode),
        ("drain and reset", Remedy::ResetGpu),
        ("reset", Remedy::ResetGpu),
        ("drain p2p", Remedy::RestartWorkload),
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
    fn the_drivers_own_word_is_read() {
        let text = |from: &str, to: &str| format!("GPU recovery action changed from {from} to {to}");
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x1 (GPU Reset Required)")),
            Some(Remedy::ResetGpu)
        );
        assert_eq!(
            recovery_action(&text("0x1 (GPU Reset Required)", "0x2 (Node Reboot Required)")),
            Some(Remedy::RebootNode)
        );
        assert_eq!(recovery_action(&text("0x1 (GPU Reset Required)", "0x0 (None)")), None);
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x3 (Drain P2P)")),
            Some(Remedy::RestartWorkload)
        );
        assert_eq!(
            recovery_action(&text("0x0 (None)", "0x4 (Drain and Reset)")),
            Some(Remedy::ResetGpu)
        );
        assert_eq!(recovery_action(""), None);
        assert!(is_all_clear(&text("0x1 (GPU Reset Required)", "0x0 (None)")));
        assert!(!is_all_clear(&text("0x0 (None)", "0x1 (GPU Reset Required)")) && !is_all_clear(""));
    }
}
