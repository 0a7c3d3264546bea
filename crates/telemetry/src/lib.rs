//! What workloads and nodes tell about themselves, kept at the gateway.
//!
//! [`logs`] is the durable store of workload output: numbered lines, stored once, acknowledged after
//! fsync, with holes marked and never silent.

pub mod logs;
