//! The store's own threads: one syncs the log, one turns the head into files and looks after those.
//!
//! Whatever changes files is one transaction of the catalogue: new files are written and synced before it, old
//! ones deleted after it. A file that the catalogue doesn't name is deleted when the store is opened.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::catalog::{self, Catalog, Change, row_of};
use super::head::Frozen;
use super::plan::{self, Kind, Merge, Meta};
use super::segment::Segment;
use super::segment_writer::{Column, SegmentWriter};
use super::store::{Hot, Shared};
use super::types::millis;
use super::{MetricError, merge};

/// The promise: no more than this goes with a crash.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Log that is written before its second is over.
const SYNC_BYTES: usize = 1 << 20;
/// How often ages and sizes are looked at without a cause.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// Series merged between two looks at the head.
const PAUSE_SERIES: u32 = 1024;

/// What whoever changes files holds.
pub(super) struct Work {
    next_file: u64,
    /// Of the frozen head: rows of the catalogue to write, newest samples by series, and the log after it.
    flush: Option<Flush>,
    /// Windows that could not be merged because a file is damaged: left as they are.
    stuck: HashSet<(Kind, i64)>,
    checked: Option<Instant>,
}

struct Flush {
    frozen: Arc<Frozen>,
    dirty: BTreeSet<u32>,
    lasts: Vec<i64>,
    wal_from: u64,
}

impl Work {
    pub(super) fn new(next_file: u64) -> Self {
        Self {
            next_file,
            flush: None,
            stuck: HashSet::new(),
            checked: None,
        }
    }

    fn new_file(&mut self, dir: &Path) -> (u64, PathBuf) {
        let file = self.next_file;
        self.next_file += 1;
        (file, path_of(dir, file))
    }
}

fn path_of(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file}.seg"))
}

/// Opens the files that the catalogue names and deletes all others; counts those that could not be read.
pub(super) fn open_files(
    dir: &Path,
    catalog: &Catalog,
    metas: Vec<Meta>,
) -> Result<(Vec<Arc<Segment>>, u64), MetricError> {
    let mut segments = Vec::new();
    let mut lost = Change::default();
    let mut names = HashSet::new();
    for meta in metas {
        let (file, path) = (meta.file, path_of(dir, meta.file));
        names.insert(path.clone());
        match Segment::open(path.clone(), meta) {
            Ok(segment) => segments.push(Arc::new(segment)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "metric file is set aside");
                lost.remove.push(file);
                // Gone already, perhaps: then there is nothing to set aside.
                let _ = std::fs::rename(&path, path.with_extension("damaged"));
            }
        }
    }
    if !lost.remove.is_empty() {
        catalog.commit(&lost)?;
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") && !names.contains(&path) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok((segments, lost.remove.len() as u64))
}

/// The syncer's life.
pub(super) fn sync(shared: &Shared) {
    loop {
        let stopping = {
            let idle = |hot: &mut Hot| !hot.stopping && hot.pending_bytes() < SYNC_BYTES;
            let waited = shared.syncs.wait_timeout_while(shared.hot(), SYNC_EVERY, idle);
            waited.unwrap_or_else(PoisonError::into_inner).0.stopping
        };
        if let Err(error) = sync_wal(shared) {
            tracing::warn!(%error, "metric log could not be written yet");
            std::thread::sleep(Duration::from_millis(200));
        }
        if stopping {
            return;
        }
    }
}

/// Writes and syncs the log as it is now.
pub(super) fn sync_wal(shared: &Shared) -> Result<(), MetricError> {
    let mut wal = shared.wal.lock().unwrap_or_else(PoisonError::into_inner);
    let mut taken = std::mem::take(&mut shared.hot().pending).into_iter();
    let mut outcome = Ok(());
    while let Some((number, records)) = taken.next() {
        outcome = wal.write(number, &records);
        if outcome.is_err() {
            let mut hot = shared.hot();
            let newer = std::mem::take(&mut hot.pending);
            hot.pending = std::iter::once((number, records)).chain(taken).chain(newer).collect();
            break;
        }
    }
    shared
        .wal_bytes
        .store(wal.bytes(), std::sync::atomic::Ordering::Relaxed);
    let mut hot = shared.hot();
    hot.wal_failing = outcome.as_ref().err().map(ToString::to_string);
    shared.drained.notify_all();
    outcome
}

