//! The node agent: finds the machine's GPUs, runs what the gateway wants there, and reports what it sees.
//!
//! - [`gpu`]: drivers that find and sample GPUs
//! - [`engine`]: what carries workloads out (Docker, native processes)
//! - [`host`]: the rest of the machine: CPUs, memory, operating system
//! - [`spool`]: workloads' output, numbered and on disk until the gateway has it

pub mod engine;
pub mod gpu;
pub mod host;
pub mod spool;
