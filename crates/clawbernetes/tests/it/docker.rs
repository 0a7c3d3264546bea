//! Containers through the whole product, on a real Docker daemon.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use testkit::docker::{self, BLOB_BYTES, Fixture, IMAGE};

use crate::{
    cluster::{Cluster, wait_for},
    jobs::Scripts,
};

/// A fleet of one node that runs containers.
pub struct DockerFleet {
    pub cluster: Cluster,
    pub containers: Containers,
}

/// A node's containers on the tests' own daemon: gone when this is. The node's agent must be gone before: it would see to what
/// it runs.
pub struct Containers {
    pub fixture: &'static Fixture,
    label: String,
}

impl DockerFleet {
    /// `None`: Docker isn't here.
    pub fn start(name: &str) -> Option<Self> {
        let fixture = docker::shared()?;
        let mut cluster = Cluster::start();
        let socket = fixture.socket().display().to_string();
        cluster.join(name, &["--engine", "docker", "--docker-socket", &socket]);
        let label = format!("io.clawbernetes.node={name}");
        Some(Self {
            cluster,
            containers: Containers { fixture, label },
        })
    }

    /// Containers of a workload.
    pub fn containers(&self, id: &str) -> Vec<String> {
        let label = format!("io.clawbernetes.workload={id}");
        self.containers.fixture.containers(&label)
    }

    pub fn end(self) {
        let Containers { fixture, label } = &self.containers;
        wait_for("the last containers to be removed", || {
            fixture.containers(label).is_empty().then_some(())
        });
        self.cluster.end();
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.fixture.remove_containers(&self.label);
    }
}

#[test]
fn containers_run_and_end() {
    let Some(fleet) = DockerFleet::start("docker-run") else {
        return;
    };
    let scripts = Scripts {
        cluster: &fleet.cluster,
        image: IMAGE,
    };
    scripts.follow();
    scripts.out_of_memory();
    scripts.timeout();
    scripts.cancel();
    fleet.end();
}

#[test]
fn containers_are_adopted_after_a_kill() {
    let Some(fleet) = DockerFleet::start("docker-adopt") else {
        return;
    };
    let scripts = Scripts {
        cluster: &fleet.cluster,
        image: IMAGE,
    };
    scripts.adopt(|id| fleet.containers(id));
    fleet.end();
}

#[test]
fn images_that_nobody_has_are_told() {
    let Some(fleet) = DockerFleet::start("docker-absent") else {
        return;
    };
    let registry = &fleet.containers.fixture.registry;
    for image in [
        format!("{registry}/no-such-image:1"),
        format!("{registry}/clawtest-big:no-such-tag"),
    ] {
        let words = [
            "run",
            "--image",
            &image,
            "--gpus",
            "0",
            "--timeout",
            "5m",
            "--name",
            "absent",
            "--wait",
        ];
        let done = fleet.cluster.home.words(&words);
        done.failed(125, "IMAGE_NOT_FOUND");
        let detail = fleet.cluster.status("absent");
        assert_eq!(detail["reason"], "IMAGE_NOT_FOUND", "{detail:#}");
        assert_eq!(detail["phase"], "failed", "{detail:#}");
        assert!(detail["message"].as_str().unwrap().contains(&image), "{detail:#}");
    }
    fleet.end();
}

/// Stands before a registry, and hands its bytes on slowly until it is told to hurry.
struct SlowRegistry {
    address: SocketAddr,
    hurry: Arc<AtomicBool>,
}

impl SlowRegistry {
    fn before(registry: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hurry = Arc::new(AtomicBool::new(false));
        let (registry, hurried) = (registry.to_owned(), Arc::clone(&hurry));
        // Ends with the process: a test's listener can't be woken otherwise.
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&registry) else {
                    continue;
                };
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || copy(up.0, up.1, None));
                let hurry = Arc::clone(&hurried);
                std::thread::spawn(move || copy(server, client, Some(&hurry)));
            }
        });
        Self { address, hurry }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, hurry: Option<&AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        // About 3 MB/s: the pull lasts until its progress has been seen.
        if hurry.is_some_and(|hurry| !hurry.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_pull_shows_how_far_it_is() {
    let Some(fleet) = DockerFleet::start("docker-pull") else {
        return;
    };
    let slow = SlowRegistry::before(&fleet.containers.fixture.registry);
    let image = format!("{}/clawtest-big:1", slow.address);
    let words = [
        "--image",
        &image,
        "--gpus",
        "0",
        "--timeout",
        "5m",
        "--",
        "sh",
        "-c",
        "echo here",
    ];
    let id = fleet.cluster.run(&words);
    let (done, total) = wait_for("progress of the pull", || {
        let detail = fleet.cluster.status(&id);
        let phase = detail["phase"].as_str().unwrap();
        assert!(["pending", "scheduled", "pulling"].contains(&phase), "{detail:#}");
        let done = detail["pull"]["doneBytes"].as_u64().filter(|done| *done > 0)?;
        Some((done, detail["pull"]["totalBytes"].as_u64().unwrap()))
    });
    assert!(total >= BLOB_BYTES as u64 && done <= total, "{done} of {total}");
    let shown = fleet.cluster.home.run(&format!("workload status {id}"));
    assert!(shown.ok().contains("pulling"), "{shown:?}");
    slow.hurry.store(true, Ordering::Relaxed);
    let detail = fleet.cluster.wait_phase(&id, "succeeded");
    assert!(detail["pull"].is_null(), "{detail:#}");
    let phases: Vec<&str> = detail["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["pending", "scheduled", "pulling", "running", "succeeded"]);
    assert_eq!(fleet.cluster.logs(&id), "here");
    fleet.end();
}
