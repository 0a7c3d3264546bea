//! Alerts: what to look for, since when it has been so, who has to hear of it, and in which form.
//!
//! ```text
//! RuleSet --needs--> (the caller asks its stores) --gather--> Observed
//!    |                                                           |
//!    +----> evaluate(_all) <-- States (kept) <-------------------+
//!               |  States', Transitions (events to record)
//!               v
//!           mutes <-- Silences          list: what people see
//!               |
//!           plan <-- Receivers, Ledger (kept)
//!               |  Deliveries
//!               v
//!           Ledger::sending --> payload::body --> (the caller sends) --> Ledger::delivered | failed
//! ```
//!
//! Everything is a function of its arguments. Two things are kept by the caller: [`States`] and [`Ledger`].

mod condition;
mod defaults;
mod evaluate;
mod judge;
mod list;
mod matcher;
mod notify;
pub mod payload;
mod prometheus;
mod reading;
mod receiver;
mod rule;
mod silence;
mod span;
mod state;
mod template;
mod trend;
mod unit;

#[cfg(test)]
mod scene;

pub use condition::{Absent, Bits, Bound, Condition, Events, MetricBound, Op, StateIs, Threshold, Trend};
pub use evaluate::{Change, Outcome, Transition, evaluate, evaluate_all, evaluate_each};
pub use judge::Evidence;
pub use list::{AlertView, list};
pub use matcher::{Labels, MatchOp, Matcher, MatcherError};
pub use notify::{Delivery, Ledger, Occasion, Plan, plan};
pub use prometheus::{PrometheusMetric, to_prometheus_rules};
pub use reading::{Need, Observation, Observed, Reading, Series, Take, gather};
pub use receiver::{Address, Format, Receiver, ReceiverError};
pub use rule::{Inhibition, Rule, RuleError, RuleFile, RuleSet, Severity};
pub use silence::{Mute, Silence, SilenceError, mutes};
pub use span::{Span, SpanError};
pub use state::{Alert, Alerts, Fingerprint, Phase, Resolution, States};
pub use template::TemplateError;
pub use unit::Unit;
