//! A small HTTP service with errors and delays on demand, and those who call it. The service is this test binary itself,
//! started once more: replicas run [`Answering::command`].

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, signal::unix, sync::watch};

/// Says to the service's process that it is one.
const SERVES: &str = "ANSWERING_SERVES";
/// The folder with what it should do.
const CONTROL: &str = "ANSWERING_CONTROL";
/// The service among the tests.
const ITSELF: &str = "answering::the_service_itself";

/// What a version of the service should do from now on.
#[derive(Clone, Copy, Default)]
pub struct Manners {
    /// Of a hundred requests so many fail.
    pub errors_percent: u64,
    /// Each answer comes so much later.
    pub delay_ms: u64,
    /// Whether it tells that it isn't ready.
    pub sick: bool,
    /// What `/metrics` tells as `queue_depth`.
    pub depth: u64,
    /// Percent of a core that it keeps busy for nothing.
    pub burn_percent: u64,
}

/// The service: its command, and its manners.
pub struct Answering {
    control: tempfile::TempDir,
}

impl Answering {
    pub fn new() -> Self {
        Self {
            control: tempfile::tempdir().unwrap(),
        }
    }

    /// The environment that replicas need.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            (SERVES, "1".to_owned()),
            (CONTROL, self.control.path().display().to_string()),
        ]
    }

    /// What replicas run.
    pub fn command() -> Vec<String> {
        let own = std::env::current_exe().unwrap().display().to_string();
        [&own, "--exact", ITSELF, "--ignored", "--nocapture"]
            .map(str::to_owned)
            .to_vec()
    }

    /// A service `api` of such replicas, ready where `/ready` says so; these lines are in its `spec` as well.
    pub fn manifest(&self, more: &str) -> String {
        let mut env = String::new();
        for (name, value) in self.env() {
            env.push_str(&format!("    {name}: {value:?}\n"));
        }
        let command = serde_json::to_string(&Self::command()).unwrap();
        format!(
            "apiVersion: clawbernetes/v1\nkind: Workload\nspec:\n  image: host\n  \
             command: {command}\n  env:\n{env}  networking: {{ports: [{{name: http, port: 8080}}]}}\n  metricsPort: 8080\n  \
             readinessCheck: {{http: /ready, interval: 200ms, timeout: 2s, failures: 3}}\n{more}"
        )
    }

    /// From now on an attempt of a replica tells at `/live` that it is broken; its requests are answered all the same.
    pub fn break_one(&self, replica: &str, attempt: u64) {
        std::fs::write(self.control.path().join(format!("{replica}.{attempt}")), "").unwrap();
    }

    /// How many processes there are of it.
    pub fn processes(&self) -> usize {
        let holds = |path: std::path::PathBuf, part: &[u8]| {
            std::fs::read(path).is_ok_and(|text| text.windows(part.len()).any(|found| found == part))
        };
        let control = format!("{CONTROL}={}\0", self.control.path().display());
        let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let replicas = entries.filter(|process| {
            holds(process.join("cmdline"), b"answering::the_service_itself\0")
                && holds(process.join("environ"), control.as_bytes())
        });
        replicas.count()
    }

    /// From now on replicas of a version behave so.
    pub fn set(&self, version: &str, manners: Manners) {
        let text = format!(
            "{} {} {} {} {}",
            manners.errors_percent,
            manners.delay_ms,
            u8::from(manners.sick),
            manners.depth,
            manners.burn_percent
        );
        let place = self.control.path().join(version);
        let new = self.control.path().join(format!(".{version}"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, place).unwrap();
    }
}

fn read(control: &Path, version: &str) -> Manners {
    let Ok(text) = std::fs::read_to_string(control.join(version)) else {
        return Manners::default();
    };
    let mut numbers = text.split(' ').map(|n| n.parse().unwrap());
    let mut next = || numbers.next().unwrap();
    Manners {
        errors_percent: next(),
        delay_ms: next(),
        sick: next() != 0,
        depth: next(),
        burn_percent: next(),
    }
}

/// Keeps a part of a core busy, as its manners say, until the process ends.
fn burn(control: &Path, version: &str) {
    const TURN: Duration = Duration::from_millis(100);
    loop {
        let turn = std::time::Instant::now();
        let busy = TURN * u32::try_from(read(control, version).burn_percent).unwrap() / 100;
        while turn.elapsed() < busy {
            std::hint::spin_loop();
        }
        std::thread::sleep(TURN.saturating_sub(turn.elapsed()));
    }
}

/// The processes of a replica that answer.
pub fn processes_of(replica: &str) -> Vec<i32> {
    let marker = format!("CLAWBERNETES_WORKLOAD={replica}");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let answers = |pid: &i32| {
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let has = |text: &[u8], word: &str| text.split(|byte| *byte == 0).any(|part| part == word.as_bytes());
        has(&read("environ"), &marker) && has(&read("cmdline"), ITSELF)
    };
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(answers)
        .collect()
}

#[test]
#[ignore = "the process of a replica, started by other tests"]
fn the_service_itself() {
    if std::env::var_os(SERVES).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(serve());
}

