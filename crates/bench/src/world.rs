//! A gateway, and agents, as processes of their own in folders of their own; all of it is gone when dropped.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use api::{
    Span,
    op::{JoinTokenCreate, JoinTokenRequest, NodeFilter, NodeList, Submission, SubmitRequest, WorkloadSubmit},
    workload::{GpuRequest, WorkloadSpec},
};

use crate::{Bench, client::Client, process};

/// Most workloads of one call: keeps it well under the limit of a body.
const AT_ONCE: usize = 2_000;

/// A process that ends with its owner.
pub struct Running(Child);

impl Running {
    /// Takes care of a process.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What is left to tell if it is gone already?
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway in a folder of its own.
pub struct World {
    /// Its process.
    pub gateway: Running,
    /// Where it listens: `127.0.0.1:port`.
    pub authority: String,
    /// The admin token.
    pub token: String,
    /// Simulated agents connect by TLS.
    pub tls: bool,
    binary: PathBuf,
    // Last: removed when the processes are gone.
    folder: tempfile::TempDir,
}

impl World {
    /// Starts a gateway, and waits until it answers.
    pub async fn start(bench: &Bench) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("clawbernetes-bench-")
            .tempdir_in(&bench.dir)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let authority = format!("127.0.0.1:{port}");
        let data = folder.path().join("gateway");
        let gateway = spawn(
            &bench.binary,
            folder.path(),
            "gateway",
            &[
                "gateway",
                "serve",
                "--listen",
                &authority,
                "--data",
                &data.to_string_lossy(),
            ],
        )?;
        for _ in 0..1000 {
            if let Ok(token) = std::fs::read_to_string(data.join("admin.token"))
                && let Ok(mut client) = Client::connect(&authority, token.trim()).await
                && client.raw("gateway.ping", b"{}".to_vec()).await.is_ok()
            {
                return Ok(Self {
                    gateway,
                    authority,
                    token: token.trim().to_owned(),
                    tls: bench.tls,
                    binary: bench.binary.clone(),
                    folder,
                });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the gateway didn't start: {}", log(folder.path(), "gateway"))
    }

    /// The folder of it all.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A connection for calls.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.authority, &self.token).await
    }

    /// A command of the product against this gateway.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        isolate(&mut command, self.folder.path());
        command
            .args(args)
            .env("CLAWBERNETES_GATEWAY_URL", format!("ws://{}", self.authority))
            .env("CLAWBERNETES_TOKEN", &self.token)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// Starts an agent that runs processes, and waits until it is online.
    pub async fn native_agent(&self) -> anyhow::Result<Running> {
        let mut client = self.client().await?;
        let join = client
            .call::<JoinTokenCreate>(&JoinTokenRequest {
                expires: Span::secs(600),
                uses: Some(1),
            })
            .await?;
        let data = self.folder.path().join("node");
        let agent = spawn(
            &self.binary,
            self.folder.path(),
            "node",
            &[
                "node",
                "start",
                "--engine",
                "native",
                "--name",
                "bench",
                "--gateway",
                &format!("ws://{}", self.authority),
                "--join",
                &join.token,
                "--data",
                &data.to_string_lossy(),
            ],
        )?;
        for _ in 0..1000 {
            let nodes = client.call::<NodeList>(&NodeFilter::default()).await?;
            if nodes.iter().any(|n| n.status == api::node::NodeStatus::Healthy) {
                return Ok(agent);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("the agent didn't come online: {}", log(self.folder.path(), "node"))
    }

    /// CPU time of the gateway so far.
    pub fn cpu(&self) -> anyhow::Result<process::Cpu> {
        process::cpu(self.gateway.pid())
    }
}

/// A process that sees no settings of whoever runs the benchmark, with its output in a file.
fn spawn(binary: &Path, folder: &Path, name: &str, args: &[&str]) -> anyhow::Result<Running> {
    let output = File::create(folder.join(format!("{name}.log")))?;
    let mut command = Command::new(binary);
    isolate(&mut command, folder);
    let child = command
        .args(args)
        .env("CLAWBERNETES_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("{} can't be started", binary.display()))?;
    Ok(Running::new(child))
}

fn isolate(command: &mut Command, folder: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CLAWBERNETES_") || name.to_string_lossy().starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", folder);
}

fn log(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
}

/// A workload that runs this on the node itself.
pub fn job(name: String, gpus: u32, command: &[&str]) -> Submission {
    Submission {
        name: Some(name),
        spec: WorkloadSpec {
            image: api::workload::HOST_IMAGE.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            gpus: GpuRequest {
                count: gpus,
                ..GpuRequest::default()
            },
            timeout: Some(Span::secs(3600)),
            ..WorkloadSpec::default()
        },
        ..Submission::default()
    }
}

/// Submits so many workloads, in as few calls as may be.
pub async fn submit(client: &mut Client, count: usize, make: impl Fn(usize) -> Submission) -> anyhow::Result<()> {
    for first in (0..count).step_by(AT_ONCE) {
        let workloads = (first..count.min(first + AT_ONCE)).map(&make).collect();
        let request = SubmitRequest {
            workloads,
            ..SubmitRequest::default()
        };
        client
            .raw(
                <WorkloadSubmit as api::op::Operation>::NAME,
                serde_json::to_vec(&request)?,
            )
            .await?;
    }
    Ok(())
}
