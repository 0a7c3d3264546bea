//! Scenarios: what goes wrong with simulated GPUs, and when.
//!
//! A scenario is a YAML (or JSON) file:
//!
//! ```yaml
//! steps:
//!   - {at: 30s, gpu: 3, event: thermal-throttle, celsius: 92}   # too hot, slowed down by the hardware
//!   - {at: 1m, gpu: 3, event: recovers}
//!   - {at: 2m, gpu: 0, event: xid, code: 94}                    # an XID error of NVIDIA's catalogue
//!   - {at: 3m, gpu: 1, event: ecc-errors, count: 2}             # uncorrectable memory errors
//!   - {at: 4m, gpu: 2, event: falls-off-bus}
//!   - {at: 5m, gpu: 4, event: hangs}                            # the driver doesn't answer for it
//!   - {at: 9m, event: recovers}                                 # without `gpu`: all of them
//! ```
//!
//! Times count from the agent's start. A step's effect lasts until the GPU recovers.

use std::str::FromStr;

use api::{GpuIndex, Span};
use serde::Deserialize;
use std::time::Duration;

use super::super::health::{Facts, known_xid};

/// The temperature of a throttled GPU unless the step says otherwise.
const HOT_CELSIUS: i16 = 93;

/// What happens to simulated GPUs, in order of time. The empty text is the scenario in which nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scenario {
    steps: Vec<Step>,
}

/// Why a scenario can't be played. Steps count from 1, as they stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// It isn't a scenario; with line and column.
    #[error("it can't be read: {0}")]
    Syntax(String),
    /// A step has a field that its event has no use for, or lacks one.
    #[error("step {step}: {why}")]
    Step {
        /// Which.
        step: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A step names a GPU that there isn't.
    #[error("step {step} names GPU {gpu}, but there are only {count} (0 to {})", count.saturating_sub(1))]
    NoSuchGpu {
        /// Which step.
        step: usize,
        /// Which GPU.
        gpu: GpuIndex,
        /// How many there are.
        count: usize,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    steps: Vec<Line>,
}

/// A step as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: Span,
    gpu: Option<GpuIndex>,
    event: Event,
    celsius: Option<i16>,
    code: Option<u64>,
    count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Event {
    ThermalThrottle,
    Xid,
    EccErrors,
    FallsOffBus,
    Hangs,
    Recovers,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Position in the file, from 1.
    number: usize,
    at: Span,
    /// `None`: all.
    gpu: Option<GpuIndex>,
    effect: Effect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    ThermalThrottle { celsius: i16 },
    Xid { code: u64 },
    EccErrors { count: u64 },
    FallsOffBus,
    Hangs,
    Recovers,
}

impl Line {
    fn effect(&self) -> Result<Effect, &'static str> {
        let only = |celsius: bool, code: bool, count: bool| match self {
            Self { celsius: Some(_), .. } if !celsius => Err("`celsius` belongs to thermal-throttle"),
            Self { code: Some(_), .. } if !code => Err("`code` belongs to xid"),
            Self { count: Some(_), .. } if !count => Err("`count` belongs to ecc-errors"),
            _ => Ok(()),
        };
        Ok(match self.event {
            Event::ThermalThrottle => {
                only(true, false, false)?;
                Effect::ThermalThrottle {
                    celsius: self.celsius.unwrap_or(HOT_CELSIUS),
                }
            }
            Event::Xid => {
                only(false, true, false)?;
                Effect::Xid {
                    code: self.code.ok_or("xid needs a `code`")?,
                }
            }
            Event::EccErrors => {
                only(false, false, true)?;
                Effect::EccErrors {
                    count: self.count.unwrap_or(1),
                }
            }
            Event::FallsOffBus => only(false, false, false).map(|()| Effect::FallsOffBus)?,
            Event::Hangs => only(false, false, false).map(|()| Effect::Hangs)?,
            Event::Recovers => only(false, false, false).map(|()| Effect::Recovers)?,
        })
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string()))?;
        let mut steps = Vec::new();
        for (line, number) in file.steps.iter().zip(1..) {
            steps.push(Step {
                number,
                at: line.at,
                gpu: line.gpu,
                effect: line.effect().map_err(|why| ScenarioError::Step { step: number, why })?,
            });
        }
        steps.sort_by_key(|step| step.at);
        Ok(Self { steps })
    }
}

