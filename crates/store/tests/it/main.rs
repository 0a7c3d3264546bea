//! The store from outside: its contract under concurrency, crashes and full disks.

mod core;
mod crash;
mod engine;
mod faults;
mod model;
mod watch;
