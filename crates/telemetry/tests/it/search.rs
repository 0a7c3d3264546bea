//! Levels, searches and their context, against grep over the whole text; lines that are too old.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use telemetry::logs::{Detector, Entry, Level, Line, LogStore, Options, Query, Role, Search, Source, StreamId};

use crate::{line, open, read_all, runtime, stream};

/// What programs write, of all kinds.
const TEXTS: [&str; 14] = [
    "step 5 loss 0.25",
    "step 6 loss nan",
    "",
    "  indented",
    "ERROR boom",
    "INFO: fine",
    "DEBUG state",
    "WARNING:root:odd",
    "Traceback (most recent call last):",
    "  File \"train.py\", line 3",
    "KeyError: 'needle'",
    "CUDA out of memory",
    "a needle in hay",
    "{\"level\":\"error\",\"msg\":\"x\"}",
];

/// (attempt, rank), step of the clock, which text, whether long, numbers left out before it.
type Step = ((u32, u32), i64, usize, bool, u64);

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![12 => Just(0u64), 1 => 1..4u64];
    let long = prop_oneof![20 => Just(false), 1 => Just(true)];
    ((1..3u32, 0..2u32), 0..3i64, 0..TEXTS.len(), long, gap)
}

#[derive(Debug, Clone)]
struct Asked {
    level: Option<Level>,
    search: Option<&'static str>,
    context: u32,
    tail: Option<u64>,
    since: Option<i64>,
    limit: usize,
    scan_bytes: usize,
}

fn asked() -> impl Strategy<Value = Asked> {
    let level = prop_oneof![
        Just(None),
        Just(Some(Level::Error)),
        Just(Some(Level::Warn)),
        Just(Some(Level::Info)),
        Just(Some(Level::Trace)),
    ];
    let search = prop_oneof![
        Just(None),
        Just(Some("needle")),
        Just(Some("(?i)cuda OUT")),
        Just(Some("^step \\d loss (nan|0)")),
        Just(Some("absent|boom")),
        Just(Some("e")),
    ];
    let tail = prop_oneof![2 => Just(None), 1 => (0..12u64).prop_map(Some)];
    let since = prop_oneof![3 => Just(None), 1 => (0..40i64).prop_map(Some)];
    (
        level,
        search,
        0..4u32,
        tail,
        since,
        1..9usize,
        prop_oneof![Just(0usize), Just(100_000), Just(1 << 25)],
    )
        .prop_map(|(level, search, context, tail, since, limit, scan_bytes)| Asked {
            // Without either there is no filter.
            level: level.or(search.is_none().then_some(Level::Error)),
            search,
            context,
            tail,
            since,
            limit,
            scan_bytes,
        })
}

impl Asked {
    fn query(&self) -> Query {
        Query {
            level: self.level,
            search: self.search.map(|pattern| Search::new(pattern).unwrap()),
            context: self.context,
            tail: self.tail,
            since_ns: self.since,
            limit: self.limit,
            scan_bytes: self.scan_bytes,
            ..Query::default()
        }
    }

    fn matches(&self, level: Option<Level>, text: &[u8]) -> bool {
        let grave = self.level.is_none_or(|least| level.unwrap_or(Level::Info) >= least);
        let found = self
            .search
            .is_none_or(|pattern| regex::bytes::Regex::new(pattern).unwrap().is_match(text));
        grave && found
    }
}

/// A record of the model: a line with its level, or a gap up to a number.
#[derive(Debug, Clone)]
enum Item {
    Line(Line, Option<Level>),
    Gap(u64, u64, i64),
}

impl Item {
    fn numbers(&self) -> (u64, u64) {
        match self {
            Self::Line(line, _) => (line.number, line.number),
            Self::Gap(from, to, _) => (*from, *to),
        }
    }
}

#[derive(Debug, Default)]
struct Text {
    items: Vec<Item>,
    detector: Detector,
    last: u64,
    latest: Option<i64>,
}

type Texts = BTreeMap<(u32, u32), Text>;

/// The batch of these steps; the model learns of them.
fn write(texts: &mut Texts, clock: &mut i64, steps: &[Step]) -> Vec<(StreamId, Vec<Line>)> {
    let mut batch: BTreeMap<(u32, u32), Vec<Line>> = BTreeMap::new();
    for &(place, tick, text, long, left_out) in steps {
        *clock += tick;
        let known = texts.entry(place).or_default();
        let number = known.last + 1 + left_out;
        let filler = if long {
            " filling words".repeat(2000)
        } else {
            String::new()
        };
        let line = line(number, *clock, &format!("{}{filler}", TEXTS[text]));
        if left_out > 0 {
            let at = known.latest.unwrap_or(*clock);
            known.items.push(Item::Gap(known.last + 1, number - 1, at));
        }
        let level = known.detector.next(&line.text, false);
        known.items.push(Item::Line(line.clone(), level));
        known.last = number;
        known.latest = Some(*clock);
        batch.entry(place).or_default().push(line);
    }
    let named = |((attempt, rank), lines)| (stream("w", attempt, rank), lines);
    batch.into_iter().map(named).collect()
}

