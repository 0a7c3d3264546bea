//! The `clawbernetes` binary.
fn main() {}
