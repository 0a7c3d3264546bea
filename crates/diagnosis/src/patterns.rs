//! What lines of a workload's output say about what went wrong.
//!
//! A table of words, first match wins: the narrow ones stand before the broad ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Remedy, Severity};

/// Bytes of a line that are looked at.
const LINE_MAX: usize = 4096;
/// Characters of a sample line that are kept.
const SAMPLE_MAX: usize = 240;

/// Something that output tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pattern {
    /// Stable name, also the finding's id.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// Words that have to be there, in lower case: all of one of these sets.
    pub any: &'static [&'static [&'static str]],
    /// Words that tell that it is only talked about.
    pub unless: &'static [&'static str],
    /// Whether the run ends with it, as a rule.
    pub fatal: bool,
    /// How bad it is while the run goes on.
    pub severity: Severity,
    /// What helps.
    pub remedy: Remedy,
    /// What helps, in words.
    pub advice: &'static str,
}

/// How often a pattern was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFact {
    /// Its id.
    pub pattern: String,
    /// Lines.
    pub count: u64,
    /// The first of them.
    pub first_ms: i64,
    /// The last of them.
    pub last_ms: i64,
    /// The last line.
    pub sample: String,
}

use Remedy::{
    CheckCabling, FixProgram, FreeDisk, LessGpuMemory, Migrate, MoreMemory, TuneCommunication, TuneData, UpdateDriver,
};
use Severity::{Critical, Info, Warning};

