//! Sentences into plans, and plans into steps, seen from outside.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod analysis;
mod autoscale;
mod corpus;
mod dangers;
mod drive;
mod intents;
mod mutations;
mod plan;
mod random;
mod sentences;
