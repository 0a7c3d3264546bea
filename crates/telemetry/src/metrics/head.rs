//! The newest samples, in memory.
//!
//! Series that report together form a group: one row for each time, one cell for each series, so that a sample
//! costs eight bytes and a time is held once for all. Groups find themselves: a series that has none joins the
//! sample before it in the batch if both have the same time. When the head is frozen, those that did not report
//! leave their group, and a group with more holes than samples is dissolved.

use std::collections::BTreeSet;

use super::types::SeriesId;

/// No group yet.
const NONE: u32 = u32::MAX;
/// Most series of a group: wide enough for a node, narrow enough for the cache when a column is gathered.
const MEMBERS: usize = 256;
/// Rows for which room is made at a time.
const ROWS: usize = 16;

/// What is known of a series besides its labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    /// Its newest sample; `i64::MIN` before the first.
    pub(super) last_ms: i64,
    /// Goes up when its number is freed.
    pub(super) generation: u32,
    group: u32,
    slot: u16,
}

impl State {
    pub(super) fn new(generation: u32) -> Self {
        Self {
            last_ms: i64::MIN,
            generation,
            group: NONE,
            slot: 0,
        }
    }

    /// Whether the head holds nothing of it.
    pub(super) fn is_idle(&self) -> bool {
        self.group == NONE
    }

    pub(super) fn id(&self, index: u32) -> SeriesId {
        SeriesId {
            index,
            generation: self.generation,
        }
    }
}

/// Rows of a group, times ascending.
struct Page {
    stride: usize,
    times: Vec<i64>,
    /// NaN where there is no sample.
    cells: Vec<f64>,
}

#[derive(Default)]
struct Group {
    members: Vec<u32>,
    pages: Vec<Page>,
    filled: u64,
}

#[derive(Default)]
pub(super) struct Head {
    groups: Vec<Group>,
    pub(super) bytes: usize,
    pub(super) samples: u64,
    pub(super) newest_ms: Option<i64>,
    pub(super) oldest_ms: Option<i64>,
}

/// A head that takes no more samples: on its way into files.
pub(super) struct Frozen {
    head: Head,
    /// (series, group, slot), by series.
    places: Vec<(u32, u32, u16)>,
}

impl Head {
    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Takes a sample newer than the series' last. `before` is the sample put just before in the same batch.
    pub(super) fn put(
        &mut self,
        states: &mut [State],
        series: u32,
        at_ms: i64,
        value: f64,
        before: Option<(u32, i64)>,
    ) {
        if states[series as usize].group == NONE {
            let company = before
                .filter(|(_, time)| *time == at_ms)
                .map(|(series, _)| states[series as usize].group);
            let group = company.filter(|&group| self.groups[group as usize].members.len() < MEMBERS);
            let group = group.unwrap_or_else(|| self.new_group());
            let members = &mut self.groups[group as usize].members;
            let state = &mut states[series as usize];
            (state.group, state.slot) = (group, members.len() as u16);
            members.push(series);
        }
        let state = &mut states[series as usize];
        state.last_ms = at_ms;
        let group = &mut self.groups[state.group as usize];
        self.bytes += group.put(usize::from(state.slot), at_ms, value);
        self.samples += 1;
        self.newest_ms = self.newest_ms.max(Some(at_ms));
        self.oldest_ms = Some(self.oldest_ms.map_or(at_ms, |oldest| oldest.min(at_ms)));
    }

    fn new_group(&mut self) -> u32 {
        self.groups.push(Group::default());
        (self.groups.len() - 1) as u32
    }

    /// Samples of a series from `from_ms` to `to_ms`, both included, appended in order.
    pub(super) fn gather(&self, state: &State, from_ms: i64, to_ms: i64, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        if let Some(group) = self.groups.get(state.group as usize) {
            group.gather(usize::from(state.slot), from_ms, to_ms, times, values);
        }
    }

