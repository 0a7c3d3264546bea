//! A node's session, from its hello to its end.
//!
//! Four loops: one reads frames and notes signs of life at once; one writes; one pushes what the node should run
//! whenever that changes; one takes in logs and observations, and acknowledges what is on disk. A node sends at most
//! one unacknowledged frame of each kind, so that nothing here grows without bound.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName, WorkloadId,
    auth::Scope,
    node::{Connectivity, GpuHealth, Inventory},
    wire::{ExecRequest, FRAME_MAX_BYTES, Fact, FromNode, LogLine, MetricBatch, Observation, PROTOCOL, Seen, ToNode},
    workload::{JobKey, LogSource},
};
use axum::{
    extract::{
        Request, State,
        ws::{Message, WebSocket},
    },
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use telemetry::logs::{Chunk, Line, Source, StreamId};
use tokio::sync::{Notify, mpsc};
use vault::pki::Peer;

use super::{
    App, deliver,
    face::Failed,
    places::Stays,
    upgrade::{self, Entered},
};
use crate::{
    auth,
    decide::{assign, facts, nodes, observed},
    hub::now,
    live::Session,
    metrics::{Intake, IntakeError},
    view::gone,
};

/// A node must have said hello by then.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// A node must have read what was sent together by then.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Batches of measurements that may wait for the store.
const METRICS_AHEAD: usize = 4;
/// Messages to a node that may wait.
const SEND_AHEAD: usize = 256;
/// Frames of a node that may wait: one of logs, one of observations, and what else it says.
const WORK_AHEAD: usize = 16;
/// Bytes of a session that are read at once. The library clears this much before each read and keeps it for the whole
/// session: with its own 128 KiB, a thousand nodes that only beat would hold 130 MB.
const READ_BYTES: usize = 4 << 10;
/// Time before what the store couldn't take is tried again.
const RETRY: Duration = Duration::from_millis(500);

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// The WebSocket at [`api::op::NODE_SESSION_PATH`].
pub async fn face(State(app): State<Arc<App>>, request: Request) -> Response {
    let entered = upgrade::enter(
        &app,
        request,
        "node.session",
        Scope::NodeSession,
        Stays::Node,
        "a node's session is",
    )
    .await;
    let Entered {
        identity,
        from,
        peer,
        upgrade,
        stay,
    } = match entered {
        Ok(entered) => entered,
        Err(error) => return Failed(error).into_response(),
    };
    upgrade
        .max_message_size(FRAME_MAX_BYTES)
        .max_frame_size(FRAME_MAX_BYTES)
        .read_buffer_size(READ_BYTES)
        .on_upgrade(move |socket| async move {
            let _stay = stay;
            session(app, NodeName::new(identity.name), from, peer, socket).await;
        })
}

fn text(message: &ToNode) -> Message {
    // Messages are plain data with string keys: writing them as JSON can't fail.
    Message::Text(serde_json::to_string(message).unwrap_or_default().into())
}

/// Reads a frame. `None`: the session is over.
async fn read(
    socket: &mut (impl StreamExt<Item = Result<Message, axum::Error>> + Unpin),
    node: &NodeName,
) -> Option<FromNode> {
    loop {
        let parsed = match socket.next().await? {
            Ok(Message::Text(text)) => serde_json::from_str(&text),
            Ok(Message::Binary(bytes)) => serde_json::from_slice(&bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => continue,
            Ok(Message::Close(_)) => return None,
            Err(error) => {
                tracing::info!(%node, %error, "a node's session broke");
                return None;
            }
        };
        match parsed {
            Ok(message) => return Some(message),
            Err(error) => {
                tracing::warn!(%node, %error, "a node sent a frame that can't be read; its session is ended");
                return None;
            }
        }
    }
}

struct Hello {
    inventory: Inventory,
    labels: BTreeMap<String, String>,
}

/// Checks a node's first words.
fn check_hello(node: &NodeName, first: Option<FromNode>) -> Result<Hello, ApiError> {
    let Some(FromNode::Hello {
        protocol,
        name,
        inventory,
        labels,
        ..
    }) = first
    else {
        return Err(ApiError::new(ErrorCode::InvalidArgument, "a session begins with hello"));
    };
    if protocol != PROTOCOL {
        return Err(ApiError::new(
            ErrorCode::InvalidArgument,
            format!("the node speaks protocol {protocol}, this gateway {PROTOCOL}"),
        )
        .hint("run the same version of clawbernetes on both"));
    }
    if name != *node {
        tracing::warn!(%node, claims = %name, "a node claimed another's name");
        return Err(ApiError::new(
            ErrorCode::PermissionDenied,
            format!("this credential is {node}'s, not {name}'s"),
        ));
    }
    if inventory.engines.is_empty() {
        return Err(ApiError::new(ErrorCode::InvalidArgument, "the node offers no engine"));
    }
    Ok(Hello {
        inventory: *inventory,
        labels,
    })
}

async fn session(app: Arc<App>, node: NodeName, from: SocketAddr, peer: Option<Arc<Peer>>, mut socket: WebSocket) {
    let first = tokio::time::timeout(HELLO_DEADLINE, read(&mut socket, &node))
        .await
        .ok()
        .flatten();
    let begun = match check_hello(&node, first) {
        Ok(hello) => {
            // It lives: its old silence must not be held against it while its session begins.
            app.live.seen(&node, now());
            // Before its record tells that it is here: whoever hears of that asks where.
            app.live.with(&node, |live| live.peer = Some(from.ip().to_canonical()));
            begin(&app, &node, hello).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = begun {
        tracing::warn!(%node, %from, code = %error.code, "a node was refused: {}", error.message);
        let _ = socket.send(text(&ToNode::Refused { error })).await;
        return;
    }
    let (sink, mut stream) = socket.split();
    let (send, outgoing) = mpsc::channel(SEND_AHEAD);
    let (work, waiting) = mpsc::channel(WORK_AHEAD);
    let (measured, measurements) = mpsc::channel(METRICS_AHEAD);
    let resync = Arc::new(Notify::new());
    let end = Arc::new(Notify::new());
    let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
    app.live.seen(&node, now());
    let older = app.live.with(&node, |live| {
        live.connectivity = Connectivity {
            address: Some(from.to_string()),
            since: Some(now()),
            round_trip_ms: None,
            clock_offset_ms: None,
        };
        live.session.replace(Session {
            number,
            send: send.clone(),
            end: Arc::clone(&end),
        })
    });
    if let Some(older) = older {
        older.end.notify_one();
    }
    // Revoked since it was let in: whoever took it back found no session to end.
    if peer.is_some_and(|peer| auth::identify_peer(&app.hub.view(), &peer, now()).is_err()) {
        end.notify_one();
    }
    tracing::info!(%node, %from, "a node's session began");
    let reading = async {
        while let Some(message) = read(&mut stream, &node).await {
            if !heard(&app, &node, message, &send, &work, &measured, &resync).await {
                return;
            }
        }
    };
    tokio::select! {
        () = reading => {}
        () = write(sink, outgoing) => {}
        () = push(&app, &node, &send, &resync) => {}
        () = take_in(&app, &node, waiting, &send) => {}
        () = take_metrics(&app, &node, measurements, &send) => {}
        () = end.notified() => tracing::info!(%node, "a node's session was replaced or ended"),
        () = app.stop.cancelled() => {}
    }
    app.live.with(&node, |live| {
        if live.session.as_ref().is_some_and(|s| s.number == number) {
            live.session = None;
            live.connectivity = Connectivity {
                address: None,
                since: None,
                round_trip_ms: None,
                clock_offset_ms: None,
            };
        }
    });
    tracing::info!(%node, "a node's session ended");
}

/// Records that the node is online.
async fn begin(app: &App, node: &NodeName, hello: Hello) -> Result<(), ApiError> {
    app.hub
        .decide(|view| {
            let known = view.node(node).ok_or_else(|| gone(node.as_str()))?;
            Ok(Some(nodes::online(
                known,
                hello.inventory.clone(),
                hello.labels.clone(),
                now(),
            )))
        })
        .await
        .map(|_| ())
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut outgoing: mpsc::Receiver<ToNode>) {
    let mut together = Vec::new();
    while outgoing.recv_many(&mut together, SEND_AHEAD).await > 0 {
        let written = async {
            for message in together.drain(..) {
                sink.feed(text(&message)).await?;
            }
            sink.flush().await
        };
        match tokio::time::timeout(WRITE_DEADLINE, written).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// What has to be on disk before it is acknowledged.
enum Work {
    Logs(Vec<(JobKey, Vec<LogLine>)>),
    Observations(Vec<Observation>),
    Changed(Option<Box<Inventory>>, BTreeMap<u32, GpuHealth>),
    Facts(Vec<Fact>),
    Secrets(JobKey),
}

/// Takes a frame. False: the session is over.
async fn heard(
    app: &App,
    node: &NodeName,
    message: FromNode,
    send: &mpsc::Sender<ToNode>,
    work: &mpsc::Sender<Work>,
    measured: &mpsc::Sender<MetricBatch>,
    resync: &Notify,
) -> bool {
    let at = now();
    app.live.seen(node, at);
    let queue = work;
    let work = |item| async { queue.send(item).await.is_ok() };
    match message {
        FromNode::Hello { .. } => {
            tracing::warn!(%node, "a node said hello twice");
            false
        }
        FromNode::Heartbeat {
            number,
            at: theirs,
            round_trip_ms,
            sample,
        } => {
            let health = sample.gpus.iter().map(|g| (g.index, g.health.clone())).collect();
            app.live.with(node, |live| {
                live.connectivity.round_trip_ms = round_trip_ms;
                let half = round_trip_ms.unwrap_or(0.0) / 2.0;
                let offset = (theirs.as_microsecond() - at.as_microsecond()) as f64 / 1000.0 + half;
                live.connectivity.clock_offset_ms = Some(offset);
                live.sample = Some(*sample);
            });
            // A node that reads nothing is as good as gone: its session ends with the writer's deadline.
            let _ = send.try_send(ToNode::HeartbeatAck { number });
            let new = app
                .hub
                .view()
                .node(node)
                .is_some_and(|known| nodes::changed(known, None, &health, at).is_some());
            if new {
                // Where there is no room, the next heartbeat says it again: a full disk must not make nodes look silent.
                let _ = queue.try_send(Work::Changed(None, health));
            }
            true
        }
        FromNode::Changed { inventory } => work(Work::Changed(Some(inventory), BTreeMap::new())).await,
        FromNode::Observations { observations } => work(Work::Observations(observations)).await,
        FromNode::Logs { streams } => work(Work::Logs(streams)).await,
        FromNode::Pulling { job, progress } => {
            // Of a job that was never here there is nothing to keep.
            if app.hub.view().ran_on(node, &job) {
                app.live.set_pull(job, progress);
            }
            true
        }
        FromNode::Metrics { batch } => measured.send(batch).await.is_ok(),
        FromNode::Facts { facts } => work(Work::Facts(facts)).await,
        FromNode::SecretsWanted { job } => work(Work::Secrets(job)).await,
        FromNode::Resync => {
            resync.notify_one();
            true
        }
        FromNode::Exec { id, event } => {
            // A caller that doesn't read holds up nobody else: its command is ended. One that has gone has said so.
            if let Some(caller) = app.live.exec(node, id)
                && let Err(mpsc::error::TrySendError::Full(_)) = caller.try_send(event)
            {
                app.live.end_exec(id);
                let request = ExecRequest::Kill;
                let _ = send.try_send(ToNode::Exec { id, request });
            }
            true
        }
    }
}

/// Tells the node what it should run: all of it first, changes from then on.
async fn push(app: &App, node: &NodeName, send: &mpsc::Sender<ToNode>, resync: &Notify) {
    let mut wake = app.hub.node_wakes(node);
    let welcome = ToNode::Welcome {
        protocol: PROTOCOL,
        at: now(),
        heartbeat: app.heartbeat,
        fence: app.fence,
        alone: true,
    };
    if send.send(welcome).await.is_err() {
        return;
    }
    let mut told = assign::Told::default();
    loop {
        let news = told.next(&app.hub.view(), node);
        for piece in news {
            if send.send(ToNode::Desired(piece)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            // Its sender lives as long as the hub.
            _ = wake.changed() => {}
            () = resync.notified() => told.resync(),
        }
    }
}

/// Puts logs and observations on disk, and acknowledges them.
async fn take_in(app: &App, node: &NodeName, mut waiting: mpsc::Receiver<Work>, send: &mpsc::Sender<ToNode>) {
    while let Some(work) = waiting.recv().await {
        let ack = match work {
            Work::Logs(streams) => Some(ToNode::LogsAck {
                through: keep_logs(app, node, streams).await,
            }),
            Work::Observations(observations) => {
                let through = observations.iter().map(|o| o.number).max().unwrap_or(0);
                keep_observations(app, node, observations).await;
                Some(ToNode::ObservationsAck { through })
            }
            Work::Changed(inventory, health) => {
                let change = app.hub.decide(|view| {
                    let known = view.node(node).ok_or_else(|| gone(node.as_str()))?;
                    Ok(nodes::changed(known, inventory.as_deref().cloned(), &health, now()))
                });
                if let Err(error) = change.await {
                    tracing::warn!(%node, %error, "a change of the machine wasn't kept");
                }
                None
            }
            Work::Secrets(job) => {
                let answer = deliver::values(app, node, &job).await;
                Some(ToNode::Secrets { job, answer })
            }
            Work::Facts(facts) => {
                let through = facts.last().map(|f| f.number);
                keep_facts(app, node, &facts).await;
                through.map(|through| ToNode::FactsAck { through })
            }
        };
        if let Some(ack) = ack
            && send.send(ack).await.is_err()
        {
            return;
        }
    }
}

/// Keeps what the node's kernel log said; tries again for as long as the disk can't take it.
async fn keep_facts(app: &App, node: &NodeName, facts: &[Fact]) {
    loop {
        let kept = app.hub.decide(|view| {
            let known = view.node(node).ok_or_else(|| gone(node.as_str()))?;
            Ok(facts::keep(known, facts, now()))
        });
        match kept.await {
            Ok(_) => return,
            // It was removed: there is nothing to keep them with.
            Err(error) if error.code == ErrorCode::NotFound => return,
            Err(error) => {
                tracing::warn!(%node, %error, "what the kernel log said waits for the disk");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Takes measurements in, and acknowledges them. What the store can't take is lost with a word: numbers of the past
/// aren't worth holding up those of now.
async fn take_metrics(
    app: &Arc<App>,
    node: &NodeName,
    mut measurements: mpsc::Receiver<MetricBatch>,
    send: &mpsc::Sender<ToNode>,
) {
    let mut intake = Intake::default();
    while let Some(batch) = measurements.recv().await {
        // Of ten thousand sessions each would have a thread of its own waiting for the same disk.
        let Ok(place) = app.intakes.acquire().await else { return };
        let (app, of) = (Arc::clone(app), node.clone());
        let through = batch.ticks.last().map(|tick| tick.number);
        // The store may have to wait for its disk.
        let taken = tokio::task::spawn_blocking(move || {
            let runs = |workload: &WorkloadId| app.hub.view().ever_on(&of, workload);
            let taken = intake.take(&app.metrics, &of, &batch, runs);
            (intake, taken)
        });
        let Ok((back, taken)) = taken.await else { return };
        drop(place);
        intake = back;
        match taken {
            Ok(refused) => {
                for (series, reason) in refused {
                    tracing::warn!(%node, metric = series.metric, "a series wasn't let in: {reason}");
                }
            }
            Err(error @ (IntakeError::Batch(_) | IntakeError::Forgotten)) => {
                tracing::warn!(%node, %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "a node's session is ended");
                return;
            }
            Err(error @ IntakeError::Store(_)) => {
                tracing::warn!(%node, %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "measurements are lost");
            }
        }
        if let Some(through) = through
            && send.send(ToNode::MetricsAck { through }).await.is_err()
        {
            return;
        }
    }
}

/// Keeps lines of the jobs that are this node's; tries again for as long as the disk can't take them.
async fn keep_logs(app: &App, node: &NodeName, streams: Vec<(JobKey, Vec<LogLine>)>) -> Vec<(JobKey, u64)> {
    let mut done: Vec<(JobKey, u64)> = Vec::new();
    let mut chunks: Vec<Chunk> = Vec::new();
    for (job, lines) in streams {
        if app.hub.view().ran_on(node, &job) {
            chunks.push(chunk(job, lines));
        } else {
            // Of a workload that is no longer kept, or another node's: there is no place for them, ever.
            done.push((job, lines.last().map_or(0, |l| l.number)));
        }
    }
    loop {
        match app.logs.append(chunks.clone()).await {
            Ok(through) => {
                done.extend(through.into_iter().map(|(s, n)| {
                    (
                        JobKey {
                            workload: WorkloadId::new(s.workload),
                            attempt: s.attempt,
                            rank: s.rank,
                        },
                        n,
                    )
                }));
                return done;
            }
            Err(error) => {
                tracing::warn!(%node, %error, "log lines couldn't be kept; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn chunk(job: JobKey, lines: Vec<LogLine>) -> Chunk {
    let lines = lines.into_iter().map(|l| Line {
        number: l.number,
        at_ns: l.at_ns,
        source: match l.source {
            LogSource::Stdout => Source::Stdout,
            LogSource::Stderr => Source::Stderr,
            LogSource::System => Source::System,
        },
        text: l.text.into(),
        partial: l.partial,
    });
    Chunk {
        stream: stream(job),
        lines: lines.collect(),
        end: None,
    }
}

fn stream(job: JobKey) -> StreamId {
    StreamId {
        workload: job.workload.as_str().to_owned(),
        attempt: job.attempt,
        rank: job.rank,
    }
}

/// Takes observations in: one transaction a workload, all of them in one commit; tries again for as long as the
/// store can't take them.
async fn keep_observations(app: &App, node: &NodeName, observations: Vec<Observation>) {
    let by_workload = observed::by_workload(&observations);
    let kept = by_workload.iter().map(|(id, seen)| async move {
        loop {
            let decided = app
                .hub
                .decide(|view| Ok(observed::observed(view, node, id, seen, now())));
            match decided.await {
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%node, %id, %error, "an observation couldn't be kept; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    });
    futures_util::future::join_all(kept).await;
    let mut ends = Vec::new();
    for observation in observations {
        app.live.end_pull(&observation.job);
        if let Seen::Ended { last_line, .. } = observation.seen
            && app.hub.view().ran_on(node, &observation.job)
        {
            ends.push(Chunk {
                stream: stream(observation.job),
                lines: Vec::new(),
                end: Some(last_line),
            });
        }
    }
    while !ends.is_empty() {
        match app.logs.append(ends.clone()).await {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(%node, %error, "the end of a log couldn't be kept; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
