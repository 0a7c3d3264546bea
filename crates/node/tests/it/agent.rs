//! The smallest binary that native jobs can be run by, for the tests: the helper of an engine, or (with the argument
//! `agent` and a folder) an agent that runs the assignments on its standard input, tells of what happens on its
//! standard output, and waits to be killed.

use std::{io::BufRead, process::ExitCode, sync::Arc};

use clawbernetes_node::{
    engine::{
        Engine,
        native::{self, Config, NativeEngine},
    },
    spool::{Limits, Spool},
};

fn main() -> ExitCode {
    if let Some(code) = native::helper_main() {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("agent"), Some(folder)) => match agent(&folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::FAILURE,
    }
}

fn agent(folder: &str) -> std::io::Result<()> {
    use std::io::Write;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = std::path::Path::new(folder);
        let spool = Spool::open(folder.join("spool"), Limits::default())?;
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let engine = NativeEngine::open(&Config::new(folder.join("data")), &spool, sender)?;
        engine.adopt().await;
        for line in std::io::stdin().lock().lines() {
            engine.start(Arc::new(serde_json::from_str(&line?)?));
        }
        while let Some(event) = events.recv().await {
            writeln!(std::io::stdout(), "{event:?}")?;
        }
        Ok(())
    })
}