    /// Takes everything out, leaving groups for what comes next.
    pub(super) fn freeze(&mut self, states: &mut [State]) -> Frozen {
        let mut next = Head::default();
        let mut places = Vec::new();
        for (at, group) in (0u32..).zip(&self.groups) {
            let rows: usize = group.pages.iter().map(|page| page.times.len()).sum();
            let first = group.pages.first().and_then(|page| page.times.first());
            let dense = group.filled * 2 >= (rows * group.members.len()) as u64;
            let mut kept = Group::default();
            for (slot, &series) in (0u16..).zip(&group.members) {
                let state = &mut states[series as usize];
                let active = first.is_some_and(|&first| state.last_ms >= first);
                if active {
                    places.push((series, at, slot));
                }
                if active && dense {
                    (state.group, state.slot) = (next.groups.len() as u32, kept.members.len() as u16);
                    kept.members.push(series);
                } else {
                    state.group = NONE;
                }
            }
            if !kept.members.is_empty() {
                next.groups.push(kept);
            }
        }
        places.sort_unstable();
        Frozen {
            head: std::mem::replace(self, next),
            places,
        }
    }
}

impl Group {
    /// Bytes of memory that this took.
    fn put(&mut self, slot: usize, at_ms: i64, value: f64) -> usize {
        self.filled += 1;
        let mut taken = 0;
        let last = self
            .pages
            .last()
            .and_then(|page| Some((page.stride, *page.times.last()?)));
        match last {
            Some((stride, time)) if time == at_ms && slot < stride => {}
            Some((_, time)) if time >= at_ms => return self.put_before(slot, at_ms, value),
            _ => {
                let stride = self.members.len();
                let room = |page: &Page| page.stride == stride && page.times.len() < ROWS;
                if !self.pages.last().is_some_and(room) {
                    self.pages.push(Page::new(stride));
                    taken = Page::bytes(stride);
                }
                if let Some(page) = self.pages.last_mut() {
                    page.times.push(at_ms);
                    page.cells.resize(page.cells.len() + stride, f64::NAN);
                }
            }
        }
        if let Some(page) = self.pages.last_mut() {
            let row = page.times.len() - 1;
            page.cells[row * page.stride + slot] = value;
        }
        taken
    }

    /// The same where the row is not the last, or too narrow: slow, and rare.
    fn put_before(&mut self, slot: usize, at_ms: i64, value: f64) -> usize {
        let after = self
            .pages
            .partition_point(|page| page.times.first().is_some_and(|&first| first <= at_ms));
        let width = self.members.len();
        let Some(page) = self.pages.get_mut(after.saturating_sub(1)) else {
            return 0;
        };
        let before = page.cells.len();
        if slot >= page.stride {
            page.widen(width);
        }
        let row = match page.times.binary_search(&at_ms) {
            Ok(row) => row,
            Err(row) => {
                page.times.insert(row, at_ms);
                let cell = row * page.stride;
                page.cells
                    .splice(cell..cell, std::iter::repeat_n(f64::NAN, page.stride));
                row
            }
        };
        page.cells[row * page.stride + slot] = value;
        (page.cells.len() - before) * 8
    }

    fn gather(&self, slot: usize, from_ms: i64, to_ms: i64, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        for page in self.pages.iter().filter(|page| slot < page.stride) {
            let start = page.times.partition_point(|&time| time < from_ms);
            for (row, &time) in page.times.iter().enumerate().skip(start) {
                if time > to_ms {
                    return;
                }
                let value = page.cells[row * page.stride + slot];
                if !value.is_nan() {
                    times.push(time);
                    values.push(value);
                }
            }
        }
    }
}

impl Page {
    fn new(stride: usize) -> Self {
        Self {
            stride,
            times: Vec::with_capacity(ROWS),
            cells: Vec::with_capacity(ROWS * stride),
        }
    }

    fn bytes(stride: usize) -> usize {
        ROWS * 8 * (stride + 1) + size_of::<Self>()
    }

    fn widen(&mut self, stride: usize) {
        let mut cells = Vec::with_capacity(self.times.len() * stride);
        for row in self.cells.chunks_exact(self.stride) {
            cells.extend_from_slice(row);
            cells.resize(cells.len() + stride - self.stride, f64::NAN);
        }
        (self.stride, self.cells) = (stride, cells);
    }
}

