//! The node agent: finds the machine's GPUs, runs what the gateway wants there, and reports what it sees.
//!
//! - [`agent`]: what the agent decides, without sockets, files and clocks
//! - [`engine`]: what carries workloads out (Docker, native processes)
//! - [`gpu`]: drivers that find and sample GPUs
//! - [`host`]: the rest of the machine: CPUs, memory, operating system
//! - [`sample`]: measuring, and what the kernel's log says
//! - [`secret`]: workloads' secrets on their way to them
//! - [`session`]: the agent at work, with disk, engines, drivers and gateway
//! - [`start`]: a node agent with everything that this machine has
//! - [`spool`]: workloads' output, numbered and on disk until the gateway has it

pub mod agent;
pub mod engine;
pub mod gpu;
pub mod host;
mod mask;
pub mod sample;
pub mod secret;
pub mod session;
pub mod spool;
pub mod start;
