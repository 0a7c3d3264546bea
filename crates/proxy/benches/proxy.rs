//! What the proxy costs, beside no proxy and HAProxy, in interleaved rounds of the same run.
//!
//! A small service (hyper, two addresses, weights 90 and 10), clients that each send the next request when they have their
//! answer, over kept connections. Service, proxy and HAProxy are processes of their own, so that CPU time is each one's.
//! `cargo bench -p clawbernetes-proxy` for the figures; `-- --quick` shows that it runs. Nothing is asserted as a time.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what it didn't expect")]

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use proxy::{Endpoint, Group, Options, Protocol, Proxy, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Threads of each proxy and of HAProxy.
const THREADS: usize = 2;
const CLIENTS: usize = 32;
const SMALL: usize = 128;
const LARGE: usize = 64 * 1024;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("service") => serve(),
        Some("proxy") => pass(&args[2..]),
        _ => compare(args.iter().any(|arg| arg == "--quick" || arg == "--test")),
    }
}

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .unwrap()
}

/// The part of the service: prints its two addresses. Answers the path's number of bytes.
fn serve() {
    runtime(THREADS).block_on(async {
        let listeners = [bind().await, bind().await];
        println!(
            "{} {}",
            listeners[0].local_addr().unwrap(),
            listeners[1].local_addr().unwrap()
        );
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let small = Bytes::from(vec![b'x'; SMALL]);
                    let large = Bytes::from(vec![b'x'; LARGE]);
                    tokio::spawn(async move {
                        let service = service_fn(move |request: Request<Incoming>| {
                            let body = if request.uri().path() == "/large" {
                                large.clone()
                            } else {
                                small.clone()
                            };
                            async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
                        });
                        // Clients end as they like.
                        drop(
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await,
                        );
                    });
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
    });
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn route(service: &[SocketAddr], first: u32) -> Route {
    let group = |index: usize, weight| {
        let address = service[index];
        let name = index.to_string();
        let endpoints = vec![Endpoint {
            id: name.clone(),
            address,
        }];
        Group {
            name,
            weight,
            endpoints,
        }
    };
    Route {
        listen: ([127, 0, 0, 1], 0).into(),
        protocol: Protocol::Http,
        groups: vec![group(0, first), group(1, 100 - first)],
    }
}

/// The part of our proxy: prints its address.
fn pass(service: &[String]) {
    runtime(THREADS).block_on(async {
        let service: Vec<SocketAddr> = service.iter().map(|text| text.parse().unwrap()).collect();
        let proxy = Proxy::new(Options::default());
        println!("{}", proxy.set("bench", &route(&service, 90)).unwrap());
        std::future::pending::<()>().await;
    });
}

/// A process that ends with this.
struct Process(Child);

impl Process {
    /// This program in another part; answers the addresses that it prints.
    fn part(args: &[String]) -> (Self, Vec<SocketAddr>) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let addresses = line.split_whitespace().map(|text| text.parse().unwrap()).collect();
        (Process(child), addresses)
    }

    /// CPU time so far, all threads; in ticks of 10 ms.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        let ticks: u64 = [12, 13].map(|n| fields[n].parse::<u64>().unwrap()).iter().sum();
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory now, in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// HAProxy in front of the service, set up to do what ours does.
struct HaProxy {
    process: Process,
    address: SocketAddr,
    directory: PathBuf,
}

impl HaProxy {
    /// `None`: it isn't installed.
    fn start(service: &[SocketAddr]) -> Option<Self> {
        let version = Command::new("haproxy").arg("-v").output().ok()?;
        let directory = std::env::temp_dir().join(format!("clawbernetes-bench-proxy-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let config = format!(
            "global\n nbthread {THREADS}\n maxconn 2000\n stats socket {socket} level admin\n\
             defaults\n mode http\n timeout connect 2s\n timeout client 75s\n timeout server 600s\n option forwardfor\n\
             http-reuse always\n\
             frontend f\n bind {address}\n http-request set-header X-Forwarded-Proto http\n\
             http-request set-header X-Forwarded-Host %[req.hdr(host)]\n default_backend b\n\
             backend b\n balance roundrobin\n server s0 {} weight 90\n server s1 {} weight 10\n",
            service[0],
            service[1],
            socket = directory.join("socket").display(),
        );
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("haproxy")
            .arg("-db")
            .arg("-f")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut started = HaProxy {
            process: Process(child),
            address,
            directory,
        };
        while std::net::TcpStream::connect(address).is_err() {
            let ended = started.process.0.try_wait().unwrap();
            assert!(ended.is_none(), "HAProxy ended: {}", ended.unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        let version = String::from_utf8_lossy(&version.stdout);
        println!("{}", version.lines().next().unwrap_or_default());
        Some(started)
    }

    /// Says something to its runtime API, and waits for the answer.
    fn tell(directory: &Path, command: &str) {
        let mut socket = UnixStream::connect(directory.join("socket")).unwrap();
        socket.write_all(command.as_bytes()).unwrap();
        socket.read_to_end(&mut Vec::new()).unwrap();
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// A client's connection.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, path: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench.test\r\nuser-agent: bench\r\naccept: */*\r\n\r\n");
        Client {
            stream,
            request: request.into_bytes(),
            buffer: vec![0; LARGE + 4_096],
        }
    }

    /// A request and its whole answer, whose body is known to be `length` bytes.
    async fn ask(&mut self, length: usize) {
        self.stream.write_all(&self.request).await.unwrap();
        let mut got = 0;
        let mut end = usize::MAX;
        while got < end {
            let count = self.stream.read(&mut self.buffer[got..]).await.unwrap();
            assert!(count > 0, "the connection was closed");
            got += count;
            if end == usize::MAX
                && let Some(head) = self.buffer[..got].windows(4).position(|part| part == b"\r\n\r\n")
            {
                assert!(self.buffer.starts_with(b"HTTP/1.1 200"), "an answer that isn't 200");
                end = head + 4 + length;
            }
        }
        assert_eq!(got, end);
    }
}

/// What a round gave.
#[derive(Clone, Default)]
struct Round {
    per_second: f64,
    p50_micros: f64,
    p99_micros: f64,
    cpu_micros: f64,
}

async fn load(
    address: SocketAddr,
    path: &'static str,
    length: usize,
    time: Duration,
    process: Option<&Process>,
) -> Round {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::connect(address, path).await;
        client.ask(length).await;
        clients.push(client);
    }
    let before = process.map(Process::cpu).unwrap_or_default();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < time {
                let asked = Instant::now();
                client.ask(length).await;
                times.push(asked.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.concat();
    let (elapsed, after) = (started.elapsed(), process.map(Process::cpu).unwrap_or_default());
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Round {
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_micros: at(0.5),
        p99_micros: at(0.99),
        cpu_micros: (after - before).as_secs_f64() * 1e6 / times.len() as f64,
    }
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn medians(rounds: &[Round]) -> Round {
    Round {
        per_second: median(rounds, |round| round.per_second),
        p50_micros: median(rounds, |round| round.p50_micros),
        p99_micros: median(rounds, |round| round.p99_micros),
        cpu_micros: median(rounds, |round| round.cpu_micros),
    }
}

fn compare(quick: bool) {
    let (rounds, time) = if quick {
        (1, Duration::from_millis(100))
    } else {
        (7, Duration::from_secs(2))
    };
    let (_service, service) = Process::part(&["service".to_owned()]);
    let ours_args = ["proxy".to_owned(), service[0].to_string(), service[1].to_string()];
    let (ours, address) = Process::part(&ours_args);
    let haproxy = HaProxy::start(&service);
    if haproxy.is_none() {
        println!("HAProxy isn't installed (Debian: apt-get install haproxy): no reference");
    }
    println!("{CLIENTS} clients, {THREADS} threads each; medians of {rounds} rounds of {time:?}, in turns");
    let runtime = runtime(THREADS);
    for (path, length) in [("/", SMALL), ("/large", LARGE)] {
        let mut targets: Vec<(&str, SocketAddr, Option<&Process>)> =
            vec![("direct", service[0], None), ("proxy", address[0], Some(&ours))];
        if let Some(haproxy) = &haproxy {
            targets.push(("HAProxy", haproxy.address, Some(&haproxy.process)));
        }
        let mut results = vec![Vec::new(); targets.len()];
        for _ in 0..rounds {
            for (result, (_, address, process)) in results.iter_mut().zip(&targets) {
                result.push(runtime.block_on(load(*address, path, length, time, *process)));
            }
        }
        println!("GET, answers of {length} bytes:");
        let all: Vec<Round> = results.iter().map(|rounds| medians(rounds)).collect();
        for ((name, _, process), round) in targets.iter().zip(&all) {
            let cpu = match process {
                Some(_) => format!("{:>7.1} us CPU a request", round.cpu_micros),
                None => String::new(),
            };
            println!(
                "  {name:<8} {:>8.0} requests/s   p50 {:>7.0} us   p99 {:>7.0} us   {cpu}",
                round.per_second, round.p50_micros, round.p99_micros,
            );
        }
        println!(
            "  the proxy adds {:.0} us (p50), {:.0} us (p99)",
            all[1].p50_micros - all[0].p50_micros,
            all[1].p99_micros - all[0].p99_micros,
        );
        if let [_, ours, theirs] = &all[..] {
            println!(
                "  beside HAProxy: {:.2} x requests/s, {:.2} x requests per CPU-second; it adds {:.0} us (p50), {:.0} us (p99)",
                ours.per_second / theirs.per_second,
                theirs.cpu_micros / ours.cpu_micros,
                theirs.p50_micros - all[0].p50_micros,
                theirs.p99_micros - all[0].p99_micros,
            );
        }
    }
    println!("resident: proxy {} KiB", ours.resident());
    let switches = if quick { 20 } else { 1_000 };
    runtime.block_on(switch(&service, switches));
    if let Some(haproxy) = &haproxy {
        runtime.block_on(switch_haproxy(haproxy, switches));
    }
}

/// From the decision to the first answer by the new group, on a connection that is open: blue, green, blue, …
async fn switch(service: &[SocketAddr], count: usize) {
    let proxy = Proxy::new(Options::default());
    let address = proxy.set("bench", &route(service, 100)).unwrap();
    let mut client = Client::connect(address, "/").await;
    let (mut sets, mut switched) = (Vec::new(), Vec::new());
    for round in 0..count {
        let route = route(service, if round % 2 == 0 { 0 } else { 100 });
        let decided = Instant::now();
        proxy.set("bench", &route).unwrap();
        sets.push(decided.elapsed());
        client.ask(SMALL).await;
        switched.push(decided.elapsed());
    }
    let counts = proxy.take_counts();
    assert_eq!(counts.iter().map(|counts| counts.requests).sum::<u64>() as usize, count);
    report("switch by set()", &mut sets);
    report("... until the first answer by the new group", &mut switched);
}

/// The same by HAProxy's runtime API: two weights, and an answer.
async fn switch_haproxy(haproxy: &HaProxy, count: usize) {
    let mut client = Client::connect(haproxy.address, "/").await;
    let mut switched = Vec::new();
    for round in 0..count {
        let (first, second) = if round % 2 == 0 { (0, 100) } else { (100, 0) };
        let decided = Instant::now();
        HaProxy::tell(
            &haproxy.directory,
            &format!("set weight b/s0 {first}; set weight b/s1 {second}\n"),
        );
        client.ask(SMALL).await;
        switched.push(decided.elapsed());
    }
    report("HAProxy: two weights, and an answer", &mut switched);
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!("{what:<46} p50 {:>7.1} us   p99 {:>7.1} us", at(0.5), at(0.99));
}
