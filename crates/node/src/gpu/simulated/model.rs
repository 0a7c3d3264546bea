//! Models that the simulation knows, and how GPUs are written on the command line: `8xH100`, `2xH100,2xL4`.

use std::str::FromStr;

use api::Size;

/// Most GPUs that one node simulates; the same as the span of a driver's indexes.
const MOST: usize = super::super::probe::INDEX_SPAN as usize;

/// How a model's GPUs are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// NVLink between all of them.
    NvLink { lanes: u32 },
    /// Infinity Fabric between all of them.
    Xgmi,
    /// PCIe cards: pairs behind switches.
    Pcie,
}

impl Form {
    pub(super) fn is_direct(self) -> bool {
        self != Self::Pcie
    }
}

/// A model of GPU. What isn't known of it is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    /// As its driver calls it.
    pub name: String,
    pub memory: Option<Size>,
    pub power_watts: Option<u32>,
    pub form: Form,
    /// Whether the simulation knows this model.
    pub known: bool,
}

/// Short names, the driver's name, memory in MiB as the driver reports it, power limit in watts, form.
type Row = (&'static [&'static str], &'static str, u64, u32, Form);

const NV18: Form = Form::NvLink { lanes: 18 };
const NV12: Form = Form::NvLink { lanes: 12 };
const NV6: Form = Form::NvLink { lanes: 6 };

const KNOWN: &[Row] = &[
    (&["GB200"], "NVIDIA GB200", 189_471, 1200, NV18),
    (&["B200"], "NVIDIA B200", 183_359, 1000, NV18),
    (&["H200", "H200-SXM"], "NVIDIA H200", 143_771, 700, NV18),
    (
        &["H100", "H100-80GB", "H100-SXM", "H100-SXM5"],
        "NVIDIA H100 80GB HBM3",
        81_559,
        700,
        NV18,
    ),
    (&["H100-PCIe"], "NVIDIA H100 PCIe", 81_559, 350, Form::Pcie),
    (&["H100-NVL"], "NVIDIA H100 NVL", 95_830, 400, Form::Pcie),
    (
        &["A100", "A100-80GB", "A100-SXM4-80GB"],
        "NVIDIA A100-SXM4-80GB",
        81_920,
        400,
        NV12,
    ),
    (
        &["A100-40GB", "A100-SXM4-40GB"],
        "NVIDIA A100-SXM4-40GB",
        40_960,
        400,
        NV12,
    ),
    (
        &["A100-PCIe", "A100-PCIe-80GB"],
        "NVIDIA A100 80GB PCIe",
        81_920,
        300,
        Form::Pcie,
    ),
    (&["A100-PCIe-40GB"], "NVIDIA A100-PCIE-40GB", 40_960, 250, Form::Pcie),
    (&["V100", "V100-16GB"], "Tesla V100-SXM2-16GB", 16_384, 300, NV6),
    (&["V100-32GB"], "Tesla V100-SXM2-32GB", 32_768, 300, NV6),
    (&["L40S"], "NVIDIA L40S", 46_068, 350, Form::Pcie),
    (&["L40"], "NVIDIA L40", 46_068, 300, Form::Pcie),
    (&["L4"], "NVIDIA L4", 23_034, 72, Form::Pcie),
    (&["A40"], "NVIDIA A40", 46_068, 300, Form::Pcie),
    (&["A30"], "NVIDIA A30", 24_576, 165, Form::Pcie),
    (&["A10"], "NVIDIA A10", 23_028, 150, Form::Pcie),
    (&["A10G"], "NVIDIA A10G", 23_028, 300, Form::Pcie),
    (&["T4"], "Tesla T4", 15_360, 70, Form::Pcie),
    (&["A6000", "RTX-A6000"], "NVIDIA RTX A6000", 49_140, 300, Form::Pcie),
    (
        &["6000-Ada", "RTX-6000-Ada"],
        "NVIDIA RTX 6000 Ada Generation",
        49_140,
        300,
        Form::Pcie,
    ),
    (
        &["5090", "RTX-5090"],
        "NVIDIA GeForce RTX 5090",
        32_607,
        575,
        Form::Pcie,
    ),
    (
        &["4090", "RTX-4090"],
        "NVIDIA GeForce RTX 4090",
        24_564,
        450,
        Form::Pcie,
    ),
    (
        &["3090", "RTX-3090"],
        "NVIDIA GeForce RTX 3090",
        24_576,
        350,
        Form::Pcie,
    ),
    (&["MI300X"], "AMD Instinct MI300X", 196_592, 750, Form::Xgmi),
    (&["MI250X"], "AMD Instinct MI250X", 65_520, 560, Form::Xgmi),
    (&["MI210"], "AMD Instinct MI210", 65_520, 300, Form::Pcie),
];