/// All that is known, in the order in which it is looked for.
pub const TABLE: &[Pattern] = &[
    Pattern {
        id: "gpu-gone",
        title: "the GPU was lost under the program",
        any: &[
            &["gpu is lost"],
            &["fallen off the bus"],
            &["unable to determine the device handle"],
        ],
        unless: &[],
        fatal: true,
        severity: Critical,
        remedy: Migrate,
        advice: "Start it on another node; this one's GPU needs a reboot.",
    },
    Pattern {
        id: "cuda-ecc",
        title: "GPU memory lost data under the program",
        any: &[
            &["uncorrectable ecc error"],
            &["cudaerroreccuncorrectable"],
            &["cuda_error_ecc_uncorrectable"],
        ],
        unless: &[],
        fatal: true,
        severity: Critical,
        remedy: Migrate,
        advice: "Start it on another node from its last checkpoint; this GPU needs a reset.",
    },
    Pattern {
        id: "driver-mismatch",
        title: "the image's CUDA doesn't fit the node's driver or GPU",
        any: &[
            &["cuda driver version is insufficient"],
            &["no kernel image is available for execution"],
            &["forward compatibility was attempted on non supported"],
            &["the nvidia driver on your system is too old"],
            &["cuda_error_unsupported_ptx_version"],
        ],
        unless: &[],
        fatal: true,
        severity: Critical,
        remedy: UpdateDriver,
        advice: "Use an image built for this driver and GPU, or a node with a newer driver.",
    },
    Pattern {
        id: "no-gpu-seen",
        title: "the program sees no GPU",
        any: &[
            &["no cuda-capable device is detected"],
            &["found no nvidia driver"],
            &["torch not compiled with cuda enabled"],
            &["cuda_error_no_device"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Ask for GPUs, and use an image with CUDA.",
    },
    Pattern {
        id: "cuda-oom",
        title: "GPU memory ran out",
        any: &[
            &["cuda out of memory"],
            &["outofmemoryerror", "cuda"],
            &["cuda_error_out_of_memory"],
            &["cudaerrormemoryallocation"],
            &["cuda error: out of memory"],
            &["hip out of memory"],
            &["resource_exhausted", "out of memory"],
            &["failed to allocate", "gpu memory"],
        ],
        unless: &["retrying with a smaller batch"],
        fatal: true,
        severity: Warning,
        remedy: LessGpuMemory,
        advice: "Smaller batch, activation checkpointing, sharding, or GPUs with more memory.",
    },
    Pattern {
        id: "nccl-timeout",
        title: "a collective timed out",
        any: &[
            &["watchdog caught collective operation timeout"],
            &["nccl", "timed out"],
            &["nccl", "collective", "timeout", "ran for"],
            &["some nccl operations have failed or timed out"],
            &["rendezvous", "timed out"],
            &["store", "wait timeout after"],
        ],
        unless: &["timeout set", "set to"],
        fatal: true,
        severity: Warning,
        remedy: TuneCommunication,
        advice: "One member hangs, died or is far behind: look at each one's last lines, then at links and network.",
    },
    Pattern {
        id: "nccl-error",
        title: "a collective failed",
        any: &[
            &["nccl error"],
            &["ncclsystemerror"],
            &["ncclunhandledcudaerror"],
            &["ncclinternalerror"],
            &["ncclremoteerror"],
            &["nccl warn", "failed"],
            &["nccl", "connection closed by remote peer"],
        ],
        unless: &["errors: 0", "no nccl error"],
        fatal: true,
        severity: Warning,
        remedy: CheckCabling,
        advice: "Look at links and network between the members; with NCCL_DEBUG=INFO it tells more.",
    },
    Pattern {
        id: "shm-full",
        title: "shared memory ran out",
        any: &[
            &["insufficient shared memory"],
            &["dataloader worker", "bus error"],
            &["/dev/shm", "no space left"],
            &["unable to open shared memory object"],
            &["unable to allocate shared memory"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: TuneData,
        advice: "Mount a larger /dev/shm (a volume of type emptyDir, medium Memory), or use fewer loader workers.",
    },
    Pattern {
        id: "loader-killed",
        title: "a data loader's worker was killed",
        any: &[
            &["dataloader worker", "killed by signal"],
            &["dataloader worker", "exited unexpectedly"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: MoreMemory,
        advice: "Mostly for want of memory: use fewer workers, or raise the memory limit.",
    },
    Pattern {
        id: "loader-stall",
        title: "the data loader can't keep up",
        any: &[
            &["dataloader timed out"],
            &["data loader", "stall"],
            &["dataloader", "stall"],
            &["waiting for", "dataloader"],
            &["waiting for", "data loader"],
            &["waiting for next batch"],
            &["input pipeline", "bottleneck"],
            &["input pipeline", "slow"],
            &["data loading", "bottleneck"],
        ],
        unless: &["may be slow", "might be slow", "might get slow", "stalls: 0"],
        fatal: false,
        severity: Warning,
        remedy: TuneData,
        advice: "More loader workers and CPUs, prefetching, a faster disk or a cached data set.",
    },
    Pattern {
        id: "cuda-error",
        title: "the GPU refused work",
        any: &[
            &["cuda error"],
            &["cudaerror"],
            &["cuda_error_"],
            &["device-side assert triggered"],
            &["an illegal memory access was encountered"],
            &["cublas_status_", "failed"],
            &["cublas_status_", "error"],
            &["cudnn_status_", "failed"],
            &["cudnn_status_", "error"],
            &["unspecified launch failure"],
            &["hip error"],
        ],
        unless: &[
            "cuda errors: 0",
            "no cuda error",
            "0 cuda errors",
            "cuda error checking",
            "cudaerror_t",
        ],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Mostly the program's own: run it with CUDA_LAUNCH_BLOCKING=1. If it fails on one node only, that \
                 node's GPU is suspect.",
    },
    Pattern {
        id: "disk-full",
        title: "no room on the disk",
        any: &[&["no space left on device"], &["enospc"], &["disk quota exceeded"]],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FreeDisk,
        advice: "Write elsewhere, keep fewer checkpoints, or make room on the node.",
    },
    Pattern {
        id: "disk-io",
        title: "a file could not be read or written",
        any: &[
            &["input/output error"],
            &["stale file handle"],
            &["read-only file system"],
            &["transport endpoint is not connected"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: Migrate,
        advice: "The disk or the share of this node fails: start it elsewhere.",
    },
    Pattern {
        id: "host-oom",
        title: "the program could get no more memory",
        any: &[
            &["memoryerror"],
            &["std::bad_alloc"],
            &["cannot allocate memory"],
            &["out of memory: killed process"],
            &["oom-kill"],
            &["java.lang.outofmemoryerror"],
            &["defaultcpuallocator: not enough memory"],
            &["defaultcpuallocator: can't allocate memory"],
        ],
        unless: &["oom-kill disabled"],
        fatal: true,
        severity: Warning,
        remedy: MoreMemory,
        advice: "Raise the memory limit, or load less at once.",
    },
    Pattern {
        id: "loss-nan",
        title: "the loss is no number",
        any: &[
            &["loss: nan"],
            &["loss=nan"],
            &["loss is nan"],
            &["nan loss"],
            &["loss nan"],
            &["non-finite loss"],
            &["loss: inf"],
            &["loss is not finite"],
        ],
        unless: &["skip nan loss", "check for nan", "nan loss check"],
        fatal: false,
        severity: Warning,
        remedy: FixProgram,
        advice: "It learns nothing any more: go back to a checkpoint, lower the learning rate, look at the data.",
    },
    Pattern {
        id: "segfault",
        title: "the program crashed",
        any: &[
            &["segmentation fault"],
            &["sigsegv"],
            &["core dumped"],
            &["fatal python error"],
            &["sigabrt"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Look at the lines before it; native libraries that don't fit are the usual cause.",
    },
    Pattern {
        id: "module-missing",
        title: "a module is missing from the image",
        any: &[
            &["modulenotfounderror"],
            &["no module named"],
            &["importerror"],
            &["cannot open shared object file"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Add it to the image.",
    },
    Pattern {
        id: "file-missing",
        title: "a file is missing",
        any: &[&["filenotfounderror"], &["no such file or directory"]],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Check paths, and that the volume is mounted.",
    },
    Pattern {
        id: "permission-denied",
        title: "something may not be read or written",
        any: &[
            &["permissionerror"],
            &["permission denied"],
            &["operation not permitted"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Check the volume's owner and mode, and whether it is mounted read-only.",
    },
    Pattern {
        id: "auth-failed",
        title: "another service refused the credentials",
        any: &[
            &["401", "unauthorized"],
            &["403", "forbidden"],
            &["invalid api key"],
            &["access denied", "s3"],
        ],
        unless: &[],
        fatal: true,
        severity: Warning,
        remedy: FixProgram,
        advice: "Check the secret that it uses, and whether that has expired.",
    },
    Pattern {
        id: "network-unreachable",
        title: "another service can't be reached",
        any: &[
            &["connection refused"],
            &["connection reset by peer"],
            &["name or service not known"],
            &["temporary failure in name resolution"],
            &["network is unreachable"],
            &["no route to host"],
            &["connection timed out"],
        ],
        unless: &[],
        fatal: false,
        severity: Info,
        remedy: FixProgram,
        advice: "Check the address, DNS and firewall; retry in the program.",
    },
    Pattern {
        id: "traceback",
        title: "the program raised an error",
        any: &[
            &["traceback (most recent call last)"],
            &["panicked at"],
            &["unhandled exception"],
            &["terminate called after throwing"],
        ],
        unless: &[],
        fatal: true,
        severity: Info,
        remedy: FixProgram,
        advice: "Read the lines around it.",
    },
];

/// A pattern by its id.
#[must_use]
pub fn by_id(id: &str) -> Option<&'static Pattern> {
    TABLE.iter().find(|p| p.id == id)
}

/// What a line says, by the first pattern that fits.
#[must_use]
pub fn classify(line: &str) -> Option<&'static Pattern> {
    let mut end = line.len().min(LINE_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let line = line[..end].to_ascii_lowercase();
    let has = |words: &&[&str]| words.iter().all(|w| line.contains(w));
    TABLE
        .iter()
        .find(|p| p.any.iter().any(has) && !p.unless.iter().any(|w| line.contains(w)))
}

/// Counts what lines say.
#[derive(Clone, Debug, Default)]
pub struct Scanner(BTreeMap<&'static str, LogFact>);

impl Scanner {
    /// Looks at a line; lines may come in any order.
    pub fn push(&mut self, at_ms: i64, line: &str) {
        let Some(pattern) = classify(line) else { return };
        let sample: String = line.trim().chars().take(SAMPLE_MAX).collect();
        let fact = self.0.entry(pattern.id).or_insert_with(|| LogFact {
            pattern: pattern.id.to_owned(),
            count: 0,
            first_ms: at_ms,
            last_ms: at_ms,
            sample: sample.clone(),
        });
        fact.count += 1;
        fact.first_ms = fact.first_ms.min(at_ms);
        if at_ms >= fact.last_ms {
            fact.last_ms = at_ms;
            fact.sample = sample;
        }
    }

    /// What was counted, by id.
    #[must_use]
    pub fn facts(self) -> Vec<LogFact> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as programs print them, and what each says.
    const LINES: &[(&str, Option<&str>)] = &[
        (
            "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.15 GiB total)",
            Some("cuda-oom"),
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.",
            Some("cuda-oom"),
        ),
        ("RuntimeError: CUDA error: out of memory", Some("cuda-oom")),
        (
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
            Some("cuda-oom"),
        ),
        (
            "[rank3]:[E ProcessGroupNCCL.cpp:607] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE) ran for 600029 milliseconds before timing out.",
            Some("nccl-timeout"),
        ),
        ("Some NCCL operations have failed or timed out.", Some("nccl-timeout")),
        ("NCCL timeout set to 1800 s", None),
        ("NCCL version 2.19.3+cuda12.3", None),
        (
            "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1331, unhandled system error",
            Some("nccl-error"),
        ),
        (
            "RuntimeError: DataLoader worker (pid 12345) is killed by signal: Bus error. It is possible that dataloader's workers are out of shared memory.",
            Some("shm-full"),
        ),
        (
            "RuntimeError: DataLoader worker (pid(s) 77) exited unexpectedly",
            Some("loader-killed"),
        ),
        (
            "RuntimeError: DataLoader worker (pid 3) is killed by signal: Killed.",
            Some("loader-killed"),
        ),
        (
            "UserWarning: This DataLoader will create 16 worker processes in total. Our suggested max number of worker is 8, DataLoader running might get slow or even freeze",
            None,
        ),
        ("WARNING data loader stalled for 4.2 s", Some("loader-stall")),
        (
            "RuntimeError: DataLoader timed out after 60 seconds",
            Some("loader-stall"),
        ),
        (
            "RuntimeError: CUDA error: device-side assert triggered",
            Some("cuda-error"),
        ),
        (
            "RuntimeError: CUDA error: an illegal memory access was encountered",
            Some("cuda-error"),
        ),
        (
            "RuntimeError: CUDA error: uncorrectable ECC error encountered",
            Some("cuda-ecc"),
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            Some("driver-mismatch"),
        ),
        ("CUDA error checking enabled", None),
        (
            "RuntimeError: cuBLAS error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm",
            Some("cuda-error"),
        ),
        (
            "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost.",
            Some("gpu-gone"),
        ),
        ("OSError: [Errno 28] No space left on device", Some("disk-full")),
        ("OSError: [Errno 5] Input/output error", Some("disk-io")),
        ("MemoryError", Some("host-oom")),
        ("step 300 loss: nan lr 1e-4", Some("loss-nan")),
        ("step 300 loss: 2.31 lr 1e-4", None),
        ("Segmentation fault (core dumped)", Some("segfault")),
        (
            "ModuleNotFoundError: No module named 'flash_attn'",
            Some("module-missing"),
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/data/train'",
            Some("file-missing"),
        ),
        (
            "huggingface_hub.errors.HfHubHTTPError: 401 Client Error: Unauthorized for url",
            Some("auth-failed"),
        ),
        (
            "requests.exceptions.ConnectionError: [Errno 111] Connection refused",
            Some("network-unreachable"),
        ),
        ("Traceback (most recent call last):", Some("traceback")),
        ("thread 'main' panicked at src/main.rs:3:5:", Some("traceback")),
        ("epoch 3: 1200 images/s", None),
        ("", None),
    ];

    #[test]
    fn lines_are_told_apart() {
        for (line, id) in LINES {
            assert_eq!(classify(line).map(|p| p.id), *id, "{line}");
        }
    }

    #[test]
    fn every_pattern_has_a_line_and_can_be_reached() {
        for p in TABLE {
            assert!(
                p.any
                    .iter()
                    .flat_map(|w| w.iter())
                    .all(|w| *w == w.to_ascii_lowercase()),
                "{}",
                p.id
            );
            let reached = p
                .any
                .iter()
                .any(|words| classify(&words.join(" ")).is_some_and(|c| c.id == p.id));
            assert!(reached, "{} is hidden by an earlier one", p.id);
        }
    }

    #[test]
    fn lines_are_counted_in_any_order() {
        let mut scanner = Scanner::default();
        for (at, line) in [
            (5, "CUDA out of memory: b"),
            (9, "CUDA out of memory: c"),
            (1, "CUDA out of memory: a"),
            (3, "fine"),
        ] {
            scanner.push(at, line);
        }
        let facts = scanner.facts();
        assert_eq!(facts.len(), 1);
        assert_eq!((facts[0].count, facts[0].first_ms, facts[0].last_ms), (3, 1, 9));
        assert_eq!(facts[0].sample, "CUDA out of memory: c");
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = "ä".repeat(3000) + "CUDA out of memory";
        assert_eq!(classify(&line), None);
    }
}