async fn serve() {
    let version = std::env::var("VERSION").unwrap_or_else(|_| "none".to_owned());
    let control = std::path::PathBuf::from(std::env::var_os(CONTROL).unwrap());
    let [replica, attempt] = ["CLAWBERNETES_WORKLOAD", "CLAWBERNETES_ATTEMPT"].map(|name| std::env::var(name).unwrap());
    let broken = control.join(format!("{replica}.{attempt}"));
    let port: u16 = std::env::var("PORT").unwrap().parse().unwrap();
    let host: std::net::IpAddr = std::env::var("HOST").unwrap().parse().unwrap();
    let listener = tokio::net::TcpListener::bind((host, port)).await.unwrap();
    let mut term = unix::signal(unix::SignalKind::terminate()).unwrap();
    let (burner, of) = (control.clone(), version.clone());
    std::thread::spawn(move || burn(&burner, &of));
    let (going, gone) = watch::channel(());
    let count = Arc::new(AtomicU64::new(0));
    let server = hyper::server::conn::http1::Builder::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = term.recv() => break,
        };
        let (version, control, count) = (version.clone(), control.clone(), Arc::clone(&count));
        let broken = broken.clone();
        let mut gone = gone.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let manners = read(&control, &version);
            let number = count.fetch_add(1, Ordering::Relaxed);
            let version = version.clone();
            let ill = match request.uri().path() {
                "/ready" => Some(manners.sick),
                "/live" => Some(broken.exists()),
                _ => None,
            };
            async move {
                if let Some(ill) = ill {
                    let status = if ill {
                        StatusCode::SERVICE_UNAVAILABLE
                    } else {
                        StatusCode::OK
                    };
                    return Ok::<_, Infallible>(answered(status, version));
                }
                if request.uri().path() == "/metrics" {
                    let page = format!(
                        "# TYPE queue_depth gauge\nqueue_depth{{version=\"{version}\"}} {}\n",
                        manners.depth
                    );
                    let mut answer = answered(StatusCode::OK, page);
                    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
                    answer.headers_mut().insert(CONTENT_TYPE, kind);
                    return Ok(answer);
                }
                if manners.delay_ms > 0 {
                    tokio::time::sleep(Duration::from_millis(manners.delay_ms)).await;
                }
                // Spread evenly: 10 % is every tenth, not ten in a row.
                let fails = (number * manners.errors_percent) % 100 + manners.errors_percent >= 100;
                let fails = fails && manners.errors_percent > 0;
                let status = if fails {
                    StatusCode::INTERNAL_SERVER_ERROR
                } else {
                    StatusCode::OK
                };
                Ok(answered(status, version))
            }
        });
        let connection = server.serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = gone.changed() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    // What is under way is answered; then it ends.
    drop(listener);
    let _ = going.send(());
    drop(gone);
    going.closed().await;
}

fn answered(status: StatusCode, said: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said)));
    *response.status_mut() = status;
    response
}

/// What callers saw.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Good answers, by the version that gave them.
    pub good: BTreeMap<String, u64>,
    /// Answers that failed, by the version that gave them.
    pub failed: BTreeMap<String, u64>,
    /// Requests without an answer, or answered by no replica: what went wrong, and how often.
    pub broken: BTreeMap<String, u64>,
}

impl Tally {
    /// Requests that weren't answered well.
    pub fn bad(&self) -> u64 {
        self.failed.values().chain(self.broken.values()).sum()
    }

    /// Requests that were answered well.
    pub fn well(&self) -> u64 {
        self.good.values().sum()
    }

    /// All requests.
    pub fn all(&self) -> u64 {
        self.well() + self.bad()
    }
}

/// Callers that keep asking until they are told to stop.
pub struct Callers {
    over: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    /// `many` connections, each asking `rate` times a second at most.
    pub fn start(address: SocketAddr, many: usize, rate: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (ended, counted) = (Arc::clone(&over), Arc::clone(&tally));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let callers =
                    (0..many).map(|_| tokio::spawn(call(address, rate, Arc::clone(&ended), Arc::clone(&counted))));
                let callers: Vec<_> = callers.collect();
                for caller in callers {
                    caller.await.unwrap();
                }
            });
        });
        Self {
            over,
            tally,
            threads: vec![thread],
        }
    }

    /// What was seen so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops, and tells what was seen.
    pub fn stop(mut self) -> Tally {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.tally()
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// One caller: keeps its connection as long as it lasts.
async fn call(address: SocketAddr, rate: u32, over: Arc<AtomicBool>, tally: Arc<Mutex<Tally>>) {
    let mut connection: Option<http1::SendRequest<Empty<Bytes>>> = None;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    while !over.load(Ordering::Relaxed) {
        ticks.tick().await;
        let answer = ask(&mut connection, address).await;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok((StatusCode::OK, version)) => *tally.good.entry(version).or_default() += 1,
            // The proxy's own answers are JSON; a replica's is its version.
            Ok((status, said)) if said.starts_with('{') => {
                *tally.broken.entry(format!("{status} {said}")).or_default() += 1;
            }
            Ok((_, version)) => *tally.failed.entry(version).or_default() += 1,
            Err(why) => {
                connection = None;
                *tally.broken.entry(why).or_default() += 1;
            }
        }
    }
}

async fn ask(
    connection: &mut Option<http1::SendRequest<Empty<Bytes>>>,
    address: SocketAddr,
) -> Result<(StatusCode, String), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut kept = match connection.take().filter(|kept| !kept.is_closed()) {
        Some(kept) => kept,
        None => {
            let stream = TcpStream::connect(address).await.map_err(|e| words(&e))?;
            let (send, run) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| words(&e))?;
            tokio::spawn(run);
            send
        }
    };
    kept.ready().await.map_err(|e| words(&e))?;
    let request = Request::builder()
        .method(Method::GET)
        .uri("/")
        .header("host", address.to_string())
        .body(Empty::new())
        .map_err(|e| words(&e))?;
    let answer = kept.send_request(request).await.map_err(|e| words(&e))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| words(&e))?.to_bytes();
    *connection = Some(kept);
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
