//! Sentences, as a caller sees them.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod corpus;
mod dice;
mod intents;
mod mutations;