impl Scenario {
    /// Checks that every GPU it names is among the first `count`.
    pub(super) fn check_gpus(&self, count: usize) -> Result<(), ScenarioError> {
        let wrong = self.steps.iter().find_map(|step| {
            let gpu = step.gpu.filter(|gpu| *gpu as usize >= count)?;
            Some(ScenarioError::NoSuchGpu {
                step: step.number,
                gpu,
                count,
            })
        });
        wrong.map_or(Ok(()), Err)
    }

    /// XID errors from a time on (that time left out) up to another, with their GPUs. `None`: all GPUs.
    pub(super) fn xids(&self, after: Option<Duration>, until: Duration) -> Vec<(Option<GpuIndex>, u64)> {
        let code = |effect| match effect {
            Effect::Xid { code } => Some(code),
            Effect::FallsOffBus => Some(79),
            Effect::ThermalThrottle { .. } | Effect::EccErrors { .. } | Effect::Hangs | Effect::Recovers => None,
        };
        self.steps
            .iter()
            .filter(|step| step.at.duration() <= until && after.is_none_or(|after| step.at.duration() > after))
            .filter_map(|step| Some((step.gpu, code(step.effect)?)))
            .collect()
    }

    /// What is wrong with a GPU at a time.
    pub(super) fn at(&self, now: Duration, gpu: GpuIndex) -> Trouble {
        self.steps
            .iter()
            .take_while(|step| step.at.duration() <= now)
            .filter(|step| step.gpu.is_none_or(|which| which == gpu))
            .fold(Trouble::default(), |trouble, step| trouble.after(step.effect))
    }
}

/// What is wrong with a simulated GPU. The default: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    /// Its temperature while it is throttled.
    pub hot: Option<i16>,
    pub lost: bool,
    pub silent: bool,
    xid: Option<u64>,
    ecc_errors: u64,
}

impl Trouble {
    fn after(mut self, effect: Effect) -> Self {
        match effect {
            Effect::ThermalThrottle { celsius } => self.hot = Some(celsius),
            Effect::Xid { code: 79 } | Effect::FallsOffBus => self.lost = true,
            Effect::Xid { code } if known_xid(code).bears_on_gpu() => self.xid = Some(code),
            Effect::Xid { .. } => {}
            Effect::EccErrors { count } => self.ecc_errors = self.ecc_errors.saturating_add(count),
            Effect::Hangs => self.silent = true,
            Effect::Recovers => self = Self::default(),
        }
        self
    }

    pub(super) fn facts(&self) -> Facts {
        Facts {
            lost: self.lost,
            silent: self.silent.then(|| "simulated".to_owned()),
            throttled_by_heat: self.hot.is_some(),
            xid: self.xid,
            ecc_uncorrected: self.ecc_errors,
            ..Facts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_read_and_json_too() {
        let header = include_str!("scenario.rs");
        let example: String = header
            .lines()
            .skip_while(|line| !line.contains("```yaml"))
            .skip(1)
            .take_while(|line| !line.contains("```"))
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_end()))
            .collect();
        let scenario: Scenario = example.parse().expect("the example");
        assert_eq!(scenario.steps.len(), 7);
        let json = r#"{"steps": [{"at": "1s", "event": "falls-off-bus"}]}"#;
        let scenario: Scenario = json.parse().expect("JSON");
        assert!(scenario.at(Duration::from_secs(1), 5).lost);
    }

    #[test]
    fn steps_count_by_time_not_by_place() {
        let text = "steps: [{at: 2s, event: recovers}, {at: 1s, gpu: 0, event: hangs}]";
        let scenario: Scenario = text.parse().expect("a scenario");
        assert!(scenario.at(Duration::from_millis(1999), 0).silent);
        assert_eq!(scenario.at(Duration::from_secs(2), 0), Trouble::default());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<Scenario>().expect_err(text).to_string();
        assert_eq!(error("steps: [{at: 1s, event: xid}]"), "step 1: xid needs a `code`");
        assert_eq!(
            error("steps: [{at: 1s, event: recovers}, {at: 1s, event: hangs, code: 3}]"),
            "step 2: `code` belongs to xid"
        );
        assert!(error("steps: [{at: 1s, event: explodes}]").contains("explodes"));
        assert!(error("steps: [{at: soon, event: hangs}]").contains("soon"));
        assert!(error("stepz: []").contains("stepz"));
    }
}
