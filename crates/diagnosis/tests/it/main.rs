//! Faults and busy but healthy machines: what is found, and what isn't.

mod fleet;
mod node;
mod robust;
mod scenario;
mod workload;
mod world;
