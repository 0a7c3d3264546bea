//! Streams: many items over one WebSocket, taken up again where they broke off.

use std::{collections::BTreeMap, io::Write, sync::atomic::Ordering, time::Duration};

use api::{
    ApiError, ErrorCode,
    op::{DeployWatch, EventWatch, Frame, Streaming, WorkloadLogs, WorkloadWatch, path},
};
use futures_util::{SinkExt, StreamExt};
use hyper::{StatusCode, header};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{CONNECT_TIMEOUT, Client, USER_AGENT, channel};

/// How long a stream that broke off is tried to be taken up again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// After this long without a frame the gateway is asked for a sign of life; after twice as long the connection counts
/// as broken.
const QUIET: Duration = Duration::from_secs(20);

/// A WebSocket to the gateway.
pub(super) type Socket = WebSocketStream<channel::Stream>;

/// A stream that can go on after the last item that arrived.
pub(crate) trait Resumable: Streaming {
    /// What must be remembered to know an item that came before.
    type Seen: Default;

    /// Takes note of an item, so that the request, made again, goes on after it. False: it came before.
    fn note(request: &mut Self::Request, seen: &mut Self::Seen, item: &Self::Item) -> bool;

    /// Whether an end can be the end after these items, and isn't that of a gateway that is shutting down.
    fn complete(seen: &Self::Seen) -> bool;
}

impl Resumable for WorkloadLogs {
    /// The last line of each member of each attempt.
    type Seen = BTreeMap<(u32, u32), u64>;

    /// Only some entries carry a cursor: a stream that is taken up again begins with lines that came before.
    fn note(request: &mut Self::Request, seen: &mut Self::Seen, item: &Self::Item) -> bool {
        // Without a cursor yet, the stream can only be read from its beginning again: from the attempt it began with.
        let first = seen.keys().next().map_or(item.attempt, |(attempt, _)| *attempt);
        let last = seen.entry((item.attempt, item.rank)).or_default();
        let new = item.number > *last && item.attempt >= first;
        *last = item.number.max(*last);
        request.tail = None;
        if !item.cursor.is_empty() {
            request.cursor = Some(item.cursor.clone());
            request.since = None;
        }
        new
    }

    fn complete(_: &Self::Seen) -> bool {
        true
    }
}

impl Resumable for EventWatch {
    type Seen = ();

    fn note(request: &mut Self::Request, (): &mut (), item: &Self::Item) -> bool {
        request.after = Some(item.id.clone());
        request.since = None;
        request.limit = None;
        true
    }

    /// Something will always happen.
    fn complete((): &()) -> bool {
        false
    }
}

impl Resumable for WorkloadWatch {
    /// Whether the workload has ended.
    type Seen = bool;

    /// Each item is the whole state: there is nothing to go on after.
    fn note(_: &mut Self::Request, seen: &mut bool, item: &Self::Item) -> bool {
        *seen = item.workload.phase.ended();
        true
    }

    fn complete(seen: &bool) -> bool {
        *seen
    }
}

impl Resumable for DeployWatch {
    /// Whether the deployment has ended.
    type Seen = bool;

    /// Each item is the whole state: there is nothing to go on after.
    fn note(_: &mut Self::Request, seen: &mut bool, item: &Self::Item) -> bool {
        *seen = item.summary.phase.ended();
        true
    }

    fn complete(seen: &bool) -> bool {
        *seen
    }
}

/// A stream of items.
pub(crate) struct Stream<'c, S: Resumable> {
    client: &'c Client,
    request: S::Request,
    seen: S::Seen,
    socket: Option<Socket>,
}

impl Client {
    /// Begins a stream. A gateway that has answered this client before, and is away just now, is waited for.
    ///
    /// # Errors
    /// That the gateway can't be reached, or refuses.
    pub(crate) async fn stream<S: Resumable>(&self, request: S::Request) -> Result<Stream<'_, S>, ApiError> {
        let socket = match self.open::<S>(&request).await {
            Ok(socket) => Some(socket),
            Err(error) if temporary(&error) && self.answered.load(Ordering::Relaxed) => None,
            Err(error) => return Err(error),
        };
        Ok(Stream {
            client: self,
            request,
            seen: S::Seen::default(),
            socket,
        })
    }

    /// A stream that goes on after an answer which the gateway has given already: should it have gone away meanwhile,
    /// it is waited for.
    pub(crate) fn go_on<S: Resumable>(&self, request: S::Request) -> Stream<'_, S> {
        Stream {
            client: self,
            request,
            seen: S::Seen::default(),
            socket: None,
        }
    }

    async fn open<S: Streaming>(&self, request: &S::Request) -> Result<Socket, ApiError> {
        let first = serde_json::to_string(request)
            .map_err(|error| ApiError::internal("the request can't be written").cause(error.to_string()))?;
        let mut socket = self.upgrade(&path(S::NAME)).await?;
        socket
            .send(Message::text(first))
            .await
            .map_err(|error| self.unreachable(&error.to_string()))?;
        Ok(socket)
    }

    /// Opens a WebSocket at this path.
    pub(super) async fn upgrade(&self, path: &str) -> Result<Socket, ApiError> {
        let socket = self.connect().await?;
        let mut request = format!("{}{path}", self.endpoint)
            .into_client_request()
            .map_err(|error| ApiError::internal("the request can't be made").cause(error.to_string()))?;
        request
            .headers_mut()
            .insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        if let Some(token) = self.bearer()? {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        match timeout(CONNECT_TIMEOUT * 2, client_async(request, socket)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(tungstenite::Error::Http(answer))) => {
                let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
                Err(self.refusal(status, answer.body().as_deref().unwrap_or_default()))
            }
            Ok(Err(error)) => Err(self.unreachable(&error.to_string())),
            Err(_) => Err(self.unreachable("the connection can't be set up in time")),
        }
    }
}

