//! The `clawbernetes` binary: the command line, and the servers that it starts.

mod cli;
mod client;
mod commands;
mod complete;
mod config;
mod failure;
mod local;
mod manifest_file;
mod memory;
mod output;
mod serving;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else, and before any thread: this process may have been started to be a node's helper.
    if let Some(code) = node::engine::native::helper_main() {
        return code;
    }
    memory::share_arenas();
    cli::main()
}
