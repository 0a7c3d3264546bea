//! Simulated agents: they speak the node protocol over real WebSockets, and run nothing.
//!
//! With `--tls` each has a key and a certificate of its own, as nodes do, and its session is over TLS. They join over a
//! few plain connections that are kept: nodes don't join a thousand at a time.
//!
//! What they make of a job is in its name: `hold-…` starts, and ends when told; `keep-…` starts, and never ends;
//! `done-…` starts and ends at once. Like real agents they number what they saw, and have one unacknowledged report at
//! a time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use api::{
    Cpu, GpuIndex, NodeName, Size, Timestamp,
    node::{EngineInfo, EngineKind, GpuInfo, GpuLink, GpuPair, GpuSample, Inventory, NodeSample, Vendor},
    op::{JoinRequest, Joined, NODE_SESSION_PATH, NodeJoin},
    wire::{Desired, FromNode, Observation, PROTOCOL, Seen, ToNode},
    workload::{JobKey, Outcome, Usage},
};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use vault::pki::{Algorithm, Csr, PrivateKey};

use crate::{
    channel::{self, Papers},
    meter::Meter,
    world::World,
};

/// Joins and connections under way at once.
const AT_ONCE: usize = 64;
/// GPUs of each.
pub const GPUS: u32 = 8;

/// What the agents have seen and done together.
#[derive(Default)]
pub struct Tally {
    /// Sessions that began.
    pub online: AtomicUsize,
    /// Jobs that agents were given, by what is to be made of them.
    pub held: AtomicUsize,
    /// See the module.
    pub kept: AtomicUsize,
    /// Jobs that ended and whose end is on the gateway's disk.
    pub ended: AtomicUsize,
    /// Heartbeats that were acknowledged.
    pub beats: AtomicUsize,
    /// Samples that were sent and acknowledged.
    pub samples: AtomicUsize,
    /// Sessions that broke.
    pub broken: AtomicUsize,
    changed: Notify,
}

impl Tally {
    fn add(&self, counter: &AtomicUsize, count: usize) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
            self.changed.notify_waiters();
        }
    }

    /// Waits until a counter has reached a number, for two minutes.
    pub async fn reach(&self, counter: &AtomicUsize, count: usize, what: &str) -> anyhow::Result<()> {
        self.reach_within(counter, count, what, Duration::from_secs(120)).await
    }

    /// The same for so long.
    pub async fn reach_within(
        &self,
        counter: &AtomicUsize,
        count: usize,
        what: &str,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                if counter.load(Ordering::Relaxed) >= count {
                    return;
                }
                changed.await;
            }
        };
        if tokio::time::timeout(patience, reached).await.is_err() {
            bail!(
                "{} of {count} {what} after {} s",
                counter.load(Ordering::Relaxed),
                patience.as_secs()
            );
        }
        Ok(())
    }
}

