//! Streams about one workload: its output, and its state.

use std::sync::Arc;

use api::{
    ApiError, ErrorCode, Timestamp, WorkloadId,
    op::{LogEntry, LogsRequest, WorkloadDetail, WorkloadRef},
    workload::{LogLevel, LogSource},
};
use futures_util::Stream;
use telemetry::logs::{Cursor, Entry, Level, LogError, Page, Query, Role, Search, SearchError, Source};
use tokio::sync::{broadcast, mpsc};

use super::{events::tokio_stream, face::Call, workload_ops};
use crate::{auth, view::Touched};

/// Items that wait for a slow reader; after that the producer waits, and reads on from disk.
const AHEAD: usize = 1024;

/// `workload.logs`
pub fn logs(call: Call, request: LogsRequest) -> impl Stream<Item = Result<LogEntry, ApiError>> + Send {
    let (send, receive) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = send_logs(&call, request, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    tokio_stream(receive)
}

type Sender<T> = mpsc::Sender<Result<T, ApiError>>;

/// Longest context that may be asked for, in lines.
const CONTEXT_MAX: u32 = 1000;

fn stored_level(level: LogLevel) -> Level {
    match level {
        LogLevel::Trace => Level::Trace,
        LogLevel::Debug => Level::Debug,
        LogLevel::Info => Level::Info,
        LogLevel::Warn => Level::Warn,
        LogLevel::Error => Level::Error,
        LogLevel::Fatal => Level::Fatal,
    }
}

fn sent_level(level: Level) -> LogLevel {
    match level {
        Level::Trace => LogLevel::Trace,
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
        Level::Error => LogLevel::Error,
        Level::Fatal => LogLevel::Fatal,
    }
}

/// Points at the place where a pattern is wrong.
fn bad_search(pattern: &str, error: &SearchError) -> ApiError {
    let refused = ApiError::invalid(
        "search",
        format!("the search is no regular expression: {}", error.reason),
    );
    let hint = "put a backslash before a sign that means itself: \\( \\[ \\* \\+ \\?";
    let Some(at) = &error.at else {
        return refused;
    };
    // Control characters would move the mark.
    let shown: String = pattern
        .chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    let column = pattern.get(..at.start).unwrap_or(pattern).chars().count();
    let width = pattern.get(at.clone()).map_or(1, |part| part.chars().count().max(1));
    let mark = format!("{}{}", " ".repeat(column), "^".repeat(width));
    refused
        .cause(format!("at character {}\n    {shown}\n    {mark}", column + 1))
        .hint(hint)
}

async fn send_logs(call: &Call, request: LogsRequest, send: &Sender<LogEntry>) -> Result<(), ApiError> {
    let app = &call.app;
    let within = auth::within(&call.identity, request.namespace.as_deref())?;
    let id = app.hub.view().find_workload(&request.id, within)?.id.clone();
    if request.context > CONTEXT_MAX {
        return Err(ApiError::invalid(
            "context",
            format!("{} lines of context are more than {CONTEXT_MAX}", request.context),
        ));
    }
    let cursor = match &request.cursor {
        None => None,
        Some(text) => Some(text.parse::<Cursor>().map_err(|e| {
            ApiError::invalid("cursor", format!("'{}' is no cursor", text.escape_debug())).cause(e.to_string())
        })?),
    };
    let mut query = Query {
        cursor,
        tail: request.tail,
        since_ns: request
            .since
            .map(|t| i64::try_from(t.as_nanosecond()).unwrap_or(i64::MAX)),
        level: request.level.map(stored_level),
        search: match &request.search {
            Some(pattern) => Some(Search::new(pattern).map_err(|error| bad_search(pattern, &error))?),
            None => None,
        },
        context: request.context,
        // A cursor goes out with each page: pages are kept small, so that resuming repeats little.
        limit: 1_000,
        ..Query::default()
    };
    if !request.follow {
        return send_stored(call, &id, query, send).await;
    }
    // Changes are subscribed to before the state is read, so that none is missed in between.
    let mut changes = app.hub.changes();
    let mut follow = app.logs.follow(id.as_str(), query.clone());
    let mut finished = false;
    loop {
        let (ended, no_end) = match app.hub.view().workload(&id) {
            Some(w) => (
                w.phase.ended(),
                w.attempt == 0 || w.members.iter().all(without_last_line),
            ),
            None => (true, true),
        };
        if ended && finished {
            return Ok(());
        }
        if ended && no_end {
            query.tail = query.tail.filter(|_| query.cursor.is_none());
            return send_stored(call, &id, query, send).await;
        }
        tokio::select! {
            page = follow.next() => {
                let page = match page {
                    Ok(page) => page,
                    Err(LogError::WorkloadRemoved { .. } | LogError::Closed) => return Ok(()),
                    Err(error) => return Err(log_error(&error)),
                };
                finished = page.finished;
                query.cursor = Some(page.cursor.clone());
                if !send_page(page, send).await {
                    return Ok(());
                }
            }
            change = changes.recv() => match change {
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
            },
            () = send.closed() => return Ok(()),
        }
    }
}

/// Sends what is stored now.
async fn send_stored(call: &Call, id: &WorkloadId, mut query: Query, send: &Sender<LogEntry>) -> Result<(), ApiError> {
    loop {
        let (logs, workload, asked) = (Arc::clone(&call.app.logs), id.to_string(), query.clone());
        let page = tokio::task::spawn_blocking(move || logs.read(&workload, &asked)).await;
        let page = page
            .map_err(|_| ApiError::internal("reading the logs broke off"))?
            .map_err(|e| log_error(&e))?;
        let complete = page.complete;
        query.cursor = Some(page.cursor.clone());
        query.tail = None;
        // A long search sends nothing for a while: whether anyone waits for it is asked for.
        if !send_page(page, send).await || complete || send.is_closed() {
            return Ok(());
        }
    }
}

/// A member that never started, or whose end nobody saw, has no last line to wait for.
fn without_last_line(member: &api::workload::Member) -> bool {
    use api::workload::{MemberState, Outcome};
    matches!(
        &member.state,
        MemberState::Ended {
            outcome: Outcome::StartFailed { .. } | Outcome::Unknown { .. },
            ..
        }
    )
}

/// False: the reader has gone.
async fn send_page(page: Page, send: &Sender<LogEntry>) -> bool {
    // The cursor of a page stands behind its last entry. Entries before it carry none of their own: a reader that
    // resumes there gets the page's rest again, and knows doubles by their numbers.
    let cursor = page.cursor.to_string();
    let mut entries: Vec<LogEntry> = page.entries.into_iter().map(entry).collect();
    if let Some(last) = entries.last_mut() {
        last.cursor = cursor;
    }
    for entry in entries {
        if send.send(Ok(entry)).await.is_err() {
            return false;
        }
    }
    true
}

fn time(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn entry(entry: Entry) -> LogEntry {
    let missing = |attempt, rank, from: u64, to: u64, at_ns, why: &str| LogEntry {
        at: time(at_ns),
        source: LogSource::System,
        attempt,
        rank,
        number: from,
        text: if from == to {
            format!("[line {from} {why}]")
        } else {
            format!("[lines {from} to {to} {why}]")
        },
        partial: false,
        gap: true,
        level: None,
        context: false,
        apart: false,
        cursor: String::new(),
    };
    match entry {
        Entry::Line {
            attempt,
            rank,
            level,
            role,
            apart,
            line,
        } => LogEntry {
            at: time(line.at_ns),
            source: match line.source {
                Source::Stdout => LogSource::Stdout,
                Source::Stderr => LogSource::Stderr,
                Source::System => LogSource::System,
            },
            attempt,
            rank,
            number: line.number,
            text: String::from_utf8_lossy(&line.text).into_owned(),
            partial: line.partial,
            gap: false,
            level: level.map(sent_level),
            context: role == Role::Context,
            apart,
            cursor: String::new(),
        },
        Entry::Gap {
            attempt,
            rank,
            from,
            to,
            at_ns,
        } => missing(attempt, rank, from, to, at_ns, "never arrived"),
        Entry::Removed {
            attempt,
            rank,
            from,
            to,
        } => missing(attempt, rank, from, to, 0, "no longer kept"),
    }
}

fn log_error(error: &LogError) -> ApiError {
    match error {
        LogError::StorageFull { .. } => ApiError::new(ErrorCode::StorageFull, "the disk of the logs is full"),
        other => ApiError::internal("the logs can't be read").cause(other.to_string()),
    }
}

/// `workload.watch`
pub fn watch(call: Call, request: WorkloadRef) -> impl Stream<Item = Result<WorkloadDetail, ApiError>> + Send {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        if let Err(error) = send_states(&call, request, &send).await {
            let _ = send.send(Err(error)).await;
        }
    });
    tokio_stream(receive)
}

