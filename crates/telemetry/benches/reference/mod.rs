//! Another server with the same samples, written to and asked over HTTP: Prometheus or VictoriaMetrics.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server of the benchmark's own; it ends with its owner.
pub struct Reference {
    binary: &'static str,
    child: Child,
    stream: BufReader<TcpStream>,
}

impl Reference {
    /// Starts the Prometheus on the path with its data in `dir`; `None` when there is none.
    pub fn prometheus(dir: &Path) -> Option<Self> {
        let config = dir.join("prometheus.yml");
        std::fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
        let address = free();
        let args = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--log.level=error".to_owned(),
        ];
        Self::start("prometheus", &args, &address, "/-/ready")
    }

    /// The same of VictoriaMetrics.
    pub fn victoria(dir: &Path) -> Option<Self> {
        let address = free();
        let args = [
            format!("-storageDataPath={}", dir.join("data").display()),
            format!("-httpListenAddr={address}"),
            // The samples are of a fixed day.
            "-retentionPeriod=100y".to_owned(),
            "-search.maxUniqueTimeseries=1000000".to_owned(),
            "-loggerLevel=ERROR".to_owned(),
        ];
        Self::start("victoria-metrics", &args, &address, "/health")
    }

    fn start(binary: &'static str, args: &[String], address: &str, ready: &str) -> Option<Self> {
        let mut child = Command::new(binary)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .ok()?;
        let stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
            assert!(child.try_wait().unwrap().is_none(), "{binary} ended at once");
        };
        stream.set_nodelay(true).unwrap();
        let stream = BufReader::new(stream);
        let mut started = Self { binary, child, stream };
        while started.call("GET", ready, "", &[]).0 != 200 {
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(started)
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    pub fn version(&self) -> String {
        let output = Command::new(self.binary).arg("--version").output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let first = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
        format!("{}: {}", self.binary, first.split(" (").next().unwrap_or_default())
    }

    fn call(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}");
        write!(head, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
        let stream = self.stream.get_mut();
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let header = line.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(bytes) = header.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            }
            chunked |= header == "transfer-encoding: chunked";
        }
        let mut answer = Vec::new();
        while chunked {
            line.clear();
            self.stream.read_line(&mut line).unwrap();
            let bytes = usize::from_str_radix(line.trim(), 16).unwrap();
            let start = answer.len();
            answer.resize(start + bytes + 2, 0);
            self.stream.read_exact(&mut answer[start..]).unwrap();
            answer.truncate(start + bytes);
            chunked = bytes > 0;
        }
        if length > 0 {
            answer.resize(length, 0);
            self.stream.read_exact(&mut answer).unwrap();
        }
        (status, answer)
    }

    /// Writes the time series of a request.
    pub fn write(&mut self, request: &[u8]) {
        let headers = "Content-Encoding: snappy\r\nContent-Type: application/x-protobuf\r\n\
            X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        let (status, answer) = self.call("POST", "/api/v1/write", headers, &literal(request));
        assert!(status / 100 == 2, "{status}: {}", String::from_utf8_lossy(&answer));
    }

    /// Lets everything that was written be found.
    pub fn settle(&mut self) {
        if self.binary == "victoria-metrics" {
            assert_eq!(self.call("GET", "/internal/force_flush", "", &[]).0, 200);
        }
    }

    /// Asks for the value of an expression at a time.
    pub fn query(&mut self, expression: &str, at_s: i64) {
        self.ask("query", expression, &format!("time={at_s}"));
    }

    /// Asks for its values over time.
    pub fn range(&mut self, expression: &str, (from_s, to_s): (i64, i64), step_s: i64) {
        self.ask(
            "query_range",
            expression,
            &format!("start={from_s}&end={to_s}&step={step_s}"),
        );
    }

    fn ask(&mut self, what: &str, expression: &str, when: &str) {
        let mut path = format!("/api/v1/{what}?query=");
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        // Answers that VictoriaMetrics has kept would tell nothing.
        write!(path, "&{when}&nocache=1").unwrap();
        let (status, answer) = self.call("GET", &path, "", &[]);
        let answer = String::from_utf8_lossy(&answer);
        let valued = answer.contains(r#""value":["#) || answer.contains(r#""values":[["#);
        assert!(status == 200 && valued, "{expression}: {status}: {:.300}", answer);
    }
}

fn free() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The labels of a `TimeSeries`, the name first as it sorts.
pub fn labels(name: &str, labels: &[(&str, String)]) -> Vec<u8> {
    let mut all: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
    all.push(("__name__", name));
    all.sort_unstable();
    let mut out = Vec::new();
    for (label, value) in all {
        let mut pair = Vec::new();
        bytes(&mut pair, 1, label.as_bytes());
        bytes(&mut pair, 2, value.as_bytes());
        bytes(&mut out, 1, &pair);
    }
    out
}

/// Adds a `TimeSeries` to a `WriteRequest`.
pub fn series(request: &mut Vec<u8>, labels: &[u8], samples: impl Iterator<Item = (i64, f64)>) {
    let mut one = labels.to_vec();
    let mut sample = Vec::new();
    for (at_ms, value) in samples {
        sample.clear();
        sample.push(1 << 3 | 1);
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(2 << 3);
        varint(&mut sample, at_ms as u64);
        bytes(&mut one, 2, &sample);
    }
    bytes(request, 1, &one);
}

/// Snappy's format without its compression: cheap for both sides.
fn literal(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 16);
    varint(&mut out, raw.len() as u64);
    for part in raw.chunks(1 << 16) {
        out.push(61 << 2);
        out.extend_from_slice(&((part.len() - 1) as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}
