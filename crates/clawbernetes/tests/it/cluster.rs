//! A fleet of real processes: a gateway and agents, started from the binary, killed and started again.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::world::{Done, Home, free_port};

use testkit::PATIENCE;
pub use testkit::wait_for;

/// Lines that are shown of each process's log when a test fails.
const SHOWN: usize = 60;

/// A process of the fleet: how it is started, and whether it runs.
struct Part {
    name: String,
    words: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Part {
    fn new(name: &str, words: Vec<String>) -> Self {
        Self {
            words,
            name: name.to_owned(),
            child: Mutex::new(None),
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, home: &Home) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(home.path(&format!("{}.log", self.name)))
            .unwrap();
        let mut command = home.command(&self.words);
        command.env_remove("CLAWBERNETES_GATEWAY_URL");
        command.stdout(log.try_clone().unwrap()).stderr(log);
        if let Some(level) = home.log {
            command.env("CLAWBERNETES_LOG", level);
        }
        *self.child() = Some(command.spawn().unwrap());
    }

    /// `kill -9`, and its burial.
    fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM; the exit code.
    fn stop(&self) -> Option<i32> {
        let mut child = self.child().take()?;
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let name = &self.name;
        let status = wait_for(&format!("{name} to end after SIGTERM"), || child.try_wait().unwrap());
        status.code()
    }
}

/// A gateway and agents, each a process of its own, in a home that goes with the test.
pub struct Cluster {
    /// Where commands run.
    pub home: Home,
    address: SocketAddr,
    gateway: Part,
    agents: Vec<Part>,
}

/// Ports for the services of one gateway, so that no other takes them while it is down.
fn service_ports() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const EACH: u32 = 10;
    // Below those of replicas, which begin at 20,000; another run of the tests, beside this one, begins elsewhere.
    let place = (std::process::id() * 97 + NEXT.fetch_add(1, Ordering::Relaxed)) % (9_000 / EACH);
    let first = 10_500 + place * EACH;
    format!("{first}-{}", first + EACH - 1)
}