/// What the whole text says the answer is.
fn grep(texts: &Texts, asked: &Asked) -> Vec<Entry> {
    // (attempt, time, rank, index) of all items that count, with their number.
    let mut found = Vec::new();
    let mut all = Vec::new();
    for (&(attempt, rank), text) in texts {
        let mut latest = i64::MIN;
        for (index, item) in text.items.iter().enumerate() {
            let (at, counts) = match item {
                Item::Line(line, level) => (line.at_ns, asked.matches(*level, &line.text)),
                Item::Gap(_, _, at) => (*at, true),
            };
            latest = latest.max(at);
            if asked.since.is_some_and(|since| latest < since) {
                continue;
            }
            let key = (attempt, latest, rank, index);
            all.push((key, item.clone(), counts));
            if counts {
                found.push((key, item.numbers().0));
            }
        }
    }
    found.sort_unstable();
    let counted = asked.tail.map_or(0, |tail| found.len().saturating_sub(tail as usize));
    let mut start: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for ((attempt, _, rank, _), number) in found[counted..].iter().rev() {
        start.insert((*attempt, *rank), *number);
    }
    let mut shown = Vec::new();
    for &(attempt, rank) in texts.keys() {
        let items: Vec<_> = all
            .iter()
            .filter(|((a, _, r, _), ..)| (*a, *r) == (attempt, rank))
            .collect();
        let start = match asked.tail {
            None => 0,
            Some(_) => start.get(&(attempt, rank)).copied().unwrap_or(u64::MAX),
        };
        let active: Vec<bool> = items
            .iter()
            .map(|(_, item, counts)| *counts && item.numbers().0 >= start)
            .collect();
        let mut before = None;
        for (index, (key, item, _)) in items.iter().enumerate() {
            let Item::Line(line, level) = item else {
                if active[index] {
                    let (from, to) = item.numbers();
                    let Item::Gap(_, _, at_ns) = *item else { unreachable!() };
                    shown.push((
                        *key,
                        Entry::Gap {
                            attempt,
                            rank,
                            from,
                            to,
                            at_ns,
                        },
                    ));
                    before = Some(to);
                }
                continue;
            };
            let near = |other: usize| {
                let far = items[other].1.numbers().0.abs_diff(line.number);
                let (low, high) = (index.min(other), index.max(other));
                active[other]
                    && far <= u64::from(asked.context)
                    && items[low..=high]
                        .iter()
                        .all(|(_, item, _)| matches!(item, Item::Line(..)))
            };
            let role = if active[index] {
                Role::Match
            } else if (0..items.len()).any(near) {
                Role::Context
            } else {
                continue;
            };
            let apart = before.is_none_or(|before| before + 1 != line.number);
            before = Some(line.number);
            let entry = Entry::Line {
                attempt,
                rank,
                level: *level,
                role,
                apart,
                line: line.clone(),
            };
            shown.push((*key, entry));
        }
    }
    shown.sort_by_key(|(key, _)| *key);
    shown.into_iter().map(|(_, entry)| entry).collect()
}

/// Without what only context asks for.
fn plain(entries: Vec<Entry>, context: u32) -> Vec<Entry> {
    let of = |mut entry| {
        if let Entry::Line { apart, .. } = &mut entry
            && context == 0
        {
            *apart = false;
        }
        entry
    };
    entries.into_iter().map(of).collect()
}

