//! Tries whether jobs work, as they asked for.

use std::{sync::Arc, time::Duration};

use api::{
    wire::ExecEvent,
    workload::{HealthCheck, JobKey, Probe},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use tokio::{net::TcpStream, time::MissedTickBehavior};

use super::http;
use crate::engine::Engine;

/// The workload's own address.
const OWN: &str = "127.0.0.1";

/// Ends when so many tries in a row have failed as the check allows. The first try comes an interval after the start.
pub(super) async fn watch(job: JobKey, check: HealthCheck, engine: Option<Arc<dyn Engine>>) {
    let period = check.interval.duration().max(Duration::from_millis(100));
    let mut times = tokio::time::interval(period);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    times.tick().await;
    let mut failed = 0;
    while failed < check.failures.max(1) {
        times.tick().await;
        let tried = tokio::time::timeout(check.timeout.duration(), attempt(&job, &check.probe, engine.as_deref()));
        match tried.await.unwrap_or_else(|_| Err("it took too long".to_owned())) {
            Ok(()) => failed = 0,
            Err(why) => {
                failed += 1;
                tracing::info!(%job, failed, why, "health check failed");
            }
        }
    }
}

async fn attempt(job: &JobKey, probe: &Probe, engine: Option<&dyn Engine>) -> Result<(), String> {
    match probe {
        Probe::Tcp(port) => {
            let connected = TcpStream::connect((OWN, *port)).await;
            connected.map(drop).map_err(|error| error.to_string())
        }
        Probe::Http(url) => {
            let (authority, path) = split(url)?;
            let request = Request::get(path)
                .header(header::HOST, &authority)
                .body(Full::new(Bytes::new()))
                .map_err(|error| error.to_string())?;
            let (status, _) = http::send(&authority, request)
                .await
                .map_err(|error| error.to_string())?;
            if status.is_success() || status.is_redirection() {
                Ok(())
            } else {
                Err(format!("it answered {status}"))
            }
        }
        Probe::Command(command) => {
            let engine = engine.ok_or("its engine is gone")?;
            let mut exec = engine
                .exec(job, command.clone())
                .await
                .map_err(|error| error.to_string())?;
            drop(exec.input);
            while let Some(event) = exec.events.recv().await {
                match event {
                    ExecEvent::Output { .. } => {}
                    ExecEvent::Exited { code: 0 } => return Ok(()),
                    ExecEvent::Exited { code } => return Err(format!("the command exited with {code}")),
                    ExecEvent::Failed { error } => return Err(error.to_string()),
                }
            }
            Err("the engine lost the command".to_owned())
        }
    }
}

/// Host with port, and path, of `http://host:port/path`, `8080/path`, `:8080/path`, `8080` or `/path`.
fn split(url: &str) -> Result<(String, String), String> {
    if url.starts_with("https://") {
        return Err("health checks don't speak https".to_owned());
    }
    let (authority, path) = match url.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => url.split_at(url.find('/').unwrap_or(url.len())),
    };
    let authority = match authority {
        "" => format!("{OWN}:80"),
        port if port.bytes().all(|b| b.is_ascii_digit()) => format!("{OWN}:{port}"),
        port if port.starts_with(':') => format!("{OWN}{port}"),
        host if host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok()) =>
        {
            host.to_owned()
        }
        host => format!("{host}:80"),
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok((authority, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_what_stands_for_them() {
        for (url, authority, path) in [
            ("http://10.0.0.1:80/ok", "10.0.0.1:80", "/ok"),
            ("http://web", "web:80", "/"),
            ("8080", "127.0.0.1:8080", "/"),
            (":8080/live?x=1", "127.0.0.1:8080", "/live?x=1"),
            ("/healthz", "127.0.0.1:80", "/healthz"),
        ] {
            assert_eq!(split(url).unwrap(), (authority.to_owned(), path.to_owned()), "{url}");
        }
        assert!(split("https://x").is_err());
    }
}
