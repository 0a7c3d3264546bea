//! The node agent's parts against what they are made for.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test may panic, and its helpers too"
)]

mod gpu_amd;
mod gpu_nvidia;
mod native;
