//! The node agent's parts against the real things.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that can't go on says where and why, on its own output"
)]

mod docker;
mod gpu_amd;
mod gpu_nvidia;
mod native;
mod replicas;
