//! The smallest binary that native jobs can be run by, for the tests: the helper of an engine.

fn main() -> std::process::ExitCode {
    clawbernetes_node::engine::native::helper_main().unwrap_or(std::process::ExitCode::FAILURE)
}
