//! GPUs: lost, hot, braked, with broken memory.

use super::super::Span;
use super::super::condition::{Bits, Bound, Condition, Events, Op, StateIs, unknown};
use super::super::reading::Take;
use super::super::rule::{Rule, Severity};
use super::super::unit::Unit;
use super::{inhibits, last, over, rule, words};

const GPU: &[&str] = &["node", "gpu", "uuid"];

/// Bits of NVML's clocks event reasons (`nvmlClocksEventReason*` in nvml.h).
const SW_THERMAL_SLOWDOWN: u64 = 0x20;
const HW_THERMAL_SLOWDOWN: u64 = 0x40;
const HW_POWER_BRAKE_SLOWDOWN: u64 = 0x80;

/// XID errors after which the GPU needs a reset, a reboot or a replacement, as a pattern. Errors of programs (13, 31, 43,
/// 45) are none of these.
fn xids_fatal() -> String {
    let fatal = api::xid::TABLE.iter().filter(|xid| xid.is_fatal());
    fatal.map(|xid| xid.code.to_string()).collect::<Vec<_>>().join("|")
}

pub(super) fn rules() -> Vec<Rule> {
    vec![
        lost(),
        thermal(),
        power_brake(),
        ecc_uncorrected(),
        row_remap_failed(),
        xid_critical(),
    ]
}

fn commands(more: &[&str]) -> Vec<String> {
    ["clawbernetes node info {node}", "clawbernetes diagnose node {node}"]
        .iter()
        .chain(more)
        .map(|command| (*command).to_owned())
        .collect()
}

fn lost() -> Rule {
    Rule {
        description: "Nothing new is placed on it, and what ran on it has failed or will. A GPU that fell off the bus \
                      comes back with a reboot at the earliest."
            .to_owned(),
        for_: Span::seconds(30),
        keep_firing_for: Span::minutes(2),
        commands: commands(&["clawbernetes node drain {node}", "ssh {node} nvidia-smi -q -i {gpu}"]),
        inhibits: vec![
            inhibits(
                &[
                    "gpu-thermal",
                    "gpu-power-brake",
                    "gpu-ecc-uncorrected",
                    "gpu-row-remap-failed",
                    "gpu-xid-critical",
                ],
                &["node", "gpu"],
            ),
            inhibits(&["node-degraded"], &["node"]),
        ],
        ..rule(
            "gpu-lost",
            Severity::Critical,
            GPU,
            "GPU {gpu} of {node} can't be used: {state}",
            Condition::State(StateIs {
                state: "gpu.health".to_owned(),
                labels: Vec::new(),
                words: words(&["failed"]),
                unknown: unknown(),
            }),
        )
    }
}

/// Measured by the device's own slowdown threshold, or told by its throttle bits: there is no temperature that is too
/// hot for every GPU. Three degrees before it there is no margin left.
fn thermal() -> Rule {
    Rule {
        description: "It slows down to stay alive; its work takes longer, and a gang's other GPUs wait for it. Fans, \
                      air flow and the room are where to look."
            .to_owned(),
        for_: Span::minutes(3),
        keep_firing_for: Span::minutes(5),
        commands: commands(&[
            "clawbernetes metrics gpu.temperature --node {node} --last 1h",
            "ssh {node} nvidia-smi -q -d TEMPERATURE,PERFORMANCE -i {gpu}",
        ]),
        ..rule(
            "gpu-thermal",
            Severity::Warning,
            GPU,
            "GPU {gpu} of {node} is too hot: {why}",
            Condition::Any {
                of: vec![
                    last(
                        "gpu.temperature",
                        Op::AtLeast,
                        Bound::offset("gpu.temperature.slowdown", -3.0),
                        Unit::Celsius,
                    ),
                    Condition::Bits(Bits {
                        metric: "gpu.throttle".to_owned(),
                        labels: Vec::new(),
                        mask: SW_THERMAL_SLOWDOWN | HW_THERMAL_SLOWDOWN,
                        meaning: "slowed down by heat".to_owned(),
                        over: None,
                    }),
                ],
            },
        )
    }
}

fn power_brake() -> Rule {
    Rule {
        description: "The power supply or the board asks for less: a failing supply, or more load than it is made for."
            .to_owned(),
        for_: Span::minutes(2),
        keep_firing_for: Span::minutes(5),
        commands: commands(&["ssh {node} nvidia-smi -q -d POWER,PERFORMANCE -i {gpu}"]),
        ..rule(
            "gpu-power-brake",
            Severity::Warning,
            GPU,
            "GPU {gpu} of {node} is held back by its power supply",
            Condition::Bits(Bits {
                metric: "gpu.throttle".to_owned(),
                labels: Vec::new(),
                mask: HW_POWER_BRAKE_SLOWDOWN,
                meaning: "power brake asserted".to_owned(),
                over: Some(Span::minutes(2)),
            }),
        )
    }
}

fn ecc_uncorrected() -> Rule {
    Rule {
        description:
            "What was in that memory is lost: results of work that ran on it since may be wrong, if it didn't \
                      crash. One that repeats after a reset means a new GPU."
                .to_owned(),
        commands: commands(&[
            "clawbernetes node drain {node}",
            "ssh {node} nvidia-smi -q -d ECC,ROW_REMAPPER -i {gpu}",
        ]),
        ..rule(
            "gpu-ecc-uncorrected",
            Severity::Critical,
            GPU,
            "GPU {gpu} of {node} had {value} memory errors that couldn't be corrected in the last hour",
            over(
                "gpu.ecc.uncorrected",
                Take::Increase,
                Span::hours(1),
                Op::Above,
                Bound::Number(0.0),
                Unit::None,
            ),
        )
    }
}

