//! From what a driver reads about a GPU to whether it can be trusted with work.
//!
//! The rules follow NVIDIA's "GPU memory error management" and its XID catalogue: a pending row remapping doesn't
//! affect new work, a failed one means replacing the GPU, and an asked-for reset means that nothing runs until then.

use api::{
    node::GpuHealth,
    xid::{self, Xid},
};

/// What the driver wants done before the GPU is fully usable again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing, or the driver is too old to say.
    #[default]
    None,
    /// Stop all work on it and reset it.
    Reset,
    /// Reboot the machine.
    Reboot,
    /// Let traffic between GPUs come to rest.
    DrainPeers,
    /// Usable at reduced capacity; reset it when it is free.
    ResetWhenFree,
}

/// What bears on a GPU's health. The default is a healthy GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// It doesn't answer on the bus any more.
    pub lost: bool,
    /// A call was refused until it is reset.
    pub reset_required: bool,
    /// Nothing at all could be read, with the driver's words.
    pub silent: Option<String>,
    /// It is divided into MIG instances.
    pub mig: bool,
    /// A worn-out memory row couldn't be replaced.
    pub remap_failed: bool,
    /// A memory row is replaced at the next reset.
    pub remap_pending: bool,
    /// A memory page is retired at the next reset (before Ampere).
    pub retirement_pending: bool,
    /// Uncorrectable memory errors since the driver was loaded.
    pub ecc_uncorrected: u64,
    /// What the driver asks for.
    pub recovery: Recovery,
    /// The hardware has slowed down because it is too hot.
    pub throttled_by_heat: bool,
    /// The hardware has slowed down because the power supply said so.
    pub throttled_by_power: bool,
    /// The last XID error that says something about the hardware.
    pub xid: Option<u64>,
    /// Readings that failed although the GPU has them, in words.
    pub unreadable: Vec<String>,
}

/// What NVIDIA's catalogue says of an XID error, by the number that the driver gives.
pub(super) fn known_xid(code: u64) -> Xid {
    // What no catalogue can hold isn't in it either.
    xid::lookup(u32::try_from(code).unwrap_or(u32::MAX))
}

impl Facts {
    /// The verdict: the first rule that makes the GPU unusable, else all that needs attention.
    pub(super) fn judge(&self) -> GpuHealth {
        match self.failure() {
            Some(reason) => return GpuHealth::Failed { reason },
            None => {
                if let Some(why) = &self.silent {
                    return GpuHealth::Unknown {
                        reason: format!("the driver doesn't answer for it: {why}"),
                    };
                }
            }
        }
        let reasons = self.complaints();
        if reasons.is_empty() {
            GpuHealth::Ok
        } else {
            GpuHealth::Degraded {
                reason: reasons.join("; "),
            }
        }
    }

    fn failure(&self) -> Option<String> {
        let words = match self {
            Self { lost: true, .. } => "fell off the bus: reboot the machine, and reseat or replace it if that repeats",
            Self {
                recovery: Recovery::Reboot,
                ..
            } => "the driver asks for a reboot of the machine",
            Self {
                reset_required: true, ..
            }
            | Self {
                recovery: Recovery::Reset,
                ..
            } => "needs a reset before it can be used again (stop the agent, then `nvidia-smi --gpu-reset`)",
            Self { remap_failed: true, .. } => "a memory row couldn't be remapped: replace it",
            Self { mig: true, .. } => {
                "in MIG mode: its instances aren't handed out yet (`nvidia-smi -mig 0` ends MIG mode)"
            }
            Self { xid: Some(code), .. } => {
                let known = known_xid(*code);
                return known.is_fatal().then(|| format!("XID {code}: {}", known.meaning));
            }
            _ => return None,
        };
        Some(words.to_owned())
    }

    fn complaints(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(code) = self.xid {
            let known = known_xid(code);
            if known.bears_on_gpu() && !known.is_fatal() {
                reasons.push(format!("XID {code}: {}", known.meaning));
            }
        }
        match self.ecc_uncorrected {
            0 => {}
            1 => reasons.push("1 uncorrectable memory error since the driver was loaded".to_owned()),
            n => reasons.push(format!("{n} uncorrectable memory errors since the driver was loaded")),
        }
        let flags = [
            (self.remap_pending, "a memory row is remapped at the next reset"),
            (self.retirement_pending, "a memory page is retired at the next reset"),
            (
                self.recovery == Recovery::ResetWhenFree,
                "works at reduced capacity: reset it once it is free",
            ),
            (
                self.recovery == Recovery::DrainPeers,
                "the driver asks for traffic between GPUs to come to rest",
            ),
            (self.throttled_by_heat, "slowed down by the hardware: too hot"),
            (self.throttled_by_power, "slowed down by the hardware: power brake"),
        ];
        reasons.extend(
            flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, words)| (*words).to_owned()),
        );
        reasons.extend(self.unreadable.iter().map(|what| format!("can't be read: {what}")));
        reasons
    }
}

