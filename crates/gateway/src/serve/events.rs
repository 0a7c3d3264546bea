//! Events: kept in the store by time, numbered by the revision that brought them.

use std::collections::VecDeque;

use api::{ApiError, event::Event, op::EventFilter};
use futures_util::Stream;
use store::{Order, Range, Record, Revision, StoreError};

use super::face::Call;
use crate::{auth, hub::store_error, keys};

/// Events of a list where no limit is given, and at most.
const DEFAULT_LIMIT: u32 = 1_000;
const LIMIT_MAX: u32 = 100_000;

/// An event's id: the revision of its commit and its place in it.
fn id(revision: Revision, place: usize) -> String {
    format!("{}-{place}", revision.0)
}

/// The revision and place that an id names.
fn parse_id(text: &str) -> Result<(u64, usize), ApiError> {
    let parsed = text
        .split_once('-')
        .and_then(|(revision, place)| Some((revision.parse().ok()?, place.parse().ok()?)));
    parsed.ok_or_else(|| ApiError::invalid("after", format!("'{text}' is no id of an event")))
}

/// The last number of an event's key is its place in its commit.
fn place(record: &Record) -> usize {
    record.key.rsplit('-').next().and_then(|p| p.parse().ok()).unwrap_or(0)
}

fn read(record: &Record) -> Option<Event> {
    let mut event: Event = serde_json::from_slice(&record.value).ok()?;
    event.id = id(record.modified, place(record));
    Some(event)
}

/// A filter whose names have been looked up.
struct Wanted {
    filter: EventFilter,
    subject: Option<String>,
    /// The only namespace that is there for whoever asks. `None`: all are.
    only: Option<String>,
}

impl Wanted {
    fn new(call: &Call, filter: EventFilter) -> Self {
        let view = call.app.hub.view();
        let subject = filter.subject.as_ref().map(|text| {
            let workload = auth::within(&call.identity, None)
                .and_then(|within| view.find_workload(text, within))
                .map(|w| w.id.to_string());
            workload
                .or_else(|_| view.find_node(text).map(|n| n.name.to_string()))
                .unwrap_or_else(|_| text.clone())
        });
        Self {
            filter,
            subject,
            only: call.identity.namespace.clone(),
        }
    }

    fn fits(&self, event: &Event) -> bool {
        (self.only.is_none() || self.only == event.namespace)
            && self.filter.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.subject.as_ref().is_none_or(|subject| *subject == event.subject)
            && self
                .filter
                .node
                .as_ref()
                .is_none_or(|node| event.node.as_ref() == Some(node))
            && self.filter.since.is_none_or(|since| event.at >= since)
    }
}

/// `event.list`
pub async fn list(call: Call, filter: EventFilter) -> Result<Vec<Event>, ApiError> {
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT).min(LIMIT_MAX) as usize;
    let after = filter.after.as_deref().map(parse_id).transpose()?;
    let wanted = Wanted::new(&call, filter);
    let start = match wanted.filter.since {
        Some(since) => format!("{}{:016}", keys::EVENTS, since.as_microsecond().max(0)),
        None => keys::EVENTS.to_owned(),
    };
    let mut rest = Range::between(start, format!("{}~", keys::EVENTS));
    let mut found = VecDeque::new();
    loop {
        let page = call
            .app
            .hub
            .store()
            .range(rest.clone(), 1_000, Order::Descending)
            .await
            .map_err(|e| store_error(&e))?;
        for record in &page.records {
            let Some(event) = read(record) else { continue };
            let new = after.is_none_or(|after| (record.modified.0, place(record)) > after);
            if new && wanted.fits(&event) {
                found.push_front(event);
            }
            if found.len() >= limit {
                return Ok(found.into());
            }
        }
        match page.records.last() {
            Some(last) if page.more => rest = rest.before(&last.key),
            _ => return Ok(found.into()),
        }
    }
}

/// `event.watch`: what a list with the same filter shows, where it asks for the past, and then what comes.
pub fn watch(call: Call, filter: EventFilter) -> impl Stream<Item = Result<Event, ApiError>> + Send {
    let (send, receive) = tokio::sync::mpsc::channel(256);
    tokio::spawn(async move {
        if let Err(error) = follow(call, filter, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    tokio_stream(receive)
}

/// A channel as a stream.
pub fn tokio_stream<T: Send + 'static>(receive: tokio::sync::mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures_util::stream::unfold(receive, |mut receive| async move {
        receive.recv().await.map(|item| (item, receive))
    })
}

async fn follow(
    call: Call,
    filter: EventFilter,
    send: &tokio::sync::mpsc::Sender<Result<Event, ApiError>>,
) -> Result<(), ApiError> {
    let hub = std::sync::Arc::clone(&call.app.hub);
    let from = hub.view().revision();
    let mut watch = hub
        .store()
        .watch(Range::prefix(keys::EVENTS), from)
        .await
        .map_err(|e| store_error(&e))?;
    let wanted = Wanted::new(&call, filter.clone());
    if filter.after.is_some() || filter.since.is_some() || filter.limit.is_some() {
        for event in list(
            call,
            EventFilter {
                limit: filter.limit.or(Some(LIMIT_MAX)),
                ..filter
            },
        )
        .await?
        {
            // What was committed after the watch began comes by the watch.
            if parse_id(&event.id)?.0 <= from.0 && send.send(Ok(event)).await.is_err() {
                return Ok(());
            }
        }
    }
    loop {
        let batch = tokio::select! {
            batch = watch.next() => batch,
            () = send.closed() => return Ok(()),
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(StoreError::Closed) => return Ok(()),
            Err(StoreError::Compacted { .. }) => {
                return Err(
                    ApiError::conflict("this follower was too slow, and events were missed").hint("go on with --since")
                );
            }
            Err(error) => return Err(store_error(&error)),
        };
        for change in &batch.changes {
            if let store::Change::Put(record) = change
                && let Some(event) = read(record).filter(|e| wanted.fits(e))
                && send.send(Ok(event)).await.is_err()
            {
                return Ok(());
            }
        }
    }
}
