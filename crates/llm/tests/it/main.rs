//! Models from outside: beside servers that speak as the providers do, and as they shouldn't.
#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

mod asked;
mod canary;
mod proxy;
mod sentences;
mod stand_in;
mod wrong;
