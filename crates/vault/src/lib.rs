//! What is kept closed: secrets under envelope encryption, and the fleet's certificate authority.
//!
//! Everything here is pure but for the operating system's random numbers and the three ways to get the master key. The
//! gateway keeps the records; this crate says what is in them and what may become of them.

mod bytes;
pub mod chain;
pub mod pki;
pub mod secret;
