//! *How many, when, and back again*: a sentence becomes an [`intent`], an intent and what is there become a [`plan`], and
//! a plan and what is seen become the next step. What is seen is judged by [`analysis`];
//! [`autoscale`] says how many replicas a load needs. Nothing here opens a socket, reads a clock or draws a random number.

pub mod analysis;
pub mod autoscale;
pub mod intent;
pub mod plan;
