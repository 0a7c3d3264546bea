//! The store: what callers see, and the state that its threads share.

use std::collections::{BTreeSet, HashMap};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::catalog::{Catalog, row_of};
use super::head::{Frozen, Head, State};
use super::index::{Index, normal};
use super::keeper::{self, Work};
use super::plan::Kind;
use super::query::{self, View};
use super::segment::Segment;
use super::types::millis;
use super::wal::{self, Record, Wal};
use super::{Aggregate, Appended, Matcher, MetricError, NAME_LABEL, Options, Sample, Series, SeriesId, Usage, Windows};

/// Memory granted to the head for each series, whatever `head_bytes` says: thirty samples, so that a file's
/// chunks are worth their headers.
const HEAD_BYTES_A_SERIES: usize = 240;
/// Unwritten log from which on callers wait.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// How long a caller waits for the disk before it is told so.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);

/// A store of time series in one folder.
///
/// All calls may be made from any thread at once, and block for as long as they work: an append some
/// microseconds, a query its time. Two threads of its own sync the log once a second, write the head into files,
/// merge, roll up and drop them. Dropping the store writes everything out.
pub struct MetricStore {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Locks are taken in this order: `work`, `wal`, `index`, `hot`.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) dir: PathBuf,
    pub(super) catalog: Catalog,
    /// Held by whoever changes files.
    pub(super) work: Mutex<Work>,
    pub(super) wal: Mutex<Wal>,
    pub(super) index: RwLock<Index>,
    pub(super) hot: Mutex<Hot>,
    /// With `hot`: something to do for the keeper, for the syncer; and room again for callers.
    pub(super) chores: Condvar,
    pub(super) syncs: Condvar,
    pub(super) drained: Condvar,
    pub(super) wal_bytes: AtomicU64,
    damaged: u64,
}

/// What an append touches.
pub(super) struct Hot {
    /// By series.
    pub(super) states: Vec<State>,
    pub(super) head: Head,
    /// When its first sample came.
    pub(super) head_since: Option<Instant>,
    /// The head before, until its files are published.
    pub(super) frozen: Option<Arc<Frozen>>,
    pub(super) segments: Arc<Vec<Arc<Segment>>>,
    /// The log of this head.
    pub(super) wal_number: u64,
    /// Records to be written, with their log's number.
    pub(super) pending: Vec<(u64, Vec<u8>)>,
    /// Catalogue rows with series that are not in it yet.
    pub(super) dirty: BTreeSet<u32>,
    /// Newest sample ever taken that is still known of.
    pub(super) newest_ms: i64,
    pub(super) wal_failing: Option<String>,
    pub(super) work_failing: Option<String>,
    pub(super) stopping: bool,
    appended: Appended,
    run: Vec<(u32, f64)>,
}

impl Hot {
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.iter().map(|(_, records)| records.len()).sum()
    }

    pub(super) fn head_limit(&self, options: &Options) -> usize {
        options.head_bytes.max(self.states.len() * HEAD_BYTES_A_SERIES)
    }

    fn records(&mut self) -> &mut Vec<u8> {
        let number = self.wal_number;
        let fits = |(of, records): &(u64, Vec<u8>)| *of == number && records.len() < wal::FRAME_BYTES;
        if !self.pending.last().is_some_and(fits) {
            self.pending.push((number, Vec::new()));
        }
        let last = self.pending.len() - 1;
        &mut self.pending[last].1
    }

    /// Ends a run of samples of one time: into the log with it.
    fn log_run(&mut self, at_ms: i64) {
        let run = std::mem::take(&mut self.run);
        for part in run.chunks(wal::RECORD_SAMPLES) {
            wal::put_samples(self.records(), at_ms, part);
        }
        self.run = run;
        self.run.clear();
    }
}

