//! What waits, kept in order as requests come and go.
//!
//! Requests with equal asks and equal timeouts are one class: as soon as one
//! of a class cannot start in a pass, none of it can, and the rest of the
//! class is passed over at once.

use std::cmp::Reverse;
use std::collections::btree_map;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::filter::Ask;
use crate::fleet::index;
use crate::{Fleet, Owner, Priority, Request, RequestId};

/// Waiting requests: by priority, then fair share between owners (least
/// first), then age.
#[derive(Default)]
pub struct Queue {
    by_id: HashMap<RequestId, Arc<Queued>>,
    pub(crate) asks: Interner<Ask>,
    classes: Interner<(u32, Option<i64>)>,
    lanes: BTreeMap<Priority, HashMap<Owner, Lane>>,
    /// Those that say that room is being made for them.
    pub(crate) preempting: BTreeSet<RequestId>,
}

/// A request and its interned numbers.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) ask: u32,
    pub(crate) class: u32,
    pub(crate) weight: u64,
}

/// What one owner waits for at one priority: per class, in order of age.
#[derive(Default)]
struct Lane {
    streams: HashMap<u32, Stream>,
    len: usize,
}

type Stream = BTreeMap<(i64, RequestId), Arc<Queued>>;

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a request, or replaces the one of the same id.
    pub fn upsert(&mut self, request: Request) {
        if self
            .by_id
            .get(&request.id)
            .is_some_and(|known| known.request == request)
        {
            return;
        }
        self.remove(&request.id);
        let ask = self.asks.add(Ask::of(&request));
        let class = self.classes.add((ask, request.timeout_ms));
        if request.preempting {
            self.preempting.insert(request.id.clone());
        }
        let queued = Arc::new(Queued {
            ask,
            class,
            weight: request.weight(),
            request,
        });
        let request = &queued.request;
        let lanes = self.lanes.entry(request.priority).or_default();
        let lane = lanes.entry(request.owner.clone()).or_default();
        lane.len += 1;
        let stream = lane.streams.entry(class).or_default();
        stream.insert((request.submitted_at_ms, request.id.clone()), Arc::clone(&queued));
        self.by_id.insert(request.id.clone(), queued);
    }

    /// Takes a request out (placed, cancelled), and returns it if it was there.
    pub fn remove(&mut self, id: &RequestId) -> Option<Request> {
        let queued = self.by_id.remove(id)?;
        let request = &queued.request;
        self.preempting.remove(id);
        if let Some(lanes) = self.lanes.get_mut(&request.priority)
            && let Some(lane) = lanes.get_mut(&request.owner)
        {
            lane.len -= 1;
            if let Some(stream) = lane.streams.get_mut(&queued.class) {
                stream.remove(&(request.submitted_at_ms, id.clone()));
                if stream.is_empty() {
                    lane.streams.remove(&queued.class);
                }
            }
            if lane.len == 0 {
                lanes.remove(&request.owner);
            }
        }
        self.classes.drop_one(queued.class);
        self.asks.drop_one(queued.ask);
        Some(Arc::try_unwrap(queued).map_or_else(|shared| shared.request.clone(), |q| q.request))
    }

    /// Says that room is being made for a waiting request, see
    /// [`Request::preempting`]. Returns whether the request is there.
    pub fn set_preempting(&mut self, id: &RequestId, preempting: bool) -> bool {
        let Some(queued) = self.by_id.get(id) else {
            return false;
        };
        let request = Request {
            preempting,
            ..queued.request.clone()
        };
        self.upsert(request);
        true
    }

    /// The waiting request of that id.
    #[must_use]
    pub fn get(&self, id: &RequestId) -> Option<&Request> {
        self.by_id.get(id).map(|queued| &queued.request)
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Those waiting, in no particular order.
    pub fn requests(&self) -> impl Iterator<Item = &Request> {
        self.by_id.values().map(|queued| &queued.request)
    }

    pub(crate) fn queued(&self, id: &RequestId) -> Option<&Queued> {
        self.by_id.get(id).map(|queued| &**queued)
    }

    /// How many are decided before a request of this priority, owner and age,
    /// going by the shares as they are now.
    pub(crate) fn ahead(&self, request: &Request, share: impl Fn(&Owner) -> u64) -> usize {
        let mine = share(&request.owner);
        let mut ahead = 0;
        for (priority, lanes) in &self.lanes {
            if *priority > request.priority {
                ahead += lanes.values().map(|lane| lane.len).sum::<usize>();
            } else if *priority == request.priority {
                for (owner, lane) in lanes {
                    let theirs = share(owner);
                    if theirs < mine {
                        ahead += lane.len;
                    } else if theirs == mine {
                        let before = (request.submitted_at_ms, request.id.clone());
                        ahead += lane
                            .streams
                            .values()
                            .map(|stream| stream.range(..&before).count())
                            .sum::<usize>();
                    }
                }
            }
        }
        ahead
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("requests", &self.len())
            .finish_non_exhaustive()
    }
}

/// What owners have used, beyond what they hold now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    recent: HashMap<Owner, u64>,
}

impl Usage {
    /// Nobody used anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an owner's decayed past usage, in thousandths of a GPU: what it
    /// weighs beside the GPUs that the owner holds now.
    pub fn set(&mut self, owner: impl Into<Owner>, milligpus: u64) {
        self.recent.insert(owner.into(), milligpus);
    }

    /// An owner's share: past usage and what it holds now.
    #[must_use]
    pub fn share(&self, fleet: &Fleet, owner: &Owner) -> u64 {
        let recent = self.recent.get(owner).copied().unwrap_or(0);
        recent.saturating_add(fleet.holdings(owner))
    }
}

