//! Durable, watchable, transactional records.
//!
//! A store is one ordered map from [`Key`] to [`Record`] with a single clock, the [`Revision`], that
//! ticks once per committed transaction. Everything that the fleet must not forget lives here.
//!
//! - [`Store::txn`] changes several records at once, or none, if its [`Condition`]s hold.
//! - [`Store::get`] and [`Store::range`] read the newest committed state and never wait for a writer.
//! - [`Store::watch`] delivers every change after a revision, in order and without a gap, or says
//!   that it cannot ([`StoreError::Compacted`]).
//! - [`Store::grant`] makes a lease: records put under it disappear, in one transaction, when nobody
//!   keeps it alive.
//!
//! [`Store`] is the face; behind it stands an [`Engine`]. The embedded one ([`Store::open`]) keeps
//! one file and shares one `fsync` between concurrent transactions. Its core, [`embedded::Db`], is
//! synchronous and takes time as an argument, so that a simulation can drive it in one thread.

pub mod embedded;
mod error;
mod key;
mod record;
mod store;
mod txn;
mod watch;

pub use error::{Part, StoreError};
pub use key::{Key, Range};
pub use record::{Change, LeaseId, Record, Revision};
pub use store::{BoxFuture, Engine, Health, Order, Page, Status, Store};
pub use txn::{Condition, FailedCondition, Limits, Op, Txn, TxnOutcome};
pub use watch::{Watch, WatchBatch, WatchSource};
