//! Clawbernetes: diagnosis.
//!
//! Pure: samples, log facts and events go in, findings and a health score
//! come out. No clock, no randomness, no IO.
//!
//! [`diagnose_node`] and [`diagnose_workload`] look at one thing closely;
//! [`health`] adds up what was found in the whole fleet. What can be found is
//! data: [`node_rules`] and [`workload_rules`], the table of XID errors
//! ([`xid::all`]), and the patterns of log lines ([`patterns::TABLE`]).
//! What wasn't measured is said to be unknown: it is never a finding, and
//! never healthy.
//!
//! [`alert`] tells since when something has been so, and who has to hear of it.
//!
//! All times are milliseconds since the epoch, all sizes bytes, all
//! temperatures degrees Celsius, all shares percent unless said otherwise.

pub mod alert;
pub mod command;
mod finding;
mod health;
pub mod metric;
mod node;
pub mod patterns;
mod rule;
mod series;
pub mod stats;
pub mod throttle;
mod words;
mod workload;
pub mod xid;
mod xid_chain;
mod xid_finding;

pub use finding::{Evidence, Finding, Remedy, Severity, Status, Target};
pub use health::{
    AlertFact, Deduction, FleetFacts, Health, NodeCounts, NodeHealth, NodeState, Overview, Points, Share, Usage, health,
};
pub use node::{
    AmdTrouble, Direction, ErrorGroup, ErrorsSection, GpuFacts, GpuMemory, GpuThermal, Kernel, KernelEvent, LogGroup,
    MemorySection, MetricStats, NodeDiagnosis, NodeFacts, Peer, ThermalSection, ThrottleShare, Trend, TrendsSection,
    check_node, diagnose_node, node_rules,
};
pub use rule::{RuleInfo, Section, Unchecked};
pub use series::{Series, SeriesSet, increase};
pub use workload::{
    Attempt, Bottleneck, Change, Class, Comparison, ExitReason, GpuUse, Oom, Performance, Phase, Rank, Recommendation,
    Requests, Signal, Straggler, UseSection, Verdict, WorkloadDiagnosis, WorkloadFacts, compare, diagnose_workload,
    workload_rules,
};