async fn send_states(call: &Call, request: WorkloadRef, send: &Sender<WorkloadDetail>) -> Result<(), ApiError> {
    let app = &call.app;
    let mut changes = app.hub.changes();
    let within = auth::within(&call.identity, request.namespace.as_deref())?;
    let found = app.hub.view().find_workload(&request.id, within)?.clone();
    let id = found.id.clone();
    let mut shown = None;
    loop {
        let Some(workload) = app.hub.view().workload(&id).cloned() else {
            return Ok(());
        };
        if shown != Some(workload.revision) {
            shown = Some(workload.revision);
            let ended = workload.phase.ended();
            let detail = workload_ops::detail(app, workload.value).await?;
            if send.send(Ok(detail)).await.is_err() || ended {
                return Ok(());
            }
        }
        let about = |touched: &Touched| matches!(touched, Touched::Workload(other, ..) if *other == id);
        if !until_touched(&mut changes, send, about).await {
            return Ok(());
        }
    }
}

/// Waits for a change of something that whoever reads follows, or for changes that were missed. False: the reader has gone,
/// or the gateway shuts down.
pub(super) async fn until_touched<T>(
    changes: &mut broadcast::Receiver<Arc<Vec<Touched>>>,
    reader: &mpsc::Sender<T>,
    about: impl Fn(&Touched) -> bool,
) -> bool {
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = reader.closed() => return false,
        };
        match change {
            Ok(touched) if touched.iter().any(&about) => return true,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return true,
            Err(broadcast::error::RecvError::Closed) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_search_is_pointed_at() {
        let told = |pattern: &str| bad_search(pattern, &Search::new(pattern).unwrap_err());
        let error = told("naïve (loss");
        assert_eq!(error.field.as_deref(), Some("search"));
        assert!(error.message.ends_with("unclosed group"), "{}", error.message);
        assert_eq!(
            error.cause.as_deref(),
            Some("at character 7\n    naïve (loss\n          ^")
        );
        assert_eq!(
            told("a\tb[z-a]").cause.as_deref(),
            Some("at character 5\n    a\u{fffd}b[z-a]\n        ^^^")
        );
        assert_eq!(told(&"a".repeat(5000)).cause, None);
    }
}
