//! What waits, kept in order as requests come and go.
//!
//! Equal asks share a number, and so do equal filters, so that what is found
//! out about one request in a pass holds for all like it.

use std::cmp::Reverse;
use std::collections::btree_map;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use crate::filter::{Ask, Filter};
use crate::fleet::index;
use crate::{Fleet, Owner, Priority, Request, RequestId};

/// Waiting requests: by priority, then fair share between owners (least
/// first), then age.
#[derive(Default)]
pub struct Queue {
    by_id: HashMap<RequestId, Arc<Queued>>,
    pub(crate) filters: Interner<Filter>,
    pub(crate) asks: Interner<Ask>,
    /// Asks with their timeouts.
    pub(crate) classes: Interner<(u32, Option<i64>)>,
    numbers: Numbers,
    lanes: BTreeMap<Priority, HashMap<Owner, Lane>>,
    /// Those that say that room is being made for them.
    pub(crate) preempting: BTreeSet<RequestId>,
}

/// A request and its interned numbers.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) request: Request,
    pub(crate) mark: Mark,
    pub(crate) filter: u32,
    pub(crate) weight: u64,
}

/// What a pass has to know to pass a request over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// Its own, among those waiting.
    pub(crate) number: u32,
    pub(crate) ask: u32,
    pub(crate) class: u32,
    pub(crate) not_before_ms: i64,
}

/// What one owner waits for at one priority, in order of age.
type Lane = BTreeMap<(i64, RequestId), (Mark, Arc<Queued>)>;

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
        let ask = Ask::of(&request);
        let filter = self.filters.add(ask.filter.clone());
        let ask = self.asks.add(ask);
        let mark = Mark {
            number: self.numbers.take(),
            ask,
            class: self.classes.add((ask, request.timeout_ms)),
            not_before_ms: request.not_before_ms.unwrap_or(i64::MIN),
        };
        if request.preempting {
            self.preempting.insert(request.id.clone());
        }
        let queued = Arc::new(Queued {
            mark,
            filter,
            weight: request.weight(),
            request,
        });
        let request = &queued.request;
        let lanes = self.lanes.entry(request.priority).or_default();
        let lane = lanes.entry(request.owner.clone()).or_default();
        lane.insert(
            (request.submitted_at_ms, request.id.clone()),
            (mark, Arc::clone(&queued)),
        );
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
            lane.remove(&(request.submitted_at_ms, id.clone()));
            if lane.is_empty() {
                lanes.remove(&request.owner);
            }
        }
        self.classes.drop_one(queued.mark.class);
        self.asks.drop_one(queued.mark.ask);
        self.filters.drop_one(queued.filter);
        self.numbers.give_back(queued.mark.number);
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
        let before = (request.submitted_at_ms, request.id.clone());
        let mut ahead = 0;
        for (priority, lanes) in &self.lanes {
            if *priority > request.priority {
                ahead += lanes.values().map(Lane::len).sum::<usize>();
            } else if *priority == request.priority {
                for (owner, lane) in lanes {
                    let theirs = share(owner);
                    if theirs < mine {
                        ahead += lane.len();
                    } else if theirs == mine {
                        ahead += lane.range(..&before).count();
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
    owners: HashMap<&'a Owner, usize>,
    /// By owner.
    shares: Vec<u64>,
    levels: Vec<Priority>,
    turns: BinaryHeap<Turn<'a>>,
    /// Of the level that is being walked, by owner.
    rests: Vec<Option<Rest<'a>>>,
}

/// Share, then age and id of the owner's next request, then the owner.
type Turn<'a> = Reverse<(u64, i64, &'a RequestId, usize)>;

struct Rest<'a> {
    head: (&'a (i64, RequestId), &'a (Mark, Arc<Queued>)),
    behind: btree_map::Iter<'a, (i64, RequestId), (Mark, Arc<Queued>)>,
}

impl<'a> Order<'a> {
    pub(crate) fn new(queue: &'a Queue, share: impl Fn(&Owner) -> u64) -> Self {
        let mut order = Self {
            queue,
            owners: HashMap::new(),
            shares: Vec::new(),
            levels: Vec::new(),
            turns: BinaryHeap::new(),
            rests: Vec::new(),
        };
        for owner in queue.lanes.values().flat_map(HashMap::keys) {
            order.owners.entry(owner).or_insert_with(|| {
                order.shares.push(share(owner));
                order.shares.len() - 1
            });
        }
        order.restart();
        order
    }

    /// Begins again at the front, with the shares as they have become.
    pub(crate) fn restart(&mut self) {
        self.levels = self.queue.lanes.keys().copied().collect();
        self.turns.clear();
        self.rests.clear();
    }

    /// Counts a placement for its owner.
    pub(crate) fn charge(&mut self, queued: &Queued) {
        if let Some(&owner) = self.owners.get(&queued.request.owner) {
            self.shares[owner] = self.shares[owner].saturating_add(queued.weight);
        }
    }

    /// The next request in line that `pass_over` does not want passed over;
    /// `None` at the end. Its owner's share may be charged before the next call.
    pub(crate) fn next(&mut self, mut pass_over: impl FnMut(&Mark) -> bool) -> Option<&'a Queued> {
        loop {
            let Some(Reverse((share, .., owner))) = self.turns.pop() else {
                let level = self.levels.pop()?;
                self.begin(level);
                continue;
            };
            if share != self.shares[owner] {
                // Charged since it took its turn.
                self.take_turn(owner);
                continue;
            }
            let Some(rest) = self.rests.get_mut(owner).and_then(Option::as_mut) else {
                continue;
            };
            let (_, (mark, queued)) = rest.head;
            let passed = pass_over(mark);
            let next = if passed {
                rest.behind.find(|(_, (mark, _))| !pass_over(mark))
            } else {
                rest.behind.next()
            };
            match next {
                Some(next) => {
                    rest.head = next;
                    self.take_turn(owner);
                }
                None => self.rests[owner] = None,
            }
            if !passed {
                return Some(&**queued);
            }
        }
    }

    fn begin(&mut self, level: Priority) {
        self.rests.clear();
        self.rests.resize_with(self.shares.len(), || None);
        for (owner, lane) in self.queue.lanes.get(&level).into_iter().flatten() {
            let mut behind = lane.iter();
            if let (Some(&owner), Some(head)) = (self.owners.get(owner), behind.next()) {
                self.rests[owner] = Some(Rest { head, behind });
                self.take_turn(owner);
            }
        }
    }

    fn take_turn(&mut self, owner: usize) {
        if let Some(Some(rest)) = self.rests.get(owner) {
            let (age, id) = rest.head.0;
            self.turns.push(Reverse((self.shares[owner], *age, id, owner)));
        }
    }
}

/// Small numbers, each used once at a time.
#[derive(Default)]
struct Numbers {
    bound: u32,
    vacant: Vec<u32>,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.vacant.pop().unwrap_or_else(|| {
            self.bound += 1;
            self.bound - 1
        })
    }

    fn give_back(&mut self, number: u32) {
        self.vacant.push(number);
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
