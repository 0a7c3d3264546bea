//! The smallest binary that jobs can be run by, for the tests: the helper of an engine, or an agent that runs the
//! assignments on its standard input, tells of what happens on its standard output, and waits to be killed: of native
//! jobs with the argument `agent` and a folder, of containers with `containers`, a folder, Docker's socket and the node's
//! name; or a job itself, which serves a folder at `HOST` and `PORT`, with the argument `serve`. A number instead of an assignment is a lease in milliseconds.

use std::{io::BufRead, process::ExitCode, sync::Arc};

use clawbernetes_node::{
    engine::{
        Engine, EngineEvent,
        docker::{DockerEngine, Options},
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
        (Some("agent"), Some(folder)) => end(agent(&folder)),
        (Some("containers"), Some(folder)) => end(containers(&folder, arguments)),
        (Some("serve"), Some(folder)) => end(serve(&folder)),
        _ => ExitCode::FAILURE,
    }
}

fn end(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn agent(folder: &str) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = std::path::Path::new(folder);
        let spool = Spool::open(folder.join("spool"), Limits::default())?;
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let engine = NativeEngine::open(&Config::new(folder.join("data")), &spool, sender)?;
        engine.adopt().await;
        for line in std::io::stdin().lock().lines() {
            engine.start(Arc::new(serde_json::from_str(&line?)?), None);
        }
        tell(events).await
    })
}

fn containers(folder: &str, mut arguments: impl Iterator<Item = String>) -> std::io::Result<()> {
    use std::io::{Error, Write};
    let mut next = || arguments.next().ok_or_else(|| Error::other("an argument is missing"));
    let (socket, node) = (next()?, next()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let folder = std::path::Path::new(folder);
        let spool = Arc::new(Spool::open(folder.join("spool"), Limits::default())?);
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let options = Options {
            socket: Some(socket.into()),
            ..Options::new(api::NodeName::new(node))
        };
        let engine = DockerEngine::connect(options, spool, sender)
            .await
            .map_err(Error::other)?;
        let engine = Arc::new(engine);
        engine.guard(&folder.join("containers"), None)?;
        for found in engine.adopt().await.0 {
            let fenced = engine.fenced(&found.job);
            writeln!(std::io::stdout(), "{found:?} fenced: {fenced}")?;
        }
        writeln!(std::io::stdout(), "adopted")?;
        let telling = tokio::spawn(tell(events));
        let orders = tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lock().lines() {
                match serde_json::from_str(&line?)? {
                    serde_json::Value::Number(ms) => {
                        engine.set_lease(ms.as_u64().map(std::time::Duration::from_millis))?;
                        writeln!(std::io::stdout(), "leased")?;
                    }
                    assignment => {
                        engine.start(Arc::new(serde_json::from_value(assignment)?), None);
                    }
                }
            }
            Ok(())
        });
        // The end of the orders is this agent's orderly end.
        let ended: std::io::Result<()> = orders.await?;
        telling.abort();
        ended
    })
}

fn serve(folder: &str) -> std::io::Result<()> {
    use std::io::{BufReader, Error, Write};
    let own = |name: &str| std::env::var(name).map_err(Error::other);
    let listener = std::net::TcpListener::bind(format!("{}:{}", own("HOST")?, own("PORT")?))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut lines = BufReader::new(stream.try_clone()?).lines().map_while(Result::ok);
        let first = lines.next().unwrap_or_default();
        // To the end of the head: what is closed with something unread is reset.
        lines.find(String::is_empty);
        let path = first
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .trim_start_matches('/');
        let file = std::fs::read(std::path::Path::new(folder).join(path));
        let (status, body) = file.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        // Whoever only wanted to see whether anybody listens has gone.
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)));
    }
    Ok(())
}

async fn tell(mut events: tokio::sync::mpsc::UnboundedReceiver<EngineEvent>) -> std::io::Result<()> {
    use std::io::Write;
    while let Some(event) = events.recv().await {
        writeln!(std::io::stdout(), "{event:?}")?;
    }
    Ok(())
}
