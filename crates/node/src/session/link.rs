//! The connection to the gateway: made again and again, until the gateway says that it never will be.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use api::{
    ApiError, ErrorCode, Reason, Span,
    error::ErrorBody,
    wire::{FRAME_MAX_BYTES, FromNode, PROTOCOL, ToNode},
};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Response, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Address, Identity,
    channel::{self, ChannelError, Stream},
    clock,
    papers::Papers,
};
use crate::agent::Now;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Before a gateway that said never is asked again.
const NEVER_PAUSE: Duration = Duration::from_secs(10);

/// A session that lived this long makes the next back-off short again.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// How long connecting, and the answer to hello, may each take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that may wait for the writer. The agent itself has few on their way; when they don't go out, the session
/// is dead.
pub(super) const FRAMES: usize = 256;

/// Bytes that are read at once; this much is cleared before each read.
const READ_BYTES: usize = 16 << 10;

/// Output of commands that may wait for the writer.
const EXEC_FRAMES: usize = 16;

/// What comes from the connection.
pub(super) enum FromLink {
    /// A hello is needed.
    Hello(oneshot::Sender<FromNode>),
    /// A session has begun.
    Up(Box<Up>),
    /// The gateway says something, in this session.
    Message(ToNode),
    /// The session has ended.
    Down,
    /// Nothing listens at the gateway's address. When this attempt to connect began: by then no gateway had begun to
    /// count the node's silence.
    Refused(Now),
    /// The gateway doesn't want this node, and asking again won't change that; somebody may.
    Never(ApiError),
}

/// A session.
pub(super) struct Up {
    /// Monotonic time at which hello was sent.
    pub(super) hello_ms: u64,
    /// See [`ToNode::Welcome`].
    pub(super) heartbeat: Span,
    /// See [`ToNode::Welcome`].
    pub(super) fence: Span,
    /// See [`ToNode::Welcome`].
    pub(super) alone: bool,
    /// What the agent says.
    pub(super) frames: mpsc::Sender<FromNode>,
    /// What commands say; goes out when the agent has nothing to say.
    pub(super) exec_frames: mpsc::Sender<FromNode>,
    /// Ends the session.
    pub(super) close: CancellationToken,
}

/// Why a session ended or never began.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the node's certificate can't be used or renewed: {0}")]
    Papers(ApiError),
    #[error("the connection broke")]
    Broken(#[source] Box<tungstenite::Error>),
    #[error("the gateway answered with status {0}")]
    Status(u16),
    #[error("the gateway refused: {0}")]
    Refused(ApiError),
    #[error("the gateway sent what can't be understood: {0}")]
    Garbage(String),
    #[error("the gateway didn't answer in time")]
    Silent,
    #[error("the gateway closed the session")]
    Closed,
    #[error("the agent closed the session")]
    Given,
}

impl From<tungstenite::Error> for LinkError {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => refusal(&answer),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            error => Self::Broken(Box::new(error)),
        }
    }
}

/// What an HTTP answer to the request for a session means.
fn refusal(answer: &Response<Option<Vec<u8>>>) -> LinkError {
    let body = answer.body().as_deref().unwrap_or_default();
    if let Ok(ErrorBody { error }) = serde_json::from_slice(body) {
        return LinkError::Refused(error);
    }
    let said = |code, message: &str| LinkError::Refused(ApiError::new(code, message));
    match answer.status().as_u16() {
        401 => said(
            ErrorCode::AuthFailed,
            "the gateway doesn't accept this node's credential",
        ),
        403 => said(ErrorCode::PermissionDenied, "the gateway doesn't let this node in"),
        other => LinkError::Status(other),
    }
}