/// The keeper's life.
pub(super) fn keep(shared: &Shared) {
    loop {
        {
            let idle = |hot: &mut Hot| !hot.stopping && !is_due(shared, hot);
            let waited = shared.chores.wait_timeout_while(shared.hot(), SYNC_EVERY, idle);
            if waited.unwrap_or_else(PoisonError::into_inner).0.stopping {
                return;
            }
        }
        let mut work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = look_after(shared, &mut work, false);
        note(shared, &outcome);
        if let Err(error) = outcome {
            tracing::warn!(%error, "metric files could not be looked after yet");
            drop(work);
            std::thread::sleep(SYNC_EVERY);
        }
    }
}

fn note(shared: &Shared, outcome: &Result<(), MetricError>) {
    shared.hot().work_failing = outcome.as_ref().err().map(ToString::to_string);
    shared.drained.notify_all();
}

/// All that is due, at once.
pub(super) fn settle(shared: &Shared) -> Result<(), MetricError> {
    sync_wal(shared)?;
    let mut work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = look_after(shared, &mut work, true);
    note(shared, &outcome);
    outcome
}

/// Writes everything out, for the end.
pub(super) fn flush_all(shared: &Shared) -> Result<(), MetricError> {
    sync_wal(shared)?;
    let mut work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
    if work.flush.is_some() {
        // One that failed before.
        flush(shared, &mut work)?;
    }
    flush(shared, &mut work).map(|_| ())
}

fn is_due(shared: &Shared, hot: &Hot) -> bool {
    let aged = hot
        .head_since
        .is_some_and(|since| since.elapsed() >= shared.options.head_age);
    hot.frozen.is_some() || aged || hot.head.bytes >= hot.head_limit(&shared.options)
}

fn look_after(shared: &Shared, work: &mut Work, all: bool) -> Result<(), MetricError> {
    let mut flushed = work.flush.is_some() && flush(shared, work)?;
    if all || is_due(shared, &shared.hot()) {
        flushed |= flush(shared, work)?;
    }
    let due = work.checked.is_none_or(|checked| checked.elapsed() >= CHECK_EVERY);
    if !(flushed || all || due) {
        return Ok(());
    }
    work.checked = Some(Instant::now());
    loop {
        let (metas, newest_ms) = {
            let hot = shared.hot();
            (metas(&hot), hot.newest_ms)
        };
        let urgent_ms = raw_before_ms(shared);
        let open: Vec<Meta> = metas
            .into_iter()
            .filter(|meta| !work.stuck.contains(&(meta.kind, meta.window_ms)))
            .collect();
        let Some(due) = plan::next_merge(&open, newest_ms, urgent_ms) else {
            break;
        };
        match merge_files(shared, work, &due) {
            Err(error @ MetricError::Corrupt(_)) => {
                tracing::error!(%error, window_ms = due.window_ms, "metric files are not merged");
                work.stuck.insert((due.kind, due.window_ms));
            }
            outcome => outcome?,
        }
        if shared.hot().stopping {
            return Ok(());
        }
    }
    retain(shared, work)
}

fn metas(hot: &Hot) -> Vec<Meta> {
    hot.segments.iter().map(|segment| segment.meta.clone()).collect()
}

fn raw_before_ms(shared: &Shared) -> i64 {
    (shared.options.clock)().saturating_sub(millis(shared.options.raw_keep))
}