impl MetricStore {
    /// Opens the store in `dir`, made with mode 0700 where it is missing; its files have mode 0600.
    ///
    /// What was not in files yet is read from the log. A file that can't be read is set aside (renamed
    /// `….damaged`) and counted: it never keeps the store from opening.
    ///
    /// # Errors
    /// [`MetricError::Open`] when the folder can't be made or another process has it open.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, MetricError> {
        let dir = dir.as_ref();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| MetricError::Open {
            path: dir.to_owned(),
            detail: error.to_string(),
        })?;
        let shared = Arc::new(recover(dir, options)?);
        let spawn = |name: &str, body: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(name.into()).spawn(move || body(&shared))
        };
        let threads = [
            ("metric-syncer", keeper::sync as fn(&Shared)),
            ("metric-keeper", keeper::keep),
        ];
        let mut store = Self {
            shared: Arc::clone(&shared),
            threads: Vec::new(),
        };
        for (name, body) in threads {
            store.threads.push(spawn(name, body)?);
        }
        Ok(store)
    }

    /// The series of a name and labels, made where there is none. Labels may come in any order; an empty value
    /// is the same as no label. Cheap, but no cheaper than a hash of the strings: callers keep what they get.
    ///
    /// # Errors
    /// [`MetricError::InvalidSeries`].
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> Result<SeriesId, MetricError> {
        let labels = normal(name, labels)?;
        if let Some(known) = self.known(&self.shared.index(), name, &labels) {
            return Ok(known);
        }
        let mut index = self.shared.index_mut();
        if let Some(known) = self.known(&index, name, &labels) {
            return Ok(known);
        }
        let series = index
            .add(None, name, &labels)
            .ok_or(MetricError::InvalidSeries("no number is left for it"))?;
        let mut hot = self.shared.hot();
        while hot.states.len() <= series as usize {
            hot.states.push(State::new(0));
        }
        wal::put_series(hot.records(), series, name, &labels);
        hot.dirty.insert(row_of(series));
        Ok(hot.states[series as usize].id(series))
    }

    fn known(&self, index: &Index, name: &str, labels: &[(&str, &str)]) -> Option<SeriesId> {
        let series = index.find(name, labels)?;
        self.shared
            .hot()
            .states
            .get(series as usize)
            .map(|state| state.id(series))
    }

    /// Takes samples: readable at once, on disk within a second.
    ///
    /// Best given as they were measured: all of one node and one time side by side, each time in the same order.
    /// What can't be stored is dropped and counted, so sending a batch again does no harm.
    ///
    /// # Errors
    /// [`MetricError::Backlog`] when the disk takes nothing and memory is full: none of the batch was taken.
    pub fn append(&self, samples: &[Sample]) -> Result<Appended, MetricError> {
        let options = &self.shared.options;
        let now_ms = (options.clock)();
        let too_new_ms = now_ms.saturating_add(millis(options.ahead_max));
        let too_old_ms = now_ms.saturating_sub(millis(options.raw_keep));
        let mut done = Appended::default();
        let mut hot = self.room()?;
        let mut before: Option<(u32, i64)> = None;
        for sample in samples {
            let SeriesId { index, generation } = sample.series;
            let state = hot
                .states
                .get(index as usize)
                .filter(|state| state.generation == generation);
            let reason = match state {
                None => &mut done.dropped.unknown,
                Some(_) if !sample.value.is_finite() => &mut done.dropped.not_finite,
                Some(_) if sample.at_ms > too_new_ms => &mut done.dropped.too_new,
                Some(_) if sample.at_ms < too_old_ms => &mut done.dropped.too_old,
                Some(state) if sample.at_ms <= state.last_ms => &mut done.dropped.not_newer,
                Some(_) => {
                    if let Some((_, at_ms)) = before
                        && at_ms != sample.at_ms
                    {
                        hot.log_run(at_ms);
                    }
                    let Hot { states, head, run, .. } = &mut *hot;
                    head.put(states, index, sample.at_ms, sample.value, before);
                    run.push((index, sample.value));
                    before = Some((index, sample.at_ms));
                    done.stored += 1;
                    hot.newest_ms = hot.newest_ms.max(sample.at_ms);
                    continue;
                }
            };
            *reason += 1;
        }
        if let Some((_, at_ms)) = before {
            hot.log_run(at_ms);
            hot.head_since.get_or_insert_with(Instant::now);
        }
        hot.appended.stored += done.stored;
        hot.appended.dropped.add(&done.dropped);
        if hot.head.bytes >= hot.head_limit(options) {
            self.shared.chores.notify_one();
        }
        Ok(done)
    }

    /// Waits until memory has room.
    fn room(&self) -> Result<MutexGuard<'_, Hot>, MetricError> {
        let mut hot = self.shared.hot();
        let mut since = None;
        loop {
            let limit = hot.head_limit(&self.shared.options);
            let full = hot.head.bytes >= limit && (hot.frozen.is_some() || hot.head.bytes >= limit + limit / 2);
            if !full && hot.pending_bytes() < PENDING_BYTES_MAX {
                return Ok(hot);
            }
            let detail = hot.wal_failing.clone().or_else(|| hot.work_failing.clone());
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if let Some(detail) = detail {
                return Err(MetricError::Backlog { detail });
            }
            if waited >= ROOM_PATIENCE {
                let detail = "it is too slow".to_owned();
                return Err(MetricError::Backlog { detail });
            }
            self.shared.chores.notify_one();
            self.shared.syncs.notify_one();
            let outcome = self.shared.drained.wait_timeout(hot, Duration::from_millis(100));
            hot = outcome.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Raw samples of the series that pass all matchers, from `from_ms` to `to_ms`, both included. Series
    /// without any are left out; sorted by labels.
    ///
    /// # Errors
    /// [`MetricError::InvalidRange`]; [`MetricError::TooManyPoints`]; [`MetricError::Storage`] and
    /// [`MetricError::Corrupt`] when a file can't be read.
    pub fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        query::select(&self.shared, matchers, from_ms, to_ms)
    }

    /// One point for each window of `step_ms` of each series that passes all matchers: the first window starts at
    /// `from_ms`, the last is cut at `to_ms` (not included).
    ///
    /// Computed from raw samples where they are kept; from roll-ups when the range begins before them, or is
    /// longer than a day with windows of whole five minutes that begin on one. The answer says which.
    ///
    /// # Errors
    /// As [`Self::select`]; [`MetricError::InvalidStep`]; [`MetricError::TooManySamples`];
    /// [`MetricError::NeedsRaw`] for a percentile or a last value of a time of which only roll-ups are left.
    pub fn windows(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        step_ms: i64,
        aggregate: Aggregate,
    ) -> Result<Windows, MetricError> {
        query::windows(&self.shared, matchers, (from_ms, to_ms), step_ms, aggregate)
    }

    /// Windows as those of [`Self::windows`], of all series of some metrics, each with an aggregate of its own: in one
    /// pass through raw samples, and some thousand series at a time, so that a whole fleet is never in memory at once.
    ///
    /// `key` tells from a series' name and labels what it is to the caller; `None`: nothing, and it isn't read. New
    /// series wait while it works. `each` is given the points of each that has any, in no order. Between two parts
    /// others append, and series may come and go.
    ///
    /// # Errors
    /// As [`Self::select`]; [`MetricError::InvalidStep`]; [`MetricError::TooManySamples`], of some thousand series.
    pub fn each_windows<K>(
        &self,
        metrics: &[(&str, Aggregate)],
        (from_ms, to_ms): (i64, i64),
        step_ms: i64,
        key: impl Fn(&str, &mut dyn Iterator<Item = (&str, &str)>) -> Option<K>,
        each: impl FnMut(K, Vec<(i64, f64)>),
    ) -> Result<(), MetricError> {
        query::each_windows(&self.shared, metrics, (from_ms, to_ms), step_ms, key, each)
    }

    /// Names of metrics, with the number of series of each, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<(String, u64)> {
        self.shared.index().label_values(NAME_LABEL)
    }

    /// Names of labels in use, sorted.
    #[must_use]
    pub fn label_names(&self) -> Vec<String> {
        self.shared.index().label_names()
    }

    /// Values of a label, with the number of series that have each, sorted; empty when no series has it.
    #[must_use]
    pub fn label_values(&self, label: &str) -> Vec<(String, u64)> {
        self.shared.index().label_values(label)
    }

    /// How many series have this value of a label ([`NAME_LABEL`] for the metric's name): for bounds per metric
    /// or workload, which are the caller's.
    #[must_use]
    pub fn series_count(&self, label: &str, value: &str) -> u64 {
        self.shared.index().count(label, value)
    }

    /// What the store holds.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let series = self.shared.index().len() as u64;
        let hot = self.shared.hot();
        let mut usage = Usage {
            wal_bytes: self.shared.wal_bytes.load(Ordering::Relaxed),
            max_bytes: self.shared.options.max_bytes,
            series,
            samples: hot.head.samples,
            head_bytes: hot.head.bytes as u64,
            oldest_raw_ms: hot.head.oldest_ms,
            appended: hot.appended.stored,
            dropped: hot.appended.dropped,
            damaged_files: self.shared.damaged,
            failing: hot.wal_failing.clone().or_else(|| hot.work_failing.clone()),
            ..Usage::default()
        };
        let earlier = |known: Option<i64>, more: Option<i64>| known.into_iter().chain(more).min();
        if let Some(frozen) = &hot.frozen {
            usage.samples += frozen.samples();
            usage.oldest_raw_ms = earlier(usage.oldest_raw_ms, frozen.oldest_ms());
        }
        let segments = Arc::clone(&hot.segments);
        drop(hot);
        let mut oldest_rollup_ms = None;
        for meta in segments.iter().map(|segment| &segment.meta) {
            let (bytes, samples, oldest) = match meta.kind {
                Kind::Raw => (&mut usage.raw_bytes, &mut usage.samples, &mut usage.oldest_raw_ms),
                Kind::Rollup => (&mut usage.rollup_bytes, &mut usage.rollups, &mut oldest_rollup_ms),
            };
            *bytes += meta.bytes;
            *samples += meta.samples;
            *oldest = earlier(*oldest, Some(meta.min_ms));
        }
        usage.oldest_ms = earlier(usage.oldest_raw_ms, oldest_rollup_ms);
        usage.disk_bytes = usage.raw_bytes + usage.rollup_bytes + usage.wal_bytes + self.shared.catalog.bytes();
        usage
    }

    /// Returns when all that was appended before is on disk.
    ///
    /// # Errors
    /// [`MetricError::StorageFull`], [`MetricError::Storage`]: it goes on by itself later.
    pub fn sync(&self) -> Result<(), MetricError> {
        keeper::sync_wal(&self.shared)
    }

    /// Does now what the background would do in time: syncs the log, writes the head into files, merges, rolls
    /// up and drops what is due. Returns when it is done; no later append is waited for.
    ///
    /// # Errors
    /// [`MetricError::StorageFull`], [`MetricError::Storage`]: it goes on by itself later.
    pub fn settle(&self) -> Result<(), MetricError> {
        keeper::settle(&self.shared)
    }

    /// Writes everything out and closes the store.
    ///
    /// # Errors
    /// As [`Self::settle`]: what could not be written into files stays in the log, as far as that was synced.
    pub fn close(mut self) -> Result<(), MetricError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MetricError> {
        if self.threads.is_empty() {
            return Ok(());
        }
        self.shared.hot().stopping = true;
        self.shared.chores.notify_all();
        self.shared.syncs.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the metric store panicked");
            }
        }
        let outcome = keeper::flush_all(&self.shared);
        self.shared.catalog.close();
        outcome
    }
}

