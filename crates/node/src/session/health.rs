//! Tries whether jobs work and can serve, as they asked for.
//!
//! Ports that a check names are those that its job declares; where the node has picked others, those are tried.

use std::{error::Error, future::pending, sync::Arc, time::Duration};

use api::{
    wire::ExecEvent,
    workload::{Endpoint, HealthCheck, JobKey, Probe},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, header};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::http;
use crate::engine::Engine;

/// The workload's own address.
const OWN: &str = "127.0.0.1";

/// Shortest time between two tries.
const PERIOD_MIN: Duration = Duration::from_millis(100);

/// The first try at readiness comes so soon after the start, unless the check's interval is shorter.
const FIRST_TRY: Duration = Duration::from_secs(1);

/// A connection to a published port of a container must stand for so long: where nothing listens in the container, what
/// publishes the port takes the connection all the same, and lets it go at once.
const HELD: Duration = Duration::from_millis(200);

/// Longest reason that is told, in characters.
const WHY_MAX: usize = 300;

/// What is tried of a job.
pub(super) struct Checks {
    pub(super) job: JobKey,
    /// Whether it works. `None`: nobody asks.
    pub(super) liveness: Option<HealthCheck>,
    /// Whether it can serve. `None`: nobody asks.
    pub(super) readiness: Option<HealthCheck>,
    pub(super) target: Target,
    /// It was found to be ready last.
    pub(super) ready: bool,
    /// It has been ready before.
    pub(super) was_ready: bool,
    /// How long it has run.
    pub(super) ran: Duration,
}

/// Where a job's checks go.
pub(super) struct Target {
    /// `None`: it is gone.
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Its ports are a container's, published on the node's.
    pub(super) published: bool,
}

/// Ends when so many tries at its liveness in a row have failed as the check allows. `changed` is told what its readiness
/// comes to: whether it is ready, and why not.
pub(super) async fn watch(checks: Checks, changed: impl Fn(bool, Option<String>)) {
    let first_ready = watch::Sender::new(checks.was_ready || checks.readiness.is_none());
    let readying = async {
        if let Some(check) = &checks.readiness {
            ready(&checks, check, &first_ready, changed).await;
        }
        pending::<()>().await;
    };
    let living = async {
        let Some(check) = &checks.liveness else {
            return pending().await;
        };
        let patience = check.patience().duration().saturating_sub(checks.ran);
        let mut first = first_ready.subscribe();
        tokio::select! {
            _ = first.wait_for(|ready| *ready) => {}
            () = sleep(patience) => {}
        }
        live(&checks, check).await;
    };
    tokio::select! {
        () = living => {}
        () = readying => {}
    }
}

/// Ends when too many tries in a row have failed. The first comes an interval from now.
async fn live(checks: &Checks, check: &HealthCheck) {
    let period = check.interval.duration().max(PERIOD_MIN);
    let mut times = interval_at(Instant::now() + period, period);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = 0;
    while failed < check.failures.max(1) {
        times.tick().await;
        match attempt(checks, check).await {
            Ok(()) => failed = 0,
            Err(why) => {
                failed += 1;
                tracing::info!(job = %checks.job, failed, why, "health check failed");
            }
        }
    }
}

/// Tries its readiness for ever.
async fn ready(
    checks: &Checks,
    check: &HealthCheck,
    first: &watch::Sender<bool>,
    changed: impl Fn(bool, Option<String>),
) {
    let period = check.interval.duration().max(PERIOD_MIN);
    let mut times = interval_at(Instant::now() + period.min(FIRST_TRY), period);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ready, mut failed) = (checks.ready, 0);
    let mut told = None;
    loop {
        times.tick().await;
        let why = match attempt(checks, check).await {
            Ok(()) => {
                (ready, failed) = (true, 0);
                first.send_replace(true);
                None
            }
            Err(why) => {
                failed += 1;
                if ready && failed < check.failures.max(1) {
                    continue;
                }
                ready = false;
                Some(why)
            }
        };
        let now = (ready, why);
        if told.as_ref() != Some(&now) {
            told = Some(now.clone());
            changed(now.0, now.1);
        }
    }
}

/// One try, within its time.
async fn attempt(checks: &Checks, check: &HealthCheck) -> Result<(), String> {
    let limit = check.timeout.duration();
    let tried = timeout(limit, checks.target.reach(&checks.job, &check.probe, limit));
    let mut tried = tried.await.unwrap_or_else(|_| Err("it took too long".to_owned()));
    if let Err(why) = &mut tried
        && let Some((at, _)) = why.char_indices().nth(WHY_MAX)
    {
        why.truncate(at);
    }
    tried
}

