//! The `clawbernetes` binary: the command line, and the servers that it starts.

mod cli;
mod client;
mod commands;
mod complete;
mod config;
mod failure;
mod local;
mod manifest_file;
mod nearest;
mod output;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