impl Drop for MetricStore {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "metrics could not be written out");
        }
    }
}

impl Shared {
    pub(super) fn hot(&self) -> MutexGuard<'_, Hot> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series that pass the matchers, and what there is of them in memory from `from_ms` to `to_ms`.
    pub(super) fn view(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> View {
        let index = self.index();
        let series = index.select(matchers);
        let labels = series.iter().filter_map(|&one| index.labels(one)).collect();
        View {
            labels,
            ..self.view_of(index, series, from_ms, to_ms)
        }
    }

    /// The same of some series, ascending, as the index has them now; without their labels.
    pub(super) fn view_of(
        &self,
        index: RwLockReadGuard<'_, Index>,
        series: Vec<u32>,
        from_ms: i64,
        to_ms: i64,
    ) -> View {
        let hot = self.hot();
        drop(index);
        let mut view = View {
            head_ends: Vec::with_capacity(series.len()),
            labels: Vec::new(),
            series,
            frozen: hot.frozen.clone(),
            segments: Arc::clone(&hot.segments),
            head_times: Vec::new(),
            head_values: Vec::new(),
            raw_from_ms: i64::MAX,
        };
        for &one in &view.series {
            let state = &hot.states[one as usize];
            hot.head
                .gather(state, from_ms, to_ms, &mut view.head_times, &mut view.head_values);
            view.head_ends.push(view.head_times.len());
        }
        let memory = [
            hot.head.oldest_ms,
            hot.frozen.as_ref().and_then(|frozen| frozen.oldest_ms()),
        ];
        drop(hot);
        let raw = view.segments.iter().filter(|segment| segment.meta.kind == Kind::Raw);
        let files = raw.map(|segment| segment.meta.min_ms);
        view.raw_from_ms = files.chain(memory.into_iter().flatten()).min().unwrap_or(i64::MAX);
        view
    }
}

/// What the folder holds, made ready.
fn recover(dir: &Path, options: Options) -> Result<Shared, MetricError> {
    let catalog = Catalog::open(dir)?;
    let loaded = catalog.load()?;
    let mut index = loaded.index;
    let (segments, damaged) = keeper::open_files(dir, &catalog, loaded.files)?;
    let mut wal = Wal::new(dir)?;
    wal.delete_before(loaded.wal_from)?;
    let mut states = vec![State::new(0); index.slots()];
    for (series, last_ms) in loaded.lasts {
        // A series that was forgotten leaves its row's entry behind.
        if index.parts(series).is_some() {
            states[series as usize].last_ms = last_ms;
        }
    }
    let mut head = Head::default();
    let mut dirty = BTreeSet::new();
    // Should a number of the log mean another series by now.
    let mut moved: HashMap<u32, u32> = HashMap::new();
    let numbers = wal.numbers();
    for &number in &numbers {
        let torn = wal.replay(number, |record| match record {
            Record::Series { series, name, labels } => {
                let place = index
                    .find(name, &labels)
                    .or_else(|| index.add(Some(series), name, &labels))
                    .or_else(|| index.add(None, name, &labels));
                let Some(place) = place else {
                    return;
                };
                moved.remove(&series);
                if place != series {
                    moved.insert(series, place);
                }
                states.resize(index.slots().max(states.len()), State::new(0));
                dirty.insert(row_of(place));
            }
            Record::Samples { at_ms, samples } => {
                let mut before = None;
                for (series, value) in samples {
                    let series = moved.get(&series).copied().unwrap_or(series);
                    if states.get(series as usize).is_some_and(|state| state.last_ms < at_ms) {
                        head.put(&mut states, series, at_ms, value, before);
                        before = Some((series, at_ms));
                    }
                }
            }
        });
        match torn {
            Ok(0) => {}
            Ok(bytes) => tracing::info!(number, bytes, "the metric log ended in the middle of a second"),
            Err(error) => tracing::warn!(number, %error, "the rest of a metric log could not be read"),
        }
    }
    // Nothing is kept of these, and nobody has their numbers.
    let unused: Vec<u32> = (0..states.len() as u32)
        .filter(|&series| states[series as usize].last_ms == i64::MIN)
        .collect();
    dirty.extend(unused.iter().map(|&series| row_of(series)));
    index.remove(&unused);
    let newest = segments.iter().map(|segment| segment.meta.max_ms).chain(head.newest_ms);
    let newest_ms = newest.max().unwrap_or(i64::MIN);
    let last_log = numbers.into_iter().max().unwrap_or(0);
    Ok(Shared {
        wal_bytes: AtomicU64::new(wal.bytes()),
        work: Mutex::new(Work::new(loaded.next_file)),
        wal: Mutex::new(wal),
        index: RwLock::new(index),
        hot: Mutex::new(Hot {
            states,
            head_since: (!head.is_empty()).then(Instant::now),
            head,
            frozen: None,
            segments: Arc::new(segments),
            // Never behind a torn frame.
            wal_number: last_log.max(loaded.wal_from) + 1,
            pending: Vec::new(),
            dirty,
            newest_ms,
            wal_failing: None,
            work_failing: None,
            stopping: false,
            appended: Appended::default(),
            run: Vec::new(),
        }),
        chores: Condvar::new(),
        syncs: Condvar::new(),
        drained: Condvar::new(),
        options,
        dir: dir.to_owned(),
        catalog,
        damaged,
    })
}