/// A fleet of simulated agents.
pub struct Agents {
    /// What they have seen.
    pub tally: Arc<Tally>,
    release: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Agents {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Agents {
    /// Joins so many agents, and connects them.
    pub async fn start(world: &World, count: usize) -> anyhow::Result<Self> {
        Self::with(world, count, || None).await
    }

    /// The same, and they measure: all that real ones with such GPUs do, each 10 s.
    pub async fn measuring(world: &World, count: usize) -> anyhow::Result<Self> {
        Self::with(world, count, || Some(Meter::new(GPUS))).await
    }

    /// The same, and they begin with so many ticks of the past, as after a long time without a gateway.
    pub async fn with_past(world: &World, count: usize, ticks: u64) -> anyhow::Result<Self> {
        Self::with(world, count, || Some(Meter::new(GPUS).with_past(ticks))).await
    }

    async fn with(world: &World, count: usize, meter: impl Fn() -> Option<Meter>) -> anyhow::Result<Self> {
        let meter = &meter;
        let tally = Arc::new(Tally::default());
        let (release, released) = watch::channel(false);
        let lanes = (0..AT_ONCE).map(|lane| async move {
            let mut client = world.client().await?;
            let mut joined = Vec::new();
            for number in (lane..count).step_by(AT_ONCE) {
                let csr = world.tls.then(|| Csr::new(Algorithm::EcdsaP256)).transpose()?;
                let request = JoinRequest {
                    name: NodeName::new(format!("sim-{number:05}")),
                    exact: true,
                    secret: None,
                    certificate_request: csr.as_ref().map(|csr| csr.request_pem.clone()),
                };
                let node = client.call::<NodeJoin>(&request).await?;
                let tls = csr.map(|csr| tls(&node, csr.key)).transpose()?;
                joined.push((node, tls));
            }
            Ok::<_, anyhow::Error>(joined)
        });
        let joined = futures_util::future::try_join_all(lanes).await?.into_iter().flatten();
        let tasks: Vec<_> = futures_util::stream::iter(joined)
            .map(|(node, tls)| {
                let tally = Arc::clone(&tally);
                let released = released.clone();
                async move {
                    let mut agent = Agent::connect(&world.authority, node, tls).await?;
                    agent.meter = meter();
                    Ok::<_, anyhow::Error>(tokio::spawn(async move {
                        if let Err(error) = agent.live(&tally, released).await {
                            tally.add(&tally.broken, 1);
                            // The first few say enough.
                            if tally.broken.load(Ordering::Relaxed) < 4 {
                                println!("  a simulated agent broke: {error:#}");
                            }
                        }
                    }))
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        tally.reach(&tally.online, count, "agents online").await?;
        Ok(Self { tally, release, tasks })
    }

    /// Lets what is held end.
    pub fn release(&self) {
        self.release.send_replace(true);
    }
}

struct Agent {
    name: NodeName,
    socket: tokio_tungstenite::WebSocketStream<channel::Stream>,
    jobs: HashSet<JobKey>,
    held: Vec<JobKey>,
    number: u64,
    /// Not yet sent.
    waiting: Vec<Observation>,
    /// Sent, and not yet acknowledged: up to this number, with so many ends.
    under_way: Option<(u64, usize)>,
    /// `None`: it measures nothing.
    meter: Option<Meter>,
    /// Samples that were sent and aren't acknowledged yet.
    measured: usize,
}

impl Agent {
    async fn connect(authority: &str, node: Joined, tls: Option<Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let mut request = format!("{scheme}://{authority}{NODE_SESSION_PATH}").into_client_request()?;
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {}", node.credential).parse()?);
        let socket = channel::connect(authority, tls.as_ref()).await?;
        let (socket, _) = client_async(request, socket).await.context("no session")?;
        Ok(Self {
            name: node.name,
            socket,
            jobs: HashSet::new(),
            held: Vec::new(),
            number: 0,
            waiting: Vec::new(),
            under_way: None,
            meter: None,
            measured: 0,
        })
    }

    async fn say(&mut self, message: &FromNode) -> anyhow::Result<()> {
        let text = serde_json::to_string(message)?;
        Ok(self.socket.send(Message::text(text)).await?)
    }

    async fn hear(&mut self) -> anyhow::Result<ToNode> {
        loop {
            match self.socket.next().await.context("the gateway hung up")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(_) => bail!("the gateway closed the session"),
                _ => {}
            }
        }
    }

    async fn live(mut self, tally: &Tally, mut released: watch::Receiver<bool>) -> anyhow::Result<()> {
        self.say(&FromNode::Hello {
            protocol: PROTOCOL,
            name: self.name.clone(),
            inventory: Box::new(inventory(&self.name)),
            labels: BTreeMap::new(),
            jobs: Vec::new(),
            services: None,
        })
        .await?;
        let ToNode::Welcome { heartbeat, .. } = self.hear().await? else {
            bail!("no welcome");
        };
        tally.add(&tally.online, 1);
        // Spread over the interval, as agents that started at different times are.
        let period = heartbeat.duration();
        let offset = period.mul_f64(f64::from(spread(self.name.as_str())));
        let mut beat = tokio::time::interval_at(tokio::time::Instant::now() + offset, period);
        let mut beats = 0;
        let mut waits_for_release = true;
        loop {
            tokio::select! {
                heard = self.hear() => {
                    let heard = heard?;
                    self.take(heard, tally, *released.borrow());
                }
                _ = beat.tick() => {
                    beats += 1;
                    let beat = FromNode::Heartbeat {
                        number: beats,
                        at: Timestamp::now(),
                        round_trip_ms: Some(1.0),
                        sample: Box::new(sample()),
                    };
                    self.say(&beat).await?;
                    if self.meter.as_ref().is_some_and(Meter::is_up_to_date) {
                        self.measure().await?;
                    }
                }
                told = released.changed(), if waits_for_release => {
                    // A dropped sender is the end of the measurement.
                    waits_for_release = told.is_ok();
                    for job in std::mem::take(&mut self.held) {
                        self.ended(job);
                    }
                }
            }
            self.report().await?;
            if self.measured == 0 && self.meter.as_ref().is_some_and(|meter| !meter.is_up_to_date()) {
                self.measure().await?;
            }
        }
    }

    async fn measure(&mut self) -> anyhow::Result<()> {
        let Some(meter) = &mut self.meter else { return Ok(()) };
        let batch = meter.measure();
        self.measured = batch.ticks.iter().map(|tick| tick.values.len()).sum();
        self.say(&FromNode::Metrics { batch }).await
    }

    fn take(&mut self, heard: ToNode, tally: &Tally, released: bool) {
        match heard {
            ToNode::Desired(Desired { put, forget, .. }) => {
                for job in forget {
                    self.jobs.remove(&job);
                }
                let (mut held, mut kept) = (0, 0);
                for assignment in put {
                    if !self.jobs.insert(assignment.job.clone()) {
                        if assignment.stop.is_some() {
                            self.ended(assignment.job);
                        }
                        continue;
                    }
                    self.observe(assignment.job.clone(), Seen::Started {
                            at: Timestamp::now(),
                            endpoints: assignment.endpoints(),
                        });
                    match assignment.name.split('-').next() {
                        Some("keep") => kept += 1,
                        Some("hold") if !released => {
                            held += 1;
                            self.held.push(assignment.job);
                        }
                        _ => self.ended(assignment.job),
                    }
                }
                tally.add(&tally.held, held);
                tally.add(&tally.kept, kept);
            }
            ToNode::ObservationsAck { through } => {
                if let Some((number, ends)) = self.under_way
                    && through >= number
                {
                    self.under_way = None;
                    tally.add(&tally.ended, ends);
                }
            }
            ToNode::HeartbeatAck { .. } => tally.add(&tally.beats, 1),
            ToNode::MetricsAck { .. } => tally.add(&tally.samples, std::mem::take(&mut self.measured)),
            ToNode::Welcome { .. }
            | ToNode::Refused { .. }
            | ToNode::LogsAck { .. }
            | ToNode::FactsAck { .. }
            // Its jobs use none.
            | ToNode::Secrets { .. }
            | ToNode::Exec { .. }
            | ToNode::Routes(_)
            | ToNode::TrafficAck { .. } => {}
        }
    }

    fn observe(&mut self, job: JobKey, seen: Seen) {
        self.number += 1;
        self.waiting.push(Observation {
            number: self.number,
            job,
            seen,
        });
    }

    fn ended(&mut self, job: JobKey) {
        let at = Timestamp::now();
        let seen = Seen::Ended {
            started_at: Some(at),
            at,
            outcome: Outcome::Exited { code: 0 },
            stop: None,
            usage: Usage::default(),
            last_line: 0,
        };
        self.observe(job, seen);
    }

    async fn report(&mut self) -> anyhow::Result<()> {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return Ok(());
        }
        let observations = std::mem::take(&mut self.waiting);
        let ends = observations
            .iter()
            .filter(|o| matches!(o.seen, Seen::Ended { .. }))
            .count();
        self.under_way = Some((self.number, ends));
        self.say(&FromNode::Observations { observations }).await
    }
}

/// How a node that has joined with this key speaks TLS.
fn tls(node: &Joined, key: PrivateKey) -> anyhow::Result<Arc<ClientConfig>> {
    let given = node.certificate.as_ref().context("no certificate was given")?;
    Ok(Arc::new(Papers::new(given, key)?.config(true)?))
}

/// A number from 0 to 1 that is a name's own.
fn spread(name: &str) -> f32 {
    let sum = name.bytes().fold(0u32, |sum, b| {
        sum.wrapping_mul(2_654_435_761).wrapping_add(u32::from(b))
    });
    (sum >> 8) as f32 / (1u32 << 24) as f32
}

fn inventory(name: &NodeName) -> Inventory {
    let gpu = |index: GpuIndex| GpuInfo {
        index,
        uuid: format!("SIM-{name}-{index}"),
        vendor: Vendor::Simulated,
        model: "NVIDIA H100 80GB HBM3".to_owned(),
        memory_total_bytes: Some(Size::mib(81_559)),
        pci_address: Some(format!("0000:{:02x}:00.0", 16 + index)),
        numa_node: Some(index / 4),
        power_limit_watts: Some(700),
        driver_version: Some("550.54.15".to_owned()),
    };
    let pairs = (0..GPUS).flat_map(|a| (a + 1..GPUS).map(move |b| (a, b)));
    Inventory {
        hostname: name.to_string(),
        cpu: Cpu::cores(128),
        cpu_model: Some("simulated".to_owned()),
        memory_total_bytes: Size::mib(2 << 20),
        os: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
        kernel: Some("6.1.0".to_owned()),
        arch: "x86_64".to_owned(),
        boot_id: None,
        gpus: (0..GPUS).map(gpu).collect(),
        links: pairs
            .map(|(a, b)| GpuPair {
                a,
                b,
                link: GpuLink::NvLink { lanes: 18 },
            })
            .collect(),
        engines: vec![EngineInfo {
            kind: EngineKind::Native,
            version: None,
            limitations: Vec::new(),
        }],
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        notes: Vec::new(),
    }
}

fn sample() -> NodeSample {
    let gpu = |index| GpuSample {
        index,
        memory_used_bytes: Some(Size::mib(40_000)),
        utilization_percent: Some(87),
        temperature_celsius: Some(61),
        power_watts: Some(512.5),
        ..GpuSample::default()
    };
    NodeSample {
        memory_used_bytes: Some(Size::mib(200_000)),
        cpu_percent: Some(12.5),
        gpus: (0..GPUS).map(gpu).collect(),
    }
}
