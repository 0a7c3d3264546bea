//! What a workload is told about where it runs.

use std::net::{IpAddr, Ipv4Addr};

use api::{
    NodeName,
    secret::SecretTarget,
    wire::Assignment,
    workload::{Endpoint, EnvVar},
};

use crate::engine::published;

/// Port of rank 0 where a gang names none: the one that PyTorch takes by itself.
const MASTER_PORT: u16 = 29_500;

/// The whole environment of a job: what the workload itself sets, which wins, and the facts of this node, attempt
/// and rank: `CLAWBERNETES_NODE`, `CLAWBERNETES_WORKLOAD`, `CLAWBERNETES_ATTEMPT`, for a gang `MASTER_ADDR`,
/// `MASTER_PORT`, `WORLD_SIZE`, `RANK` and `LOCAL_RANK`, and for checkpoints `CLAWBERNETES_CHECKPOINT_DIR` and
/// `CLAWBERNETES_CHECKPOINT_INTERVAL_SECONDS` (rounded up). Where ports are declared, `PORT` is the first to listen on and
/// `PORT_<NAME>` that of a name; with ports that the node picked, `HOST` is the address to listen at: `bind`, or all of the
/// container's own.
#[must_use]
pub fn environment(job: &Assignment, node: &NodeName, bind: IpAddr) -> Vec<EnvVar> {
    let mut facts = vec![
        ("CLAWBERNETES_NODE", node.to_string()),
        ("CLAWBERNETES_WORKLOAD", job.job.workload.to_string()),
        ("CLAWBERNETES_ATTEMPT", job.job.attempt.to_string()),
    ];
    let endpoints = job.endpoints();
    let inside = published(job);
    let own = |endpoint: &Endpoint| if inside { endpoint.port } else { endpoint.host_port };
    facts.extend(endpoints.first().map(|first| ("PORT", own(first).to_string())));
    let named: Vec<(String, String)> = endpoints
        .iter()
        .filter(|endpoint| !endpoint.name.is_empty())
        .map(|endpoint| (variable(&endpoint.name), own(endpoint).to_string()))
        .collect();
    facts.extend(named.iter().map(|(name, port)| (name.as_str(), port.clone())));
    if job.dynamic_ports {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        facts.push(("HOST", if inside { all } else { bind }.to_string()));
    }
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
        let secret = |name: &str| {
            let of = |to: &SecretTarget| matches!(to, SecretTarget::Env(own) if own == name);
            job.secrets.iter().any(|secret| of(&secret.to))
        };
        if !all.iter().any(|own| own.name == name) && !secret(name) {
            all.push(EnvVar {
                name: name.to_owned(),
                value,
            });
        }
    }
    all
}

/// The variable that tells the port of a name: `PORT_GRPC_WEB` for `grpc-web`.
fn variable(name: &str) -> String {
    let fitting = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(fitting).collect();
    format!("PORT_{name}")
}

#[cfg(test)]
mod tests {
    use api::{
        Span,
        wire::Gang,
        workload::{Checkpointing, Distributed, Port},
    };

    use super::*;
    use crate::agent::tests::assignment;

    fn text(job: &Assignment) -> Vec<String> {
        let env = environment(job, &NodeName::new("gpu-7"), Ipv4Addr::LOCALHOST.into());
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
    fn a_job_is_told_which_ports_are_its_own() {
        let port = |name: &str, port| Port {
            name: name.to_owned(),
            port,
            protocol: "TCP".to_owned(),
        };
        let mut job = assignment("wl-a.1.0", &[]);
        job.ports = vec![port("http", 8000), port("", 9000), port("grpc-web", 9001)];
        assert_eq!(text(&job)[3..], ["PORT=8000", "PORT_HTTP=8000", "PORT_GRPC_WEB=9001"]);
        job.dynamic_ports = true;
        job.host_ports = vec![20_001, 20_002, 20_003];
        assert_eq!(
            text(&job)[3..],
            ["PORT=20001", "PORT_HTTP=20001", "PORT_GRPC_WEB=20003", "HOST=127.0.0.1"]
        );
        job.image = "vllm/vllm".to_owned();
        assert_eq!(
            text(&job)[3..],
            ["PORT=8000", "PORT_HTTP=8000", "PORT_GRPC_WEB=9001", "HOST=0.0.0.0"]
        );
        // What the workload says of itself wins, and so does a secret.
        job.env = vec![EnvVar {
            name: "PORT".to_owned(),
            value: "1".to_owned(),
        }];
        job.secrets = vec![api::secret::SecretUse {
            secret: "host".to_owned(),
            key: None,
            to: SecretTarget::Env("HOST".to_owned()),
        }];
        let all = text(&job);
        assert_eq!(all.iter().filter(|var| var.starts_with("PORT=")).count(), 1);
        assert!(all.contains(&"PORT=1".to_owned()) && !all.iter().any(|var| var.starts_with("HOST=")));
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
