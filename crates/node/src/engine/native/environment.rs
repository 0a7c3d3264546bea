//! The environment of a native job.

use std::path::Path;

use api::{wire::Assignment, workload::HeldGpu};

/// What a job inherits of the agent's own environment.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "USER", "TZ", "TMPDIR"];

/// Where commands are looked for if the agent itself has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The whole environment: some of the agent's own (`own` looks it up), what the engine promises, and the
/// assignment's, which wins except over what keeps jobs off each other's GPUs.
pub(super) fn of(job: &Assignment, workdir: &Path, own: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: String| match env.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    };
    for name in INHERITED {
        if let Some(value) = own(name) {
            set(name, value);
        } else if name == "PATH" {
            set(name, PATH.to_owned());
        }
    }
    for variable in &job.env {
        set(&variable.name, variable.value.clone());
    }
    set("CLAWBERNETES_WORKDIR", workdir.display().to_string());
    set("CLAWBERNETES_JOB", job.job.to_string());
    for (name, value) in visible(&job.gpus) {
        set(name, value);
    }
    env
}

/// Whether a variable is the engine's own, which nothing of the assignment replaces.
pub(super) fn is_own(name: &str) -> bool {
    matches!(name, "CLAWBERNETES_WORKDIR" | "CLAWBERNETES_JOB") || visible(&[]).iter().any(|(own, _)| *own == name)
}

/// Which GPUs a job may see. All of the variables are set: an empty one hides what a missing one would show.
fn visible(gpus: &[HeldGpu]) -> [(&'static str, String); 4] {
    let nvidia = |gpu: &HeldGpu| gpu.uuid.starts_with("GPU-") || gpu.uuid.starts_with("MIG-");
    let join = |names: Vec<String>| names.join(",");
    let uuids = gpus
        .iter()
        .filter(|gpu| nvidia(gpu))
        .map(|gpu| gpu.uuid.clone())
        .collect::<Vec<_>>();
    let indexes = || join(gpus.iter().map(|gpu| gpu.index.to_string()).collect());
    let all_nvidia = !gpus.is_empty() && uuids.len() == gpus.len();
    let cuda = if all_nvidia { join(uuids) } else { indexes() };
    let hip = if all_nvidia { String::new() } else { indexes() };
    [
        (
            "NVIDIA_VISIBLE_DEVICES",
            if gpus.is_empty() {
                "void".to_owned()
            } else {
                cuda.clone()
            },
        ),
        ("CUDA_VISIBLE_DEVICES", cuda),
        ("HIP_VISIBLE_DEVICES", hip.clone()),
        ("ROCR_VISIBLE_DEVICES", hip),
    ]
}