/// One pass's walk over the queue. Shares grow with each placement, so that
/// one owner's long queue does not take a whole free fleet.
pub(crate) struct Order<'a> {
    queue: &'a Queue,
    base: &'a dyn Fn(&Owner) -> u64,
    placed: HashMap<&'a Owner, u64>,
    levels: Vec<Priority>,
    turns: BinaryHeap<Turn<'a>>,
    owners: Vec<Waiting<'a>>,
    current: Option<(usize, usize)>,
}

/// Share, then age and id of the owner's next request, then the owner's number.
type Turn<'a> = Reverse<(u64, i64, &'a RequestId, usize)>;
type StreamRest<'a> = btree_map::Values<'a, (i64, RequestId), Arc<Queued>>;

struct Waiting<'a> {
    owner: &'a Owner,
    heads: BinaryHeap<Reverse<(i64, &'a RequestId, usize)>>,
    streams: Vec<(StreamRest<'a>, &'a Queued)>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(queue: &'a Queue, share: &'a dyn Fn(&Owner) -> u64) -> Self {
        let mut order = Self {
            queue,
            base: share,
            placed: HashMap::new(),
            levels: Vec::new(),
            turns: BinaryHeap::new(),
            owners: Vec::new(),
            current: None,
        };
        order.restart();
        order
    }

    /// Begins again at the front, with the shares as they have become.
    pub(crate) fn restart(&mut self) {
        self.levels = self.queue.lanes.keys().copied().collect();
        self.turns.clear();
        self.owners.clear();
        self.current = None;
    }

    /// Counts a placement for its owner.
    pub(crate) fn charge(&mut self, queued: &'a Queued) {
        *self.placed.entry(&queued.request.owner).or_default() += queued.weight;
    }

    /// The next request in line. `None` at the end.
    pub(crate) fn next(&mut self) -> Option<&'a Queued> {
        loop {
            if let Some(Reverse((_, _, _, at))) = self.turns.pop() {
                let waiting = &mut self.owners[at];
                if let Some(Reverse((_, _, stream))) = waiting.heads.pop() {
                    self.current = Some((at, stream));
                    return Some(waiting.streams[stream].1);
                }
                continue;
            }
            let level = self.levels.pop()?;
            self.begin(level);
        }
    }

    /// After a request was decided: its stream goes on with the next one.
    pub(crate) fn advance(&mut self) {
        if let Some((at, stream)) = self.current.take() {
            let waiting = &mut self.owners[at];
            let (rest, head) = &mut waiting.streams[stream];
            if let Some(next) = rest.next() {
                *head = next;
                waiting
                    .heads
                    .push(Reverse((next.request.submitted_at_ms, &next.request.id, stream)));
            }
            self.take_turn(at);
        }
    }

    /// After a request was decided, and with it all that wait behind it in
    /// its class: returns how many those are.
    pub(crate) fn skip_class(&mut self) -> u64 {
        self.current.take().map_or(0, |(at, stream)| {
            let rest = self.owners[at].streams[stream].0.len();
            self.take_turn(at);
            rest as u64
        })
    }

    fn begin(&mut self, level: Priority) {
        self.owners.clear();
        for (owner, lane) in self.queue.lanes.get(&level).into_iter().flatten() {
            let mut waiting = Waiting {
                owner,
                heads: BinaryHeap::with_capacity(lane.streams.len()),
                streams: Vec::with_capacity(lane.streams.len()),
            };
            for stream in lane.streams.values() {
                let mut rest = stream.values();
                if let Some(head) = rest.next() {
                    let request = &head.request;
                    let number = waiting.streams.len();
                    waiting
                        .heads
                        .push(Reverse((request.submitted_at_ms, &request.id, number)));
                    waiting.streams.push((rest, &**head));
                }
            }
            self.owners.push(waiting);
            self.take_turn(self.owners.len() - 1);
        }
    }

    fn take_turn(&mut self, at: usize) {
        let waiting = &self.owners[at];
        if let Some(Reverse((age, id, _))) = waiting.heads.peek() {
            let placed = self.placed.get(waiting.owner).copied().unwrap_or(0);
            let share = (self.base)(waiting.owner).saturating_add(placed);
            self.turns.push(Reverse((share, *age, id, at)));
        }
    }
}

/// Equal values get one small number for as long as anybody uses it.
pub(crate) struct Interner<T> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Option<(Arc<T>, u32)>>,
    vacant: Vec<u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            values: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<T: Hash + Eq> Interner<T> {
    fn add(&mut self, value: T) -> u32 {
        if let Some(&number) = self.numbers.get(&value) {
            if let Some((_, users)) = &mut self.values[number as usize] {
                *users += 1;
            }
            return number;
        }
        let value = Arc::new(value);
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.values.push(None);
            index(self.values.len() - 1)
        });
        self.values[number as usize] = Some((Arc::clone(&value), 1));
        self.numbers.insert(value, number);
        number
    }

    fn drop_one(&mut self, number: u32) {
        let place = &mut self.values[number as usize];
        if let Some((value, users)) = place {
            *users -= 1;
            if *users == 0 {
                self.numbers.remove(value);
                *place = None;
                self.vacant.push(number);
            }
        }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&T> {
        let place = self.values.get(number as usize)?;
        place.as_ref().map(|(value, _)| &**value)
    }

    /// One more than the greatest number in use.
    pub(crate) fn bound(&self) -> usize {
        self.values.len()
    }
}
