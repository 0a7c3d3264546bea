//! The command line as its users meet it: the binary, run in a home of its own; and the fleet that it makes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;
mod bad_input;
mod cluster;
mod docker;
mod jobs;
mod kill;
mod native;
mod with_gateway;
mod world;