impl Cluster {
    /// Starts a gateway with short times, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with more flags of the gateway.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::start_telling(None, flags)
    }

    /// As [`Self::start`]; all of its processes log at this level.
    pub fn start_telling(level: Option<&'static str>, flags: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut home = Home::at(address);
        home.log = level;
        let data = home.path("gateway").display().to_string();
        let listen = address.to_string();
        let words = [
            "gateway",
            "serve",
            "--listen",
            &listen,
            "--data",
            &data,
            "--heartbeat",
            "1s",
            "--unreachable-after",
            "5s",
            "--lost-after",
            "60s",
        ];
        let ports = service_ports();
        let ports = ["--service-ports", ports.as_str()];
        let words = words.iter().chain(&ports).chain(flags).map(|word| (*word).to_owned());
        let cluster = Self {
            gateway: Part::new("gateway", words.collect()),
            home,
            address,
            agents: Vec::new(),
        };
        cluster.start_gateway();
        // The first start leaves the token for the command line a moment after it begins to answer.
        wait_for("the command line to be let in", || {
            (cluster.home.run("gateway ping").code == 0).then_some(())
        });
        cluster
    }

    /// Lets an agent join by a token from the command line, and waits until it is healthy.
    pub fn join(&mut self, name: &str, flags: &[&str]) {
        self.join_as(name, flags, "healthy");
    }

    /// Lets an agent join by a token from the command line, and waits until its node has this status.
    pub fn join_as(&mut self, name: &str, flags: &[&str], status: &str) {
        let token = self.home.run("auth join-token --expires 10m --uses 1").ok().to_owned();
        let data = self.home.path(name).display().to_string();
        let url = format!("ws://{}", self.address);
        let mut words: Vec<String> = ["node", "start", "--name", name, "--data", &data]
            .map(str::to_owned)
            .to_vec();
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let again = words.clone();
        words.extend(["--gateway".to_owned(), url, "--join".to_owned(), token]);
        let first = Part::new(name, words);
        first.start(&self.home);
        // From now on it starts from its data folder alone.
        let child = first.child().take();
        let part = Part::new(name, again);
        *part.child() = child;
        self.agents.push(part);
        wait_for(&format!("{name} to be {status}"), || {
            let node = self.try_call("node.get", &json!({ "id": name }))?;
            (node["status"] == status).then_some(())
        });
    }

    /// Starts the gateway; it may not answer yet.
    pub fn start_gateway(&self) {
        self.gateway.start(&self.home);
    }

    /// `kill -9` of the gateway.
    pub fn kill_gateway(&self) {
        self.gateway.kill();
    }

    /// Starts an agent again.
    pub fn start_agent(&self, index: usize) {
        self.agents[index].start(&self.home);
    }

    /// `kill -9` of an agent.
    pub fn kill_agent(&self, index: usize) {
        self.agents[index].kill();
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The admin token.
    pub fn token(&self) -> String {
        fs::read_to_string(self.home.path("gateway/admin.token"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    /// Calls an operation. `None`: the gateway isn't there, or went away within the call.
    ///
    /// # Panics
    /// It refused.
    #[track_caller]
    pub fn try_call(&self, operation: &str, request: &Value) -> Option<Value> {
        let answer = post(
            self.address,
            operation,
            &self.token(),
            &[],
            request.to_string().as_bytes(),
        )?;
        match answer.status {
            200 => Some(answer.json()),
            // Between the start of a node and its first word, and before the first token.
            401 | 404 => None,
            status => panic!("{operation} {request}: {status} {}", answer.body),
        }
    }

    /// Calls an operation of a gateway that is there, or soon will be.
    #[track_caller]
    pub fn call(&self, operation: &str, request: &Value) -> Value {
        wait_for(operation, || self.try_call(operation, request))
    }

    /// Submits a workload, again and again until it is acknowledged; its id.
    #[track_caller]
    pub fn submit(&self, key: &str, workload: &Value) -> String {
        let body = json!({ "workloads": [workload] }).to_string();
        let answer = wait_for("a submission to be acknowledged", || {
            let headers = [("idempotency-key", key)];
            post(
                self.address,
                "workload.submit",
                &self.token(),
                &headers,
                body.as_bytes(),
            )
        });
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()[0]["id"].as_str().unwrap().to_owned()
    }

    /// Runs a workload from the command line; its id.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let done = self.home.words(&[&["run"], words].concat());
        done.ok().lines().next().unwrap().to_owned()
    }

    /// `workload status` as JSON.
    #[track_caller]
    pub fn status(&self, id: &str) -> Value {
        self.home.run(&format!("workload status {id} --json")).json()
    }

    /// Waits until a workload is in this phase.
    #[track_caller]
    pub fn wait_phase(&self, id: &str, phase: &str) -> Value {
        let what = format!("{id} to be {phase}");
        wait_for(&what, || {
            let detail = self.call("workload.get", &json!({ "id": id }));
            let now = detail["phase"].as_str().unwrap();
            let over = !["pending", "scheduled", "pulling", "running"].contains(&now);
            assert!(now == phase || !over, "{what}, but: {detail:#}");
            (now == phase).then_some(detail)
        })
    }

    /// Output of a workload as it is kept, from the command line.
    #[track_caller]
    pub fn logs(&self, id: &str) -> String {
        self.home.run(&format!("workload logs {id} -f")).ok().to_owned()
    }

    /// Ends everything in order, and asserts that nothing is left: no process, no cgroup.
    pub fn end(self) {
        for agent in &self.agents {
            assert_eq!(agent.stop(), Some(0), "{} after SIGTERM", agent.name);
        }
        assert_eq!(self.gateway.stop(), Some(0), "the gateway after SIGTERM");
        wait_for("the last processes to end", || {
            self.processes().is_empty().then_some(())
        });
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "control groups are left");
    }

    /// Processes that have to do with this home.
    fn processes(&self) -> Vec<i32> {
        let own = i32::try_from(std::process::id()).unwrap();
        let folder = self.folder();
        let folder = folder.as_os_str().as_encoded_bytes();
        let holds = |text: &[u8]| text.windows(folder.len()).any(|part| part == folder);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .filter(|pid| {
                let of = |file: &str| fs::read(format!("/proc/{pid}/{file}")).is_ok_and(|text| holds(&text));
                let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
                of("cmdline") || of("environ") || cwd.is_ok_and(|cwd| holds(cwd.as_os_str().as_encoded_bytes()))
            })
            // What is dead and not yet buried has neither.
            .collect()
    }

    fn folder(&self) -> PathBuf {
        self.home.path("").canonicalize().unwrap()
    }

    /// Control groups of the agents' native engines.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for agent in &self.agents {
            let data = self.folder().join(&agent.name).join("native");
            let group = PathBuf::from("clawbernetes").join(instance(&data));
            let trees =
                ["", "unified", "memory", "cpu"].map(|tree| Path::new("/sys/fs/cgroup").join(tree).join(&group));
            found.extend(trees.into_iter().filter(|path| path.exists()));
        }
        found
    }

    /// The ends of the logs of all processes.
    fn dump(&self) {
        for part in self.agents.iter().chain([&self.gateway]) {
            let name = &part.name;
            let text = fs::read_to_string(self.home.path(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("\n--- {name}: the last of {} lines", lines.len());
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}

/// The name of the control group of an agent with this folder, as the native engine makes it.
fn instance(data: &Path) -> String {
    let hash = data
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
        for part in self.agents.iter().chain([&self.gateway]) {
            part.kill();
        }
        // Jobs outlive their agents, by design: not this test's.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > until {
                break;
            }
            for pid in left.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for group in self.cgroups() {
            for job in fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(job.path());
            }
            let _ = fs::remove_dir(group);
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a refusal with this status and code.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{self:?}");
        error["message"].as_str().unwrap().to_owned()
    }
}

/// Calls an operation by plain HTTP. `None`: the connection can't be made, or breaks before the whole answer is here.
pub fn post(
    address: SocketAddr,
    operation: &str,
    token: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let bearer = format!("Bearer {token}");
    let mut all = vec![("content-type", "application/json")];
    if !token.is_empty() {
        all.push(("authorization", &bearer));
    }
    all.extend(headers);
    exchange(address, "POST", &api::op::path(operation), &all, body)
}

/// One request over a connection of its own. `None`: the connection can't be made, or breaks before the whole answer is
/// here.
pub fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    // One that refuses needn't read the whole body.
    let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body));
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let rest = &answer[end + 4..];
    let body = match field("content-length:") {
        Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
        None if field("transfer-encoding:") == Some("chunked") => unchunked(rest)?,
        None => rest.to_vec(),
    };
    Some(Answer {
        status,
        body: String::from_utf8(body).ok()?,
    })
}

/// A chunked body put together. `None`: it isn't complete.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|part| part == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}

impl Done {
    /// Asserts that a command ended with this exit code.
    #[track_caller]
    pub fn exited(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}
