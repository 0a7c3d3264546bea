//! The command line as its users meet it: the binary, run in a home of its own; and the fleet that it makes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that can't go on says where and why, on its own output"
)]

mod access;
mod alerts;
mod alone;
mod answering;
mod audit;
mod bad_input;
mod canary;
mod carrying;
mod certs;
mod cluster;
mod deploying;
mod deploying_containers;
mod deploying_killed;
mod deploying_preempted;
mod deploying_restarts;
mod deploying_tcp;
mod docker;
mod echoing;
mod jobs;
mod judging;
mod kill;
mod metrics;
mod model;
mod native;
mod oidc;
mod prometheus;
mod provider;
mod pty;
mod replicas;
mod scaling;
mod scheduled;
mod sealed;
mod secrets;
mod seeing;
mod stage;
mod tls;
mod told;
mod top;
mod with_gateway;
mod world;
