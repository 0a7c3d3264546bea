//! A command inside a workload: the caller's WebSocket on one side, the node's session on the other.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName,
    auth::Identity,
    op::{EXEC_SCOPE, ExecEnd, ExecStart},
    wire::{ExecEvent, ExecRequest, ToNode},
    workload::{JobKey, LogSource, MemberState},
};
use axum::{
    extract::{
        Request, State,
        ws::{Message, WebSocket},
    },
    response::{IntoResponse, Response},
};
use tokio::sync::mpsc;

use super::{
    App,
    face::Failed,
    places::Stays,
    upgrade::{self, Entered},
};
use crate::{audit, auth, decide::submit::DEFAULT_NAMESPACE};

/// Pieces of output that may wait for a slow caller. Past that the command is ended rather than output dropped.
const AHEAD: usize = 4096;
/// Longest frame of a caller, in bytes. As JSON on the way to the node it is four times as long at most, and far from
/// what would break the node's session.
const INPUT_MAX: usize = 1 << 20;
/// The first frame must have come by then.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// What the audit log calls it.
const ACTION: &str = "workload.exec";

static COMMANDS: AtomicU64 = AtomicU64::new(1);

/// The WebSocket at [`api::op::EXEC_PATH`].
pub async fn face(State(app): State<Arc<App>>, request: Request) -> Response {
    let entered = upgrade::enter(
        &app,
        request,
        ACTION,
        EXEC_SCOPE,
        Stays::Follower,
        "a command runs over",
    )
    .await;
    let Entered {
        identity,
        from,
        upgrade,
        stay,
        ..
    } = match entered {
        Ok(entered) => entered,
        Err(error) => return Failed(error).into_response(),
    };
    upgrade
        .max_message_size(INPUT_MAX)
        .max_frame_size(INPUT_MAX)
        .on_upgrade(move |socket| async move {
            let _stay = stay;
            run(app, identity, from, socket).await;
        })
}

async fn run(app: Arc<App>, identity: Identity, from: SocketAddr, mut socket: WebSocket) {
    let first = tokio::time::timeout(START_DEADLINE, socket.recv()).await;
    let end = match first {
        Ok(Some(Ok(Message::Text(text)))) => match serde_json::from_str::<ExecStart>(&text) {
            Ok(start) => carry(&app, &identity, from, &mut socket, start).await,
            Err(error) => Err(ApiError::new(
                ErrorCode::InvalidArgument,
                format!("the request can't be read: {error}"),
            )),
        },
        _ => Err(ApiError::new(
            ErrorCode::InvalidArgument,
            "the first frame is the request, as JSON text",
        )),
    };
    let end = match end {
        Ok(Some(code)) => ExecEnd::Exit(code),
        Ok(None) => return,
        Err(error) => ExecEnd::Error(error),
    };
    let text = serde_json::to_string(&end).unwrap_or_default();
    let _ = socket.send(Message::Text(text.into())).await;
    let _ = socket.send(Message::Close(None)).await;
}

/// Where a workload's member runs.
fn place(app: &App, identity: &Identity, start: &ExecStart) -> Result<(NodeName, JobKey), ApiError> {
    let view = app.hub.view();
    let w = view.find_workload(&start.id, auth::within(identity, start.namespace.as_deref())?)?;
    let member = w.members.iter().find(|m| m.rank == start.rank);
    let member = member
        .filter(|m| matches!(m.state, MemberState::Running { .. }))
        .ok_or_else(|| {
            ApiError::conflict(format!(
                "{} doesn't run (rank {}): it is {}",
                w.name, start.rank, w.phase
            ))
        })?;
    Ok((
        member.node.clone(),
        JobKey {
            workload: w.id.clone(),
            attempt: w.attempt,
            rank: member.rank,
        },
    ))
}

/// Carries a command. `Some`: its exit code; `None`: the caller has gone.
async fn carry(
    app: &App,
    identity: &Identity,
    from: SocketAddr,
    socket: &mut WebSocket,
    start: ExecStart,
) -> Result<Option<i32>, ApiError> {
    if start.command.is_empty() {
        return Err(ApiError::invalid("command", "no command was given"));
    }
    let placed = place(app, identity, &start);
    // Which command isn't noted: there may be a secret in it.
    let mut entry = audit::entry(ACTION, Some(identity), from.ip());
    let namespace = start
        .namespace
        .as_deref()
        .or(identity.namespace.as_deref())
        .unwrap_or(DEFAULT_NAMESPACE);
    entry.target = Some(format!("workload/{namespace}/{}", start.id));
    app.audited(entry.ended(placed.as_ref().err()), false).await?;
    let (node, job) = placed?;
    let unreachable = || ApiError::new(ErrorCode::NodeUnreachable, format!("node {node} isn't connected"));
    let session = app
        .live
        .with(&node, |live| live.session.clone())
        .ok_or_else(unreachable)?;
    let id = COMMANDS.fetch_add(1, Ordering::Relaxed);
    let (send, events) = mpsc::channel(AHEAD);
    app.live.register_exec(id, node.clone(), send);
    let request = ExecRequest::Start {
        job,
        command: start.command,
    };
    let carried = match session.send.send(ToNode::Exec { id, request }).await {
        Ok(()) => tokio::select! {
            carried = relay(socket, &session.send, id, events) => carried,
            () = auth::until_invalid(&app.hub, identity) => Err(auth::no_longer_valid()),
        },
        Err(_) => Err(unreachable()),
    };
    app.live.end_exec(id);
    if !matches!(carried, Ok(Some(_))) {
        let _ = session
            .send
            .send(ToNode::Exec {
                id,
                request: ExecRequest::Kill,
            })
            .await;
    }
    carried
}

async fn relay(
    socket: &mut WebSocket,
    node: &mpsc::Sender<ToNode>,
    id: u64,
    mut events: mpsc::Receiver<ExecEvent>,
) -> Result<Option<i32>, ApiError> {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(ExecEvent::Output { source, data }) => {
                    let mut framed = Vec::with_capacity(data.len() + 1);
                    framed.push(if source == LogSource::Stderr { 2 } else { 1 });
                    framed.extend(data);
                    if socket.send(Message::Binary(framed.into())).await.is_err() {
                        return Ok(None);
                    }
                }
                Some(ExecEvent::Exited { code }) => return Ok(Some(code)),
                Some(ExecEvent::Failed { error }) => return Err(error),
                None if node.is_closed() => {
                    return Err(ApiError::new(ErrorCode::NodeUnreachable, "the node's session ended"));
                }
                None => return Err(ApiError::conflict("the command's output isn't read as fast as it comes")),
            },
            heard = socket.recv() => {
                let data = match heard {
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    _ => return Ok(None),
                };
                let input = ToNode::Exec { id, request: ExecRequest::Input { data } };
                if node.send(input).await.is_err() {
                    return Err(ApiError::new(ErrorCode::NodeUnreachable, "the node's session ended"));
                }
            }
            () = node.closed() => return Err(ApiError::new(ErrorCode::NodeUnreachable, "the node's session ended")),
        }
    }
}