/// Remembers the worst XID error of a GPU until enough clean samples have followed it: one bad moment doesn't put a
/// GPU away for ever, and where more than a moment is wrong, other readings say so.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct XidMemory {
    worst: Option<u64>,
    clean: u32,
}

/// Samples without a new error and without other complaints after which an XID error is forgotten: five minutes at
/// a sample every ten seconds.
pub(super) const CLEAN_SAMPLES: u32 = 30;

impl XidMemory {
    /// Takes note of an error.
    pub(super) fn note(&mut self, code: u64) {
        if !known_xid(code).bears_on_gpu() {
            return;
        }
        if self
            .worst
            .is_none_or(|worst| known_xid(worst).is_fatal() <= known_xid(code).is_fatal())
        {
            self.worst = Some(code);
        }
        self.clean = 0;
    }

    /// Completes a sample's facts (which hold everything but XID errors).
    pub(super) fn complete(&mut self, facts: &mut Facts) {
        if self.worst.is_none() {
            return;
        }
        facts.xid = self.worst;
        if (Facts {
            xid: None,
            ..facts.clone()
        })
        .judge()
            == GpuHealth::Ok
        {
            self.clean += 1;
        } else {
            self.clean = 0;
        }
        if self.clean > CLEAN_SAMPLES {
            *self = Self::default();
            facts.xid = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(facts: Facts) -> &'static str {
        facts.judge().name()
    }

    #[test]
    fn each_fact_has_its_verdict() {
        let d = Facts::default;
        assert_eq!(name(d()), "ok");
        assert_eq!(name(Facts { lost: true, ..d() }), "failed");
        assert_eq!(
            name(Facts {
                reset_required: true,
                ..d()
            }),
            "failed"
        );
        assert_eq!(
            name(Facts {
                recovery: Recovery::Reboot,
                ..d()
            }),
            "failed"
        );
        assert_eq!(
            name(Facts {
                remap_failed: true,
                ..d()
            }),
            "failed"
        );
        assert_eq!(name(Facts { mig: true, ..d() }), "failed");
        assert_eq!(
            name(Facts {
                remap_pending: true,
                ..d()
            }),
            "degraded"
        );
        assert_eq!(
            name(Facts {
                recovery: Recovery::ResetWhenFree,
                ..d()
            }),
            "degraded"
        );
        assert_eq!(
            name(Facts {
                ecc_uncorrected: 1,
                ..d()
            }),
            "degraded"
        );
        assert_eq!(
            name(Facts {
                throttled_by_heat: true,
                ..d()
            }),
            "degraded"
        );
        assert_eq!(
            name(Facts {
                silent: Some("timeout".into()),
                ..d()
            }),
            "unknown"
        );
        assert_eq!(name(Facts { xid: Some(13), ..d() }), "ok", "a program's own fault");
        assert_eq!(name(Facts { xid: Some(94), ..d() }), "degraded");
        assert_eq!(name(Facts { xid: Some(95), ..d() }), "failed");
        assert_eq!(name(Facts { xid: Some(777), ..d() }), "degraded");
    }

    #[test]
    fn a_lost_gpu_is_failed_even_when_nothing_can_be_read() {
        let facts = Facts {
            lost: true,
            silent: Some("no answer".into()),
            ..Facts::default()
        };
        assert_eq!(facts.judge().name(), "failed");
    }

    #[test]
    fn complaints_are_all_named() {
        let facts = Facts {
            ecc_uncorrected: 2,
            remap_pending: true,
            ..Facts::default()
        };
        assert_eq!(
            facts.judge().reason(),
            Some(
                "2 uncorrectable memory errors since the driver was loaded; a memory row is remapped at the next reset"
            )
        );
    }

    #[test]
    fn an_xid_error_is_forgotten_after_clean_samples_only() {
        let mut memory = XidMemory::default();
        memory.note(95);
        memory.note(94);
        let mut sample = |dirty: bool| {
            let mut facts = Facts {
                remap_pending: dirty,
                ..Facts::default()
            };
            memory.complete(&mut facts);
            facts.judge().name()
        };
        for _ in 0..CLEAN_SAMPLES {
            assert_eq!(sample(false), "failed", "the worst of the two counts");
        }
        assert_eq!(sample(true), "failed", "a complaint starts the count anew");
        for _ in 0..CLEAN_SAMPLES {
            assert_eq!(sample(false), "failed");
        }
        assert_eq!(sample(false), "ok");
    }
}