/// Writes the head into files, one for each hour that it touches; `false` when there was nothing to write.
fn flush(shared: &Shared, work: &mut Work) -> Result<bool, MetricError> {
    let newest_ms = {
        let mut hot = shared.hot();
        if work.flush.is_none() {
            if hot.head.is_empty() && hot.dirty.is_empty() {
                return Ok(false);
            }
            let Hot { states, head, .. } = &mut *hot;
            let frozen = Arc::new(head.freeze(states));
            hot.frozen = Some(Arc::clone(&frozen));
            hot.head_since = None;
            hot.wal_number += 1;
            work.flush = Some(Flush {
                frozen,
                dirty: std::mem::take(&mut hot.dirty),
                lasts: hot.states.iter().map(|state| state.last_ms).collect(),
                wal_from: hot.wal_number,
            });
        }
        hot.newest_ms
    };
    let Some(flush) = work.flush.take() else {
        return Ok(false);
    };
    let written = write_frozen(shared, work, &flush, newest_ms);
    if written.is_err() {
        work.flush = Some(flush);
        return written.map(|()| false);
    }
    let wal_from = flush.wal_from;
    drop(flush);
    let mut wal = shared.wal.lock().unwrap_or_else(PoisonError::into_inner);
    wal.delete_before(wal_from)?;
    shared
        .wal_bytes
        .store(wal.bytes(), std::sync::atomic::Ordering::Relaxed);
    Ok(true)
}

fn write_frozen(shared: &Shared, work: &mut Work, flush: &Flush, newest_ms: i64) -> Result<(), MetricError> {
    let frozen = &flush.frozen;
    let mut added = Vec::new();
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for window_ms in frozen.windows(|at_ms| Kind::Raw.window_of(at_ms)) {
        let (file, path) = work.new_file(&shared.dir);
        let mut writer = SegmentWriter::create(&path, Kind::Raw)?;
        for series in frozen.series() {
            times.clear();
            values.clear();
            frozen.gather(
                series,
                window_ms,
                window_ms + Kind::Raw.window_ms() - 1,
                &mut times,
                &mut values,
            );
            if !times.is_empty() {
                writer.push(series, &times, &[Column::Values(&values)])?;
            }
        }
        let meta = writer.finish()?.map(|meta| Meta {
            file,
            order: file,
            window_ms,
            newest_ms,
            ..meta
        });
        added.extend(meta.map(|meta| Segment::open(path, meta)).transpose()?);
    }
    let mut rows: BTreeSet<u32> = frozen.series().map(row_of).collect();
    let mut change = Change {
        wal_from: Some(flush.wal_from),
        lasts: rows
            .iter()
            .map(|&row| (row, catalog::lasts_row(row, &flush.lasts)))
            .collect(),
        ..Change::default()
    };
    rows.clone_from(&flush.dirty);
    {
        let index = shared.index();
        for row in rows {
            change.series.push((row, catalog::series_row(row, &index)?));
        }
    }
    publish(shared, work, change, added, true)
}

/// Makes a change durable, then visible.
fn publish(
    shared: &Shared,
    work: &Work,
    mut change: Change,
    added: Vec<Segment>,
    flushed: bool,
) -> Result<(), MetricError> {
    if !added.is_empty() {
        File::open(&shared.dir)?.sync_all()?;
    }
    change.next_file = Some(work.next_file);
    change.add = added.iter().map(|segment| segment.meta.clone()).collect();
    shared.catalog.commit(&change)?;
    let removed: HashSet<u64> = change.remove.iter().copied().collect();
    let mut hot = shared.hot();
    let (gone, mut kept): (Vec<Arc<Segment>>, Vec<Arc<Segment>>) = hot
        .segments
        .iter()
        .cloned()
        .partition(|segment| removed.contains(&segment.meta.file));
    kept.extend(added.into_iter().map(Arc::new));
    let before = std::mem::replace(&mut hot.segments, Arc::new(kept));
    let frozen = if flushed { hot.frozen.take() } else { None };
    shared.drained.notify_all();
    drop(hot);
    for segment in &gone {
        segment.doom();
    }
    drop((before, frozen, gone));
    Ok(())
}