/// All pages, each cursor through its string.
fn read_pages(store: &LogStore, mut query: Query) -> Vec<Entry> {
    let mut entries = Vec::new();
    for _ in 0..100_000 {
        let page = store.read("w", &query).unwrap();
        assert!(page.entries.len() <= query.limit);
        entries.extend(page.entries);
        if page.complete {
            return entries;
        }
        query.cursor = Some(page.cursor.to_string().parse().unwrap());
        query.tail = None;
    }
    panic!("the search does not get on");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// However it is cut into batches, blocks and pages: the answer is that of grep over the whole.
    #[test]
    fn is_grep(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..25), 1..8),
        questions in prop::collection::vec(asked(), 1..8),
        merge_blocks in prop_oneof![Just(1u64), Just(u64::MAX)],
    ) {
        let runtime = runtime();
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path(), Options { merge_blocks, ..Options::default() }).unwrap();
        let (mut texts, mut clock) = (Texts::new(), 0);
        for steps in batches {
            let batch = write(&mut texts, &mut clock, &steps);
            runtime.block_on(store.append(batch)).unwrap();
        }
        for asked in questions {
            let seen = plain(read_pages(&store, asked.query()), asked.context);
            let expected = plain(grep(&texts, &asked), asked.context);
            prop_assert_eq!(seen, expected, "{:?}", asked);
        }
    }

    /// A follower sees the same, whenever the lines come and wherever it is interrupted.
    #[test]
    fn following_is_grep(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..25), 1..8),
        asked in asked(),
    ) {
        let asked = Asked { tail: None, since: None, ..asked };
        let runtime = runtime();
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let (mut texts, mut clock) = (Texts::new(), 0);
        let mut query = asked.query();
        let mut seen = Vec::new();
        for steps in batches {
            let batch = write(&mut texts, &mut clock, &steps);
            runtime.block_on(store.append(batch)).unwrap();
            let mut follow = store.follow("w", query.clone());
            // What there is to see of this batch, and then a restart.
            while !store.read("w", &Query { cursor: query.cursor.clone(), ..asked.query() }).unwrap().entries.is_empty() {
                let page = runtime.block_on(follow.next()).unwrap();
                seen.extend(page.entries);
                query.cursor = Some(follow.cursor().to_string().parse().unwrap());
                if asked.scan_bytes == 0 {
                    // The next page may have to look through several pages first.
                    break;
                }
            }
            drop(follow);
            drop(store);
            store = open(dir.path());
        }
        let mut rest = query;
        rest.limit = 10_000;
        seen.extend(read_pages(&store, rest));
        // Streams were merged as they came: each is in order.
        let of = |entries: &[Entry], place: (u32, u32)| -> Vec<Entry> {
            let is = |entry: &&Entry| match entry {
                Entry::Line { attempt, rank, .. } | Entry::Gap { attempt, rank, .. } | Entry::Removed { attempt, rank, .. } =>
                    (*attempt, *rank) == place,
            };
            plain(entries.iter().filter(is).cloned().collect(), asked.context)
        };
        let expected = grep(&texts, &asked);
        for place in texts.keys() {
            prop_assert_eq!(of(&seen, *place), of(&expected, *place), "{:?}", asked);
        }
    }
}

/// Standard output and error are told apart, and a traceback that is cut by a batch and a restart stays whole.
#[tokio::test]
async fn a_traceback_across_batches_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let id = stream("w", 1, 0);
    let of = |number, source, text: &str| Line {
        source,
        ..line(number, number as i64, text)
    };
    {
        let store = open(dir.path());
        let first = vec![
            of(1, Source::Stderr, "Traceback (most recent call last):"),
            of(2, Source::Stdout, "  step 5"),
        ];
        store.append(vec![(id.clone(), first)]).await.unwrap();
    }
    let store = open(dir.path());
    let second = vec![
        of(3, Source::Stderr, "  File \"x.py\", line 1"),
        of(4, Source::Stdout, "step 6"),
        of(5, Source::Stderr, "ValueError: no"),
        of(6, Source::System, "3 lines were lost"),
    ];
    store.append(vec![(id, second)]).await.unwrap();
    let numbers = |level| -> Vec<u64> {
        let query = Query {
            level: Some(level),
            ..Query::default()
        };
        read_all(&store, "w", query).iter().map(crate::number).collect()
    };
    assert_eq!(numbers(Level::Error), [1, 3, 5]);
    assert_eq!(numbers(Level::Warn), [1, 3, 5, 6]);
    assert_eq!(numbers(Level::Info), [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers(Level::Fatal), [0u64; 0]);
}

#[tokio::test]
async fn lines_that_are_too_old_are_dropped_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let (old, mixed) = (stream("old", 1, 0), stream("mixed", 1, 0));
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()).unwrap();
    {
        let store = open(dir.path());
        let lines = |at: i64| -> Vec<Line> { (1..=10).map(|n| line(n, at, "x")).collect() };
        store
            .append(vec![(old.clone(), lines(1)), (mixed.clone(), lines(1))])
            .await
            .unwrap();
        store
            .append(vec![(mixed.clone(), vec![line(11, now, "fresh")])])
            .await
            .unwrap();
        store.finish(&old, 10).await.unwrap();
    }
    let options = Options {
        max_age: Some(Duration::from_secs(3600)),
        ..Options::default()
    };
    let store = LogStore::open(dir.path(), options).unwrap();
    while store.usage().lines > 11 {
        tokio::task::yield_now().await;
    }
    let entries = read_all(&store, "old", Query::default());
    assert!(matches!(entries[..], [Entry::Removed { from: 1, to: 10, .. }]));
    // A search is told as well: it isn't over everything.
    let query = Query {
        level: Some(Level::Error),
        ..Query::default()
    };
    assert_eq!(read_all(&store, "old", query), entries);
    assert!(
        read_all(&store, "mixed", Query::default())
            .iter()
            .any(|entry| { matches!(entry, Entry::Line { line, .. } if line.number == 11) })
    );
}
