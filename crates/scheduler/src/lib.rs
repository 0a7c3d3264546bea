//! Clawbernetes: scheduler.
//!
//! Pure: a fleet, a queue and a time go in, a plan comes out. No clock, no
//! randomness, no IO.
//!
//! [`Fleet`] and [`Queue`] are kept up to date one change at a time;
//! [`schedule`] decides who starts where, who has to go, and who waits;
//! [`explain`] tells one request why, by the same filter.
//!
//! All times are milliseconds since the epoch, all sizes bytes.

mod bits;
mod explain;
mod filter;
mod fleet;
mod gpu_model;
mod hash;
mod id;
mod kind;
mod node;
mod pass;
mod place;
mod plan;
mod preempt;
mod queue;
mod remedy;
mod request;
mod reserve;
mod schedule;
mod topology;

pub use explain::{Blocker, BlockerCount, Context, Explanation, Freeing, QueuePlace, explain};
pub use fleet::Fleet;
pub use gpu_model::model_matches;
pub use id::{AllocationKey, NodeName, Owner, RequestId};
pub use node::{Engine, Gpu, GpuLink, Link, Node, NodeState, Taint, TaintEffect};
pub use plan::{Deduction, Flaw, Member, Placement, Plan, Preemption, Reservation, Victim, Wait};
pub use queue::{Queue, Usage};
pub use remedy::{Change, Remedy};
pub use request::{Allocation, HOST_IMAGE, Priority, Request, Toleration, TolerationOperator};
pub use schedule::{Limits, schedule};