/// Letters and digits in lower case: `A100 40GB`, `a100-40gb` and `A100_40GB` are the same.
fn folded(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

impl Model {
    /// The model of that name; one that isn't known is kept as it is written, with nothing known about it.
    fn named(name: &str) -> Self {
        let wanted = folded(name);
        let row = KNOWN
            .iter()
            .find(|(short, full, ..)| folded(full) == wanted || short.iter().any(|short| folded(short) == wanted));
        match row {
            Some((_, full, mib, watts, form)) => Self {
                name: (*full).to_owned(),
                memory: Some(Size::mib(*mib)),
                power_watts: Some(*watts),
                form: *form,
                known: true,
            },
            None => Self {
                name: name.to_owned(),
                memory: None,
                power_watts: None,
                form: Form::Pcie,
                known: false,
            },
        }
    }
}

/// The GPUs to simulate on a node, in the order of their indexes: `8xH100`, `4xA100-40GB`, `2xH100,2xL4`.
///
/// A model that isn't known is accepted as it is written; its memory is unknown unless given: `2xNova@48Gi`. (What
/// asks for memory isn't placed on a GPU whose memory is unknown.) Memory given for a known model replaces its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedGpus(Vec<(usize, Model)>);

/// Text that isn't a list of GPUs to simulate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a list of GPUs to simulate: {why} (accepted: 8xH100, 4xA100-40GB, 2xH100,2xL4, 2xMyGpu@48Gi)")]
pub struct SpecError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl SimulatedGpus {
    /// Number of GPUs, 1 to 64.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(|(count, _)| count).sum()
    }

    pub(super) fn models(&self) -> Vec<Model> {
        self.0
            .iter()
            .flat_map(|(count, model)| std::iter::repeat_n(model.clone(), *count))
            .collect()
    }
}

fn group(text: &str) -> Result<(usize, Model), String> {
    let (count, name) = match text.split_once(['x', 'X']) {
        Some((count, name)) if !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()) => {
            (count.parse().map_err(|_| format!("{count} GPUs are too many"))?, name)
        }
        _ => (1, text),
    };
    let (name, memory) = match name.split_once('@') {
        Some((name, size)) => (name, Some(size.parse::<Size>().map_err(|error| error.to_string())?)),
        None => (name, None),
    };
    let name = name.trim();
    if count == 0 {
        return Err("a count is at least 1".to_owned());
    }
    if folded(name).is_empty() {
        return Err("a model's name is missing".to_owned());
    }
    let mut model = Model::named(name);
    model.memory = memory.or(model.memory);
    Ok((count, model))
}

impl FromStr for SimulatedGpus {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let refuse = |why: String| SpecError {
            text: text.to_owned(),
            why,
        };
        let groups: Vec<_> = text
            .split(',')
            .map(|part| group(part.trim()))
            .collect::<Result<_, _>>()
            .map_err(refuse)?;
        let total = groups
            .iter()
            .fold(0usize, |total, (count, _)| total.saturating_add(*count));
        if total > MOST {
            return Err(refuse(format!("a node has at most {MOST} GPUs, these are {total}")));
        }
        Ok(Self(groups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<(usize, String, Option<Size>)> {
        let gpus: SimulatedGpus = text.parse().expect("GPUs");
        gpus.0
            .into_iter()
            .map(|(count, model)| (count, model.name, model.memory))
            .collect()
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(
            parse("8xH100"),
            [(8, "NVIDIA H100 80GB HBM3".into(), Some(Size::mib(81_559)))]
        );
        assert_eq!(
            parse("4xA100-40GB"),
            [(4, "NVIDIA A100-SXM4-40GB".into(), Some(Size::mib(40_960)))]
        );
        assert_eq!(parse("2xh100, l4").iter().map(|g| g.0).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(parse("2XNVIDIA A100-SXM4-80GB")[0].1, "NVIDIA A100-SXM4-80GB");
        assert_eq!(parse("1xL4@20Gi")[0].2, Some(Size::gib(20)));
        assert_eq!(
            parse("Xeon")[0].1,
            "Xeon",
            "an x is part of a name unless a count stands before it"
        );
    }

    #[test]
    fn anything_else_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "a model's name is missing"),
            ("8x", "a model's name is missing"),
            ("0xH100", "a count is at least 1"),
            ("65xH100", "a node has at most 64 GPUs, these are 65"),
            ("33xH100,32xL4", "a node has at most 64 GPUs, these are 65"),
            ("99999999999999999999xL4", "99999999999999999999 GPUs are too many"),
        ] {
            let error = text.parse::<SimulatedGpus>().expect_err(text);
            assert_eq!(error.why, why, "{text}");
        }
        assert!("2xL4@much".parse::<SimulatedGpus>().is_err());
    }

    #[test]
    fn every_short_name_means_one_model() {
        let mut names: Vec<String> = KNOWN
            .iter()
            .flat_map(|(short, full, ..)| {
                let mut all: Vec<String> = short.iter().map(|name| folded(name)).collect();
                let full = folded(full);
                if !all.contains(&full) {
                    all.push(full);
                }
                all
            })
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_means_one_to_64_gpus(text in "[0-9xX@,A-Za-z. -]{0,24}") {
            if let Ok(gpus) = text.parse::<SimulatedGpus>() {
                proptest::prop_assert!((1..=MOST).contains(&gpus.count()));
                proptest::prop_assert_eq!(gpus.models().len(), gpus.count());
            }
        }
    }
}