fn row_remap_failed() -> Rule {
    Rule {
        description: "A worn-out memory row couldn't be replaced: there are no spare ones left. Replace the GPU."
            .to_owned(),
        commands: commands(&[
            "clawbernetes node drain {node}",
            "ssh {node} nvidia-smi -q -d ROW_REMAPPER -i {gpu}",
        ]),
        ..rule(
            "gpu-row-remap-failed",
            Severity::Critical,
            GPU,
            "GPU {gpu} of {node} has memory rows that can't be replaced",
            last("gpu.remap.failed", Op::Above, Bound::Number(0.0), Unit::None),
        )
    }
}

fn xid_critical() -> Rule {
    Rule {
        description: "The driver reported an error after which the GPU needs a reset, a reboot or a replacement. The \
                      first XID of a burst is the cause, the others follow from it."
            .to_owned(),
        commands: commands(&[
            "clawbernetes node events {node} --since '2h ago'",
            "clawbernetes node drain {node}",
        ]),
        ..rule(
            "gpu-xid-critical",
            Severity::Critical,
            GPU,
            "GPU {gpu} of {node} reported {value} fatal XID errors in the last hour",
            Condition::Events(Events {
                event: "Xid".to_owned(),
                labels: super::super::matcher::like("xid", &xids_fatal()),
                over: Span::hours(1),
                at_least: 1,
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fires, rule, run, state, value};
    use crate::alert::scene::{at, labels};
    use crate::alert::{Need, Phase, Reading};

    const GPU_3: &[(&str, &str)] = &[("node", "gpu-7"), ("gpu", "3"), ("uuid", "GPU-aa")];

    #[test]
    fn gpu_lost() {
        let fired = fires("gpu-lost", GPU_3, |_| vec![state("failed")]);
        assert_eq!(fired, Some((1, "GPU 3 of gpu-7 can't be used: failed".to_owned())));
        for word in ["ok", "degraded", "unknown"] {
            assert_eq!(fires("gpu-lost", GPU_3, |_| vec![state(word)]), None, "{word}");
        }
    }

    #[test]
    fn gpu_thermal_by_its_own_threshold() {
        let at = |celsius: f64| move |m| vec![value(celsius, m), value(93.0, m), value(4.0, m)];
        let (minute, summary) = fires("gpu-thermal", GPU_3, at(90.0)).unwrap();
        assert_eq!(minute, 3);
        assert!(summary.contains("90 °C, limit 90 °C"), "{summary}");
        // Too hot for one that slows down at 83 °C, not for this one.
        assert_eq!(fires("gpu-thermal", GPU_3, at(84.0)), None);
    }

    #[test]
    fn gpu_thermal_by_its_throttle_bits() {
        // No limit is known, and yet it throttles. Then it cools down, still without a limit.
        let bits = |m: u64| {
            vec![
                value(70.0, m),
                Reading::Missing,
                value(if m < 20 { 64.0 } else { 0.0 }, m),
            ]
        };
        let (alert, fired) = run("gpu-thermal", GPU_3, 60, bits).unwrap();
        assert_eq!(fired, Some(3));
        assert_eq!(alert.phase, Phase::Resolved);
        // Power cap (4) and idle (1) are no heat.
        assert_eq!(
            fires("gpu-thermal", GPU_3, |m| vec![
                value(70.0, m),
                value(93.0, m),
                value(5.0, m)
            ]),
            None
        );
    }

    #[test]
    fn gpu_power_brake() {
        let bits = |bits: f64| {
            move |m| {
                vec![Reading::Points {
                    points: vec![(at(m), 0.0), (at(m), bits)],
                }]
            }
        };
        assert_eq!(fires("gpu-power-brake", GPU_3, bits(128.0)).unwrap().0, 2);
        assert_eq!(fires("gpu-power-brake", GPU_3, bits(64.0)), None);
    }

    #[test]
    fn gpu_ecc_uncorrected() {
        let (minute, summary) = fires("gpu-ecc-uncorrected", GPU_3, |m| vec![value(2.0, m)]).unwrap();
        assert_eq!(minute, 0);
        assert!(summary.contains("had 2 memory errors"), "{summary}");
        assert_eq!(fires("gpu-ecc-uncorrected", GPU_3, |m| vec![value(0.0, m)]), None);
    }

    #[test]
    fn gpu_row_remap_failed() {
        assert_eq!(
            fires("gpu-row-remap-failed", GPU_3, |m| vec![value(1.0, m)]).unwrap().0,
            0
        );
        assert_eq!(fires("gpu-row-remap-failed", GPU_3, |m| vec![value(0.0, m)]), None);
    }

    #[test]
    fn gpu_xid_critical() {
        let Need::Events { labels: wanted, .. } = rule("gpu-xid-critical").needs().remove(0) else {
            panic!("it counts events");
        };
        let fatal = |xid: &str| wanted.iter().all(|matcher| matcher.matches(&labels(&[("xid", xid)])));
        assert!(fatal("79") && fatal("140"));
        // 31 is a program's own page fault.
        assert!(!fatal("31") && !fatal("7") && !fatal(""));
        assert_eq!(fires("gpu-xid-critical", GPU_3, |m| vec![value(1.0, m)]).unwrap().0, 0);
        assert_eq!(fires("gpu-xid-critical", GPU_3, |m| vec![value(0.0, m)]), None);
    }

    #[test]
    fn commands_name_the_gpu() {
        let (alert, _) = run("gpu-lost", GPU_3, 2, |_| vec![state("failed")]).unwrap();
        assert_eq!(alert.commands[0], "clawbernetes node info gpu-7");
        assert_eq!(alert.commands[3], "ssh gpu-7 nvidia-smi -q -i 3");
    }
}