fn merge_files(shared: &Shared, work: &mut Work, due: &Merge) -> Result<(), MetricError> {
    let (segments, newest_ms): (Vec<Arc<Segment>>, i64) = {
        let hot = shared.hot();
        let of = |file: &u64| hot.segments.iter().find(|segment| segment.meta.file == *file).cloned();
        (due.inputs.iter().filter_map(of).collect(), hot.newest_ms)
    };
    let inputs: Vec<&Segment> = segments.iter().map(Arc::as_ref).collect();
    let order = inputs.iter().map(|input| input.meta.order).max().unwrap_or(0);
    let (file, path) = work.new_file(&shared.dir);
    let mut merged = SegmentWriter::create(&path, due.kind)?;
    let mut passed = 0;
    // The head doesn't wait for a merge: it is written in between.
    let mut between = |work: &mut Work| {
        passed += 1;
        if passed % PAUSE_SERIES == 0
            && is_due(shared, &shared.hot())
            && let Err(error) = flush(shared, work)
        {
            tracing::warn!(%error, "metrics could not be written into files yet");
        }
    };
    let mut added = Vec::new();
    let mut change = Change::default();
    if due.kind == Kind::Raw {
        let (rollup_file, rollup_path) = work.new_file(&shared.dir);
        let mut rollups = SegmentWriter::create(&rollup_path, Kind::Rollup)?;
        merge::raw(&inputs, &mut merged, &mut rollups, || between(work))?;
        let meta = rollups.finish()?.map(|meta| Meta {
            file: rollup_file,
            order: rollup_file,
            window_ms: Kind::Rollup.window_of(due.window_ms),
            newest_ms,
            ..meta
        });
        added.extend(meta.map(|meta| Segment::open(rollup_path, meta)).transpose()?);
        change.remove.extend(&due.replaced);
    } else {
        merge::rolled(&inputs, &mut merged, || between(work))?;
    }
    let meta = merged.finish()?.map(|meta| Meta {
        file,
        order,
        merged: true,
        window_ms: due.window_ms,
        newest_ms,
        ..meta
    });
    added.extend(meta.map(|meta| Segment::open(path, meta)).transpose()?);
    change.remove.extend(inputs.iter().map(|input| input.meta.file));
    drop(segments);
    publish(shared, work, change, added, false)
}

/// Drops what is too old or too much, then the series of which nothing is left.
fn retain(shared: &Shared, work: &mut Work) -> Result<(), MetricError> {
    let now_ms = (shared.options.clock)();
    let rollup_keep = shared.options.rollup_keep.max(shared.options.raw_keep);
    let rollup_before_ms = now_ms.saturating_sub(millis(rollup_keep));
    let wal_bytes = shared.wal_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let other = wal_bytes + shared.catalog.bytes();
    let room = shared.options.max_bytes.saturating_sub(other);
    let files = metas(&shared.hot());
    let gone = plan::expired(&files, raw_before_ms(shared), rollup_before_ms, room);
    if gone.is_empty() {
        return Ok(());
    }
    let change = Change {
        remove: gone,
        ..Change::default()
    };
    publish(shared, work, change, Vec::new(), false)?;
    forget(shared, work)
}

/// Forgets series whose samples are all gone.
fn forget(shared: &Shared, work: &Work) -> Result<(), MetricError> {
    let mut index = shared.index_mut();
    let mut hot: MutexGuard<'_, Hot> = shared.hot();
    if hot.frozen.is_some() {
        return Ok(());
    }
    let kept_from_ms = hot
        .segments
        .iter()
        .map(|segment| segment.meta.window_ms)
        .min()
        .unwrap_or(i64::MAX);
    let is_gone = |series: &u32| {
        let state = &hot.states[*series as usize];
        state.is_idle() && state.last_ms != i64::MIN && state.last_ms < kept_from_ms
    };
    let gone: Vec<u32> = (0..hot.states.len() as u32).filter(is_gone).collect();
    if gone.is_empty() {
        return Ok(());
    }
    index.remove(&gone);
    for &series in &gone {
        let state = &mut hot.states[series as usize];
        *state = super::head::State::new(state.generation.wrapping_add(1));
    }
    drop(hot);
    let rows: BTreeSet<u32> = gone.iter().map(|&series| row_of(series)).collect();
    let mut change = Change::default();
    for row in rows {
        change.series.push((row, catalog::series_row(row, &index)?));
    }
    // Their newest samples stay in the catalogue: older than all that is kept, they do no harm. Nobody finds the series by now; should this fail, they are found unused when the store is opened next.
    drop(index);
    change.next_file = Some(work.next_file);
    shared.catalog.commit(&change)
}
