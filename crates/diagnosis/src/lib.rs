//! Clawbernetes: what is wrong, with evidence.
//!
//! Pure: readings and a time go in, plain data comes out. No clock, no IO.

pub mod alert;
