//! Why a GPU runs slower than it could: NVML's clock event reasons.
//!
//! Which of them is normal is NVIDIA's distinction: a GPU that is idle, capped by software or told its clocks does what
//! it was asked to; one that the hardware slows down doesn't.

use serde::{Deserialize, Serialize};

/// A reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Its bit in NVML's `clocksEventReasons` (`nvml.h`).
    pub bit: u64,
    /// Its name.
    pub name: &'static str,
    /// In words.
    pub text: &'static str,
    /// What it means for the GPU.
    pub kind: Kind,
}

/// What a reason means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// As asked: nothing is wrong.
    Normal,
    /// The driver keeps it from getting too hot.
    SoftHeat,
    /// The hardware saves itself from heat.
    HardHeat,
    /// The hardware slows down; heat, power or an outside signal.
    Hard,
    /// The power supply has asked for less.
    PowerBrake,
}

/// All reasons, by bit.
pub const TABLE: &[Reason] = &[
    Reason {
        bit: 0x1,
        name: "gpu-idle",
        text: "nothing to do",
        kind: Kind::Normal,
    },
    Reason {
        bit: 0x2,
        name: "applications-clocks",
        text: "clocks set by an administrator",
        kind: Kind::Normal,
    },
    Reason {
        bit: 0x4,
        name: "sw-power-cap",
        text: "at its power limit",
        kind: Kind::Normal,
    },
    Reason {
        bit: 0x8,
        name: "hw-slowdown",
        text: "slowed down by the hardware",
        kind: Kind::Hard,
    },
    Reason {
        bit: 0x10,
        name: "sync-boost",
        text: "in step with its sync boost group",
        kind: Kind::Normal,
    },
    Reason {
        bit: 0x20,
        name: "sw-thermal-slowdown",
        text: "slowed down by the driver: too hot",
        kind: Kind::SoftHeat,
    },
    Reason {
        bit: 0x40,
        name: "hw-thermal-slowdown",
        text: "slowed down by the hardware: too hot",
        kind: Kind::HardHeat,
    },
    Reason {
        bit: 0x80,
        name: "hw-power-brake",
        text: "slowed down by the hardware: the power supply asked for it",
        kind: Kind::PowerBrake,
    },
    Reason {
        bit: 0x100,
        name: "display-clock",
        text: "clocks set for a display",
        kind: Kind::Normal,
    },
];

/// The bits of a kind, joined.
#[must_use]
pub fn bits(kind: Kind) -> u64 {
    TABLE.iter().filter(|r| r.kind == kind).fold(0, |bits, r| bits | r.bit)
}

/// A sample's bits. Values that are no set of bits have none.
#[must_use]
pub fn of_sample(value: f64) -> u64 {
    if value >= 0.0 && value.fract() == 0.0 && value < 9e15 {
        value as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cap_is_normal_and_a_power_brake_is_not() {
        let kind = |bit| TABLE.iter().find(|r| r.bit == bit).unwrap().kind;
        assert_eq!(kind(0x4), Kind::Normal);
        assert_eq!(kind(0x80), Kind::PowerBrake);
        assert_eq!(bits(Kind::HardHeat), 0x40);
        assert_eq!(of_sample(f64::NAN), 0);
    }

    #[test]
    fn no_bit_is_told_twice() {
        let all = TABLE.iter().fold(0u64, |seen, r| {
            assert!(r.bit.is_power_of_two() && seen & r.bit == 0);
            seen | r.bit
        });
        assert_eq!(all, 0x1ff);
    }
}
