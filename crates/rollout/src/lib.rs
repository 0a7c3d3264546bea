//! *How many, when, and back again*: a sentence becomes an [`intent`], an intent and what is there become a [`plan`], a plan
//! and what is seen become the next step ([`drive`]), and what was measured becomes a verdict ([`analysis`]) or another
//! number of replicas ([`autoscale`]). Nothing here opens a socket, reads a clock or draws a random number.

pub mod analysis;
pub mod autoscale;
pub mod drive;
pub mod intent;
pub mod plan;
