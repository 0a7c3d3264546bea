//! What a workload is told about where it runs.

use api::{NodeName, wire::Assignment, workload::EnvVar};

/// Port of rank 0 where a gang names none: the one that PyTorch takes by itself.
const MASTER_PORT: u16 = 29_500;

/// The whole environment of a job: what the workload itself sets, which wins, and the facts of this node, attempt
/// and rank: `CLAWBERNETES_NODE`, `CLAWBERNETES_WORKLOAD`, `CLAWBERNETES_ATTEMPT`, for a gang `MASTER_ADDR`,
/// `MASTER_PORT`, `WORLD_SIZE`, `RANK` and `LOCAL_RANK`, and for checkpoints `CLAWBERNETES_CHECKPOINT_DIR` and
/// `CLAWBERNETES_CHECKPOINT_INTERVAL_SECONDS` (rounded up).
#[must_use]
pub fn environment(job: &Assignment, node: &NodeName) -> Vec<EnvVar> {
    let mut facts = vec![
        ("CLAWBERNETES_NODE", node.to_string()),
        ("CLAWBERNETES_WORKLOAD", job.job.workload.to_string()),
        ("CLAWBERNETES_ATTEMPT", job.job.attempt.to_string()),
    ];
    if let Some(gang) = &job.gang {
        let port = gang.distributed.as_ref().map_or(MASTER_PORT, |d| d.master_port);
        facts.extend([
            ("MASTER_ADDR", gang.master_address.clone()),
            ("MASTER_PORT", port.to_string()),
            ("WORLD_SIZE", gang.world_size.to_string()),
            ("RANK", job.job.rank.to_string()),
            ("LOCAL_RANK", "0".to_owned()),
        ]);
    }
    if let Some(checkpointing) = &job.checkpointing {
        facts.push(("CLAWBERNETES_CHECKPOINT_DIR", checkpointing.path.clone()));
        if let Some(interval) = checkpointing.interval {
            let seconds = interval.millis().div_ceil(1000);
            facts.push(("CLAWBERNETES_CHECKPOINT_INTERVAL_SECONDS", seconds.to_string()));
        }
    }
    let mut all = job.env.clone();
    for (name, value) in facts {
        if !job.env.iter().any(|own| own.name == name) {
            all.push(EnvVar {
                name: name.to_owned(),
                value,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use api::{
        Span,
        wire::Gang,
        workload::{Checkpointing, Distributed},
    };

    use super::*;
    use crate::agent::tests::assignment;

    fn text(job: &Assignment) -> Vec<String> {
        let env = environment(job, &NodeName::new("gpu-7"));
        env.into_iter().map(|v| format!("{}={}", v.name, v.value)).collect()
    }

    #[test]
    fn a_plain_job_knows_where_it_is() {
        assert_eq!(
            text(&assignment("wl-a.2.0", &[])),
            [
                "CLAWBERNETES_NODE=gpu-7",
                "CLAWBERNETES_WORKLOAD=wl-a",
                "CLAWBERNETES_ATTEMPT=2"
            ]
        );
    }

    #[test]
    fn a_gang_finds_itself_and_the_workloads_own_words_win() {
        let mut job = assignment("wl-a.1.3", &[]);
        job.env = vec![EnvVar {
            name: "MASTER_PORT".to_owned(),
            value: "7".to_owned(),
        }];
        job.gang = Some(Gang {
            world_size: 4,
            master_address: "10.0.0.1".to_owned(),
            distributed: Some(Distributed {
                world_size: None,
                master_port: 1234,
            }),
        });
        job.checkpointing = Some(Checkpointing {
            interval: Some(Span(1500)),
            path: "/ckpt".to_owned(),
        });
        assert_eq!(
            text(&job),
            [
                "MASTER_PORT=7",
                "CLAWBERNETES_NODE=gpu-7",
                "CLAWBERNETES_WORKLOAD=wl-a",
                "CLAWBERNETES_ATTEMPT=1",
                "MASTER_ADDR=10.0.0.1",
                "WORLD_SIZE=4",
                "RANK=3",
                "LOCAL_RANK=0",
                "CLAWBERNETES_CHECKPOINT_DIR=/ckpt",
                "CLAWBERNETES_CHECKPOINT_INTERVAL_SECONDS=2",
            ]
        );
    }
}
