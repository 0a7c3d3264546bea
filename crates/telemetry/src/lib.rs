//! What workloads and nodes tell about themselves, kept at the gateway.
//!
//! [`logs`] is the durable store of workload output: numbered lines, stored once, acknowledged after
//! fsync, with holes marked and never silent. [`metrics`] is the store of time series: raw samples for days,
//! five-minute roll-ups for a year. [`promql`] asks for them in Prometheus' language.

pub mod logs;
pub mod metrics;
pub mod promql;
mod varint;
