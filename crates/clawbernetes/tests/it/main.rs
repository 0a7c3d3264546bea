//! The command line as its users meet it: the binary, run in a home of its own.

mod alone;
mod cluster;
mod kill;
mod with_gateway;
mod world;
