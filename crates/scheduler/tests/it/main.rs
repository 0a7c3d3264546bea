//! The scheduler from outside: scenarios with their plans as text, and
//! properties of random worlds.

extern crate clawbernetes_scheduler as scheduler;

mod explaining;
mod placing;
mod properties;
mod random;
mod waiting;
mod world;
