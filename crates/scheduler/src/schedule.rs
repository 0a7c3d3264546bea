//! One pass over the queue.

use crate::filter::{Depth, node_fits};
use crate::pass::Pass;
use crate::place::{Choice, NotFound, Prepared, Taste};
use crate::plan::{Member, Placement, Plan, Wait};
use crate::queue::{Order, Queued};
use crate::{Fleet, Owner, Queue, Usage};

/// Bounds of one pass. A pass cut short says so; carry it out and plan again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most placements.
    pub placements: usize,
    /// Most workloads evicted.
    pub victims: usize,
    /// Added to a small job's own end, in milliseconds, when judging whether
    /// it is gone before the head of the queue may start: pulling an image
    /// and stopping take time.
    pub backfill_margin_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            placements: usize::MAX,
            victims: usize::MAX,
            backfill_margin_ms: 30_000,
        }
    }
}

/// Decides who starts where, who has to go and who waits.
///
/// Pure: equal inputs give equal plans. Carrying a plan out and planning
/// again at the same time finds nothing more to do.
#[must_use]
pub fn schedule(fleet: &Fleet, queue: &Queue, usage: &Usage, now_ms: i64, limits: &Limits) -> Plan {
    let share = |owner: &Owner| usage.share(fleet, owner);
    let mut order = Order::new(queue, &share);
    let mut pass = Pass::new(fleet, now_ms);
    let mut prepared: Vec<Option<Prepared<'_>>> = Vec::new();
    prepared.resize_with(queue.asks.bound(), || None);
    let mut blocked = vec![false; queue.asks.bound()];
    let mut plan = Plan::default();
    while let Some(queued) = order.next() {
        plan.decisions += 1;
        let request = &queued.request;
        if request.not_before_ms.is_some_and(|at| at > now_ms) {
            *plan.waiting.entry(Wait::BackOff).or_default() += 1;
            order.advance();
            continue;
        }
        let ask = queued.ask as usize;
        if blocked[ask] {
            let behind = order.skip_class();
            plan.decisions += behind;
            *plan.waiting.entry(Wait::Resources).or_default() += 1 + behind;
            continue;
        }
        let Some(known) = queue.asks.get(queued.ask) else {
            order.advance();
            continue;
        };
        let place = prepared[ask].get_or_insert_with(|| Prepared::new(fleet, known));
        let end_ms = request.timeout_ms.map(|t| now_ms.saturating_add(t));
        let taste = Taste {
            image: &request.image,
            end_ms: end_ms.map(|end| end.saturating_add(limits.backfill_margin_ms)),
        };
        match place.place(&mut pass, taste) {
            Ok(gang) => {
                for choice in &gang {
                    pass.start(choice.node, place.claim(choice.gpus), end_ms);
                }
                plan.placements.push(placement(&pass, queued, &gang));
                order.charge(queued);
                order.advance();
            }
            Err(NotFound::NoRoom | NotFound::Held) => {
                blocked[ask] = true;
                *plan.waiting.entry(Wait::Resources).or_default() += 1;
                order.advance();
            }
        }
    }
    plan
}

fn placement(pass: &Pass<'_>, queued: &Queued, gang: &[Choice]) -> Placement {
    let members = gang.iter().zip(0..).map(|(choice, rank)| {
        let entry = pass.entry(choice.node);
        Member {
            rank,
            node: entry.name.clone(),
            gpus: entry.indices(choice.gpus),
        }
    });
    Placement {
        request: queued.request.id.clone(),
        members: members.collect(),
        cpu_millicores: queued.request.cpu_millicores,
        memory_bytes: queued.request.memory_bytes,
    }
}