impl<S: Resumable> Stream<'_, S> {
    /// The next item; `None` at the end. A connection that breaks is made again, and the stream goes on after the last
    /// item.
    ///
    /// # Errors
    /// The stream's own, or that the gateway stayed away.
    pub(crate) async fn next(&mut self) -> Result<Option<S::Item>, ApiError> {
        let mut lost_at: Option<Instant> = None;
        let mut pause = Duration::from_millis(50);
        loop {
            let Some(socket) = self.socket.as_mut() else {
                let since = *lost_at.get_or_insert_with(Instant::now);
                match self.client.open::<S>(&self.request).await {
                    Ok(socket) => self.socket = Some(socket),
                    Err(error) if temporary(&error) && since.elapsed() < PATIENCE => {
                        if pause >= Duration::from_secs(1) && pause < PAUSE_MAX {
                            note(&format!(
                                "the connection to the gateway at {} broke; trying again for {} s",
                                self.client.endpoint,
                                PATIENCE.as_secs()
                            ));
                        }
                        sleep(pause).await;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            match receive(socket).await {
                Some(text) => match serde_json::from_str::<Frame<S::Item>>(&text) {
                    Ok(Frame::Item(item)) => {
                        if S::note(&mut self.request, &mut self.seen, &item) {
                            return Ok(Some(item));
                        }
                    }
                    Ok(Frame::End) if S::complete(&self.seen) => return Ok(None),
                    Ok(Frame::End) => {
                        self.socket = None;
                        sleep(pause).await;
                    }
                    Ok(Frame::Error(error)) if temporary(&error) => self.socket = None,
                    Ok(Frame::Error(error)) => return Err(error),
                    Err(error) => return Err(self.client.foreign(&error.to_string())),
                },
                None => {
                    self.socket = None;
                    lost_at.get_or_insert_with(Instant::now);
                    // A gateway that accepts and drops connections at once isn't hammered.
                    sleep(pause).await;
                }
            }
        }
    }
}

/// The next text frame. `None`: the connection broke, or was closed without an end.
pub(super) async fn receive(socket: &mut Socket) -> Option<String> {
    let mut asked = false;
    loop {
        match timeout(QUIET, socket.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => return Some(text.as_str().to_owned()),
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return None,
            Ok(Some(Ok(_))) => asked = false,
            Err(_) if asked => return None,
            Err(_) => {
                asked = true;
                socket.send(Message::Ping(bytes::Bytes::new())).await.ok()?;
            }
        }
    }
}

/// Whether the gateway may be back in a moment.
fn temporary(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::ConnectionRefused | ErrorCode::TimedOut)
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use api::{
        op::{LogEntry, LogsRequest},
        workload::LogSource,
    };

    use super::*;

    fn line(attempt: u32, rank: u32, number: u64, cursor: &str) -> LogEntry {
        LogEntry {
            at: api::Timestamp::UNIX_EPOCH,
            source: LogSource::Stdout,
            attempt,
            rank,
            number,
            text: String::new(),
            partial: false,
            gap: false,
            level: None,
            context: false,
            apart: false,
            cursor: cursor.to_owned(),
        }
    }

    #[test]
    fn lines_that_come_again_are_known() {
        let mut request = LogsRequest {
            tail: Some(3),
            ..LogsRequest::default()
        };
        let mut seen = BTreeMap::new();
        let mut note = |line: LogEntry| WorkloadLogs::note(&mut request, &mut seen, &line);
        assert!(note(line(2, 0, 7, "")));
        assert!(note(line(2, 1, 3, "")));
        assert!(note(line(2, 0, 8, "c8")));
        // The stream is taken up again.
        assert!(
            !note(line(1, 0, 1, "")),
            "an attempt before the first that was asked for"
        );
        assert!(!note(line(2, 0, 8, "")));
        assert!(!note(line(2, 1, 3, "")));
        assert!(note(line(2, 1, 4, "")));
        assert!(note(line(3, 0, 1, "c9")));
        assert_eq!((request.tail, request.cursor.as_deref()), (None, Some("c9")));
    }
}