impl Frozen {
    pub(super) fn samples(&self) -> u64 {
        self.head.samples
    }

    pub(super) fn oldest_ms(&self) -> Option<i64> {
        self.head.oldest_ms
    }

    pub(super) fn newest_ms(&self) -> Option<i64> {
        self.head.newest_ms
    }

    /// The windows that its samples lie in, ascending; a window is named by what `window_of` says of its times.
    pub(super) fn windows(&self, window_of: impl Fn(i64) -> i64) -> BTreeSet<i64> {
        let pages = self.head.groups.iter().flat_map(|group| &group.pages);
        pages
            .flat_map(|page| &page.times)
            .map(|&at_ms| window_of(at_ms))
            .collect()
    }

    /// Its series, ascending.
    pub(super) fn series(&self) -> impl Iterator<Item = u32> {
        self.places.iter().map(|(series, ..)| *series)
    }

    /// As [`Head::gather`].
    pub(super) fn gather(&self, series: u32, from_ms: i64, to_ms: i64, times: &mut Vec<i64>, values: &mut Vec<f64>) {
        let Ok(at) = self.places.binary_search_by_key(&series, |(series, ..)| *series) else {
            return;
        };
        let (_, group, slot) = self.places[at];
        self.head.groups[group as usize].gather(usize::from(slot), from_ms, to_ms, times, values);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Points = BTreeMap<u32, Vec<(i64, f64)>>;

    fn all(gather: impl Fn(u32, &mut Vec<i64>, &mut Vec<f64>), series: u32) -> Vec<(i64, f64)> {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        gather(series, &mut times, &mut values);
        times.into_iter().zip(values).collect()
    }

    proptest! {
        /// Batches of a time and some series, the times going back and forth.
        #[test]
        fn every_sample_is_gathered(batches in prop::collection::vec((0..200i64, prop::collection::vec(0..12u32, 1..12)), 1..80)) {
            let mut states = vec![State::new(0); 12];
            let mut head = Head::default();
            let (mut model, mut frozen_model) = (Points::new(), Points::new());
            let mut frozen = None;
            for (n, (time, series)) in batches.into_iter().enumerate() {
                let mut before = None;
                for one in series {
                    if states[one as usize].last_ms >= time {
                        continue;
                    }
                    let value = (n * 100 + one as usize) as f64;
                    head.put(&mut states, one, time, value, before);
                    before = Some((one, time));
                    model.entry(one).or_default().push((time, value));
                }
                if n % 30 == 29 {
                    frozen = Some(head.freeze(&mut states));
                    frozen_model = std::mem::take(&mut model);
                }
            }
            for series in 0..12 {
                let state = states[series as usize];
                let got = all(|_, t, v| head.gather(&state, i64::MIN, i64::MAX, t, v), series);
                assert_eq!(got, model.get(&series).cloned().unwrap_or_default());
                if let Some(frozen) = &frozen {
                    let got = all(|s, t, v| frozen.gather(s, i64::MIN, i64::MAX, t, v), series);
                    assert_eq!(got, frozen_model.get(&series).cloned().unwrap_or_default());
                }
            }
        }
    }

    #[test]
    fn what_reports_together_is_kept_together() {
        let mut states = vec![State::new(0); 100];
        let mut head = Head::default();
        for row in 0..50 {
            let mut before = None;
            for series in 0..100 {
                head.put(&mut states, series, row * 10, 1.0, before);
                before = Some((series, row * 10));
            }
        }
        assert_eq!(head.groups.len(), 1);
        assert!(head.bytes < 100 * 50 * 8 * 4 / 3 + 4096, "{}", head.bytes);
        // Half of them fall silent: the next head has no room for them.
        head.freeze(&mut states);
        for row in 50..60 {
            for series in 0..30 {
                head.put(&mut states, series, row * 10, 1.0, None);
            }
        }
        head.freeze(&mut states);
        assert!(states[40].is_idle());
    }
}