impl Target {
    async fn reach(&self, job: &JobKey, probe: &Probe, limit: Duration) -> Result<(), String> {
        match probe {
            Probe::Tcp(port) => {
                let connected = TcpStream::connect((OWN, real(&self.endpoints, *port))).await;
                let mut stream = connected.map_err(|error| error.to_string())?;
                if self.published {
                    let mut byte = [0];
                    let read = timeout(HELD.min(limit / 2), stream.read(&mut byte)).await;
                    if let Ok(Ok(0) | Err(_)) = read {
                        return Err(format!("nothing listens on {port} in the container"));
                    }
                }
                Ok(())
            }
            Probe::Http(url) => {
                let (authority, path) = split(url, &self.endpoints)?;
                let request = Request::get(path)
                    .header(header::HOST, &authority)
                    .body(Full::new(Bytes::new()))
                    .map_err(|error| error.to_string())?;
                let (status, _) = http::send(&authority, request).await.map_err(|error| chain(&error))?;
                if status.is_success() || status.is_redirection() {
                    Ok(())
                } else {
                    Err(format!("it answered {status}"))
                }
            }
            Probe::Command(command) => self.run(job, command).await,
        }
    }

    async fn run(&self, job: &JobKey, command: &[String]) -> Result<(), String> {
        let engine = self.engine.as_deref().ok_or("its engine is gone")?;
        let mut exec = engine
            .exec(job, command.to_vec())
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

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some say their cause's words themselves.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The real port of a declared one; any other is what it is.
pub(super) fn real(endpoints: &[Endpoint], port: u16) -> u16 {
    let declared = endpoints.iter().find(|endpoint| endpoint.port == port);
    declared.map_or(port, |endpoint| endpoint.host_port)
}

/// Host with port, and path, of `http://host:port/path`, `8080/path`, `:8080/path`, `8080` or `/path`.
fn split(url: &str, endpoints: &[Endpoint]) -> Result<(String, String), String> {
    if url.starts_with("https://") {
        return Err("checks don't speak https".to_owned());
    }
    let (authority, path) = match url.strip_prefix("http://") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => url.split_at(url.find('/').unwrap_or(url.len())),
    };
    let own = |host: &str, port: u16| format!("{host}:{}", real(endpoints, port));
    let port_of = |text: &str| text.parse::<u16>().map_err(|_| format!("'{text}' is no port"));
    let authority = match authority {
        "" => {
            let first = endpoints.first().map_or(80, |first| first.host_port);
            format!("{OWN}:{first}")
        }
        port if port.bytes().all(|b| b.is_ascii_digit()) => own(OWN, port_of(port)?),
        port if port.starts_with(':') => own(OWN, port_of(&port[1..])?),
        authority => {
            let named = authority
                .rsplit_once(':')
                .and_then(|(host, port)| Some((host, port.parse().ok()?)));
            let (host, port) = named.unwrap_or((authority, 80));
            if matches!(host, "localhost" | OWN | "[::1]") {
                own(host, port)
            } else {
                format!("{host}:{port}")
            }
        }
    };
    let path = if path.is_empty() { "/" } else { path };
    Ok((authority, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

    use api::Span;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    fn endpoint(port: u16, host_port: u16) -> Endpoint {
        Endpoint {
            name: String::new(),
            port,
            host_port,
        }
    }

    #[test]
    fn urls_and_what_stands_for_them() {
        let picked = [endpoint(8000, 20_001), endpoint(9000, 20_002)];
        for (url, plain, real, path) in [
            ("http://10.0.0.1:8000/ok", "10.0.0.1:8000", "10.0.0.1:8000", "/ok"),
            ("http://web", "web:80", "web:80", "/"),
            ("http://localhost:9000", "localhost:9000", "localhost:20002", "/"),
            ("8000", "127.0.0.1:8000", "127.0.0.1:20001", "/"),
            (":9000/live?x=1", "127.0.0.1:9000", "127.0.0.1:20002", "/live?x=1"),
            ("7000/", "127.0.0.1:7000", "127.0.0.1:7000", "/"),
            ("/healthz", "127.0.0.1:80", "127.0.0.1:20001", "/healthz"),
            ("", "127.0.0.1:80", "127.0.0.1:20001", "/"),
        ] {
            let to = |authority: &str| Ok((authority.to_owned(), path.to_owned()));
            assert_eq!(split(url, &[]), to(plain), "{url}");
            assert_eq!(split(url, &picked), to(real), "{url}");
        }
        for bad in ["https://x", "99999", ":x/"] {
            assert!(split(bad, &[]).is_err(), "{bad}");
        }
    }

    fn check(probe: Probe, interval: u64, failures: u32) -> HealthCheck {
        HealthCheck {
            probe,
            interval: Span(interval),
            timeout: Span::secs(5),
            failures,
        }
    }

    fn checks(liveness: Option<HealthCheck>, readiness: Option<HealthCheck>, endpoints: Vec<Endpoint>) -> Checks {
        Checks {
            job: "wl-a.1.0".parse().unwrap(),
            liveness,
            readiness,
            target: Target {
                engine: None,
                endpoints,
                published: false,
            },
            ready: false,
            was_ready: false,
            ran: Duration::ZERO,
        }
    }

    /// Answers every request with this status, one connection after the other.
    async fn answer(listener: &TcpListener, status: &AtomicU16) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            let status = status.load(Ordering::Relaxed);
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn readiness_comes_goes_and_comes_again_at_the_real_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = vec![endpoint(8000, listener.local_addr().unwrap().port())];
        let status = AtomicU16::new(200);
        let changes = watch::Sender::new(Vec::new());
        let checks = checks(None, Some(check(Probe::Http("/ready".to_owned()), 100, 2)), endpoints);
        let watching = watch(checks, |ready, why| {
            changes.send_modify(|all| all.push((ready, why)));
        });
        let steps = async {
            let mut changes = changes.subscribe();
            for (count, next) in [(1, 503), (2, 204), (3, 200)] {
                let _ = changes.wait_for(|all| all.len() == count).await;
                status.store(next, Ordering::Relaxed);
            }
        };
        tokio::select! {
            () = watching => panic!("nobody asked whether it works"),
            () = answer(&listener, &status) => {}
            () = steps => {}
        }
        let why = Some("it answered 503 Service Unavailable".to_owned());
        assert_eq!(*changes.borrow(), [(true, None), (false, why), (true, None)]);
    }

    /// Time runs ahead whenever nothing else can happen; the command fails at once, as there is no engine.
    #[tokio::test(start_paused = true)]
    async fn liveness_waits_for_the_first_readiness_or_for_ten_times_its_own_time() {
        let failing = |interval, failures| check(Probe::Command(vec!["false".to_owned()]), interval, failures);
        let liveness = failing(1_000, 3);
        assert_eq!(liveness.patience(), Span::secs(30));
        let took = async |checks: Checks| {
            let (begun, said) = (Instant::now(), AtomicUsize::new(0));
            watch(checks, |ready, why| {
                assert!(!ready && why.is_some());
                said.fetch_add(1, Ordering::Relaxed);
            })
            .await;
            (begun.elapsed().as_secs(), said.load(Ordering::Relaxed))
        };
        let both = || checks(Some(liveness.clone()), Some(failing(500, 1)), Vec::new());
        assert_eq!(
            took(both()).await,
            (33, 1),
            "its patience and three tries; what stays the same is said once"
        );
        // What it has run counts, and one that was ready in an earlier life of the agent is given no time.
        let ran = Duration::from_secs(29);
        assert_eq!(took(Checks { ran, ..both() }).await, (4, 1));
        assert_eq!(
            took(Checks {
                was_ready: true,
                ..both()
            })
            .await,
            (3, 1)
        );
        let readiness = None;
        assert_eq!(took(Checks { readiness, ..both() }).await, (3, 0));
    }

    #[tokio::test]
    async fn a_published_port_that_lets_go_at_once_is_not_listened_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let published = Target {
            engine: None,
            endpoints: vec![endpoint(80, listener.local_addr().unwrap().port())],
            published: true,
        };
        let job = "wl-a.1.0".parse().unwrap();
        let limit = Duration::from_secs(5);
        let probe = Probe::Tcp(80);
        let (reached, held) = tokio::join!(published.reach(&job, &probe, limit), listener.accept());
        assert!(held.is_ok() && reached.is_ok(), "{reached:?}");
        let let_go = async { drop(listener.accept().await) };
        let (reached, ()) = tokio::join!(published.reach(&job, &probe, limit), let_go);
        assert_eq!(reached, Err("nothing listens on 80 in the container".to_owned()));
    }
}
