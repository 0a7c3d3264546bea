//! Deployments carried out in worlds that a test makes.

mod acts;
mod explore;
mod simulate;
mod strategies;
mod world;
