//! The command line as its users meet it: the binary, run in a home of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod alone;
mod with_gateway;
mod world;