/// Keeps a session up until the agent goes. Where the gateway says never it is asked again now and then: that is for the
/// agent to end.
pub(super) async fn keep(gateway: Address, identity: Identity, data: PathBuf, to: mpsc::Sender<FromLink>) {
    let mut back_off = BACK_OFF_MIN;
    let mut papers = Papers::new(gateway.clone(), identity.clone(), data);
    loop {
        let (begun, at) = (Instant::now(), clock::now());
        let error = match session(&gateway, &identity, &mut papers, &to).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        match error {
            // The gateway's clock counts, or its memory: with a new certificate it may be another matter.
            LinkError::Refused(error)
                if matches!(
                    error.reason,
                    Some(Reason::CertificateMissing | Reason::CertificateExpired | Reason::CertificateRevoked)
                ) =>
            {
                tracing::warn!(%gateway, %error, "the node's certificate isn't accepted; asking for another one");
                papers.renew_at_once();
            }
            LinkError::Refused(error)
                if matches!(
                    error.code,
                    ErrorCode::AuthFailed | ErrorCode::PermissionDenied | ErrorCode::InvalidArgument
                ) =>
            {
                drop(to.send(FromLink::Never(error)).await);
                sleep(jittered(NEVER_PAUSE)).await;
            }
            LinkError::Channel(error) if error.refused() => {
                drop(to.send(FromLink::Refused(at)).await);
                tracing::debug!(%gateway, "nothing listens at the gateway's address");
            }
            LinkError::Given => tracing::info!(%gateway, "session closed"),
            error => tracing::warn!(%gateway, %error, cause, "session with the gateway ended"),
        }
        if to.is_closed() {
            return;
        }
        if begun.elapsed() >= GOOD_SESSION {
            back_off = BACK_OFF_MIN;
        }
        sleep(jittered(back_off)).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// Between half and all of it, so that a fleet doesn't come back all at once.
fn jittered(span: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    span / 2 + span / 2 * u32::try_from(random).unwrap_or(0) / 1000
}

type Socket = WebSocketStream<Stream>;

/// A whole session, from connecting to its end.
async fn session(
    gateway: &Address,
    identity: &Identity,
    papers: &mut Papers,
    to: &mpsc::Sender<FromLink>,
) -> Result<std::convert::Infallible, LinkError> {
    let config = papers.in_order().await.map_err(refused_or(LinkError::Papers))?;
    let mut socket = timeout(PATIENCE, connect(gateway, identity, config.as_ref()))
        .await
        .map_err(|_| LinkError::Silent)??;
    let (answer, hello) = oneshot::channel();
    to.send(FromLink::Hello(answer)).await.map_err(|_| LinkError::Given)?;
    let hello = hello.await.map_err(|_| LinkError::Given)?;
    let hello_ms = clock::now().mono_ms;
    socket.send(Message::text(encode(&hello))).await?;
    let (heartbeat, fence, alone) = match timeout(PATIENCE, receive(&mut socket)).await {
        Ok(answer) => welcome(answer?)?,
        Err(_) => return Err(LinkError::Silent),
    };
    tracing::info!(%gateway, node = %identity.name, "session with the gateway");

    let (sink, mut stream) = socket.split();
    let (frames, queue) = mpsc::channel(FRAMES);
    let (exec_frames, exec_queue) = mpsc::channel(EXEC_FRAMES);
    let close = CancellationToken::new();
    let up = Up {
        hello_ms,
        heartbeat,
        fence,
        alone,
        frames,
        exec_frames,
        close: close.clone(),
    };
    to.send(FromLink::Up(Box::new(up)))
        .await
        .map_err(|_| LinkError::Given)?;
    let read = async {
        loop {
            let message = receive(&mut stream).await?;
            to.send(FromLink::Message(message))
                .await
                .map_err(|_| LinkError::Given)?;
        }
    };
    let ended: Result<std::convert::Infallible, LinkError> = tokio::select! {
        ended = read => ended,
        ended = write(sink, queue, exec_queue) => Err(ended.err().unwrap_or(LinkError::Given)),
        () = close.cancelled() => Err(LinkError::Given),
        // The session goes on with the old one; the next begins with the new one.
        never = papers.keep_in_order() => match never {},
    };
    to.send(FromLink::Down).await.map_err(|_| LinkError::Given)?;
    ended
}

/// What asking for a certificate came to: a gateway that says no says it to the session, too.
fn refused_or(other: fn(ApiError) -> LinkError) -> impl Fn(ApiError) -> LinkError {
    move |error| match error.code {
        ErrorCode::AuthFailed | ErrorCode::PermissionDenied => LinkError::Refused(error),
        _ => other(error),
    }
}

async fn connect(
    gateway: &Address,
    identity: &Identity,
    config: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Socket, LinkError> {
    let stream = channel::connect(gateway, config).await?;
    let mut request = format!("{gateway}/api/v1/node/session").into_client_request()?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", identity.credential))
        .map_err(|_| LinkError::Refused(ApiError::new(ErrorCode::AuthFailed, "the node's credential is damaged")))?;
    request.headers_mut().insert(AUTHORIZATION, bearer);
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_MAX_BYTES))
        .max_frame_size(Some(FRAME_MAX_BYTES))
        .read_buffer_size(READ_BYTES);
    let (socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    Ok(socket)
}

fn encode(frame: &FromNode) -> String {
    // These types hold nothing that JSON can't.
    serde_json::to_string(frame).unwrap_or_else(|error| unreachable!("a frame can't be written: {error}"))
}

/// The next message of the gateway.
async fn receive(
    stream: &mut (impl futures_util::Stream<Item = Result<Message, tungstenite::Error>> + Unpin),
) -> Result<ToNode, LinkError> {
    loop {
        match stream.next().await {
            None => return Err(LinkError::Closed),
            Some(Ok(Message::Text(text))) => {
                return serde_json::from_str(&text).map_err(|error| LinkError::Garbage(error.to_string()));
            }
            Some(Ok(Message::Binary(_))) => return Err(LinkError::Garbage("a binary frame".to_owned())),
            Some(Ok(Message::Close(_))) => return Err(LinkError::Closed),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// What the first message must be.
fn welcome(message: ToNode) -> Result<(Span, Span, bool), LinkError> {
    match message {
        ToNode::Welcome {
            protocol,
            heartbeat,
            fence,
            alone,
            ..
        } if protocol == PROTOCOL => Ok((heartbeat, fence, alone)),
        ToNode::Welcome { protocol, .. } => {
            let message = format!("the gateway speaks protocol {protocol}, this agent {PROTOCOL}");
            let error = ApiError::invalid("protocol", message).hint("run the same version of both");
            Err(LinkError::Refused(error))
        }
        ToNode::Refused { error } => Err(LinkError::Refused(error)),
        _ => Err(LinkError::Garbage("something else than a welcome".to_owned())),
    }
}

/// Writes what there is to say, the agent's own words first, until the agent closes its end.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut frames: mpsc::Receiver<FromNode>,
    mut exec_frames: mpsc::Receiver<FromNode>,
) -> Result<(), LinkError> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => frame,
            Some(frame) = exec_frames.recv() => Some(frame),
        };
        let Some(frame) = frame else { break };
        let text = encode(&frame);
        if text.len() > FRAME_MAX_BYTES {
            tracing::error!(
                bytes = text.len(),
                "a frame is longer than the protocol allows and isn't sent"
            );
            continue;
        }
        sink.feed(Message::text(text)).await?;
        if frames.is_empty() && exec_frames.is_empty() {
            sink.flush().await?;
        }
    }
    sink.close().await?;
    Ok(())
}
