//! PromQL beside Debian's Prometheus, over the same samples.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use telemetry::metrics::{Matcher, MetricError, MetricStore, Options, Sample, Series};
use telemetry::promql::{self, Limits, PromqlError, Query};

const START_MS: i64 = 1_795_392_000_000;
const END_MS: i64 = START_MS + 5_400_000;
/// No sample lies just where a window begins: there, Prometheus 2 and 3 differ.
const FROM_MS: i64 = START_MS + 3_137;

/// Each expression is asked at several moments and over ranges of two steps.
const EXPRESSIONS: &[&str] = &[
    "temp",
    r#"temp{node="a"}"#,
    r#"temp{node!="a",gpu=~"0|1"}"#,
    r#"temp{node!~"a|b"}"#,
    r#"{__name__=~"temp|energy",gpu="0"}"#,
    r#"temp{absent_label=""}"#,
    "temp offset 7m",
    "temp offset -3m",
    "nothing",
    "-temp",
    "rate(energy[5m])",
    "increase(energy[10m])",
    "irate(energy[5m])",
    "delta(temp[10m])",
    "idelta(temp[10m])",
    "rate(energy[20s])",
    "rate(energy[5m] offset 12m)",
    "changes(temp[10m])",
    "resets(energy[30m])",
    "avg_over_time(temp[10m])",
    "min_over_time(temp[10m])",
    "max_over_time(temp[10m])",
    "sum_over_time(temp[10m])",
    "count_over_time(temp[10m])",
    "count_over_time(temp[1m])",
    "quantile_over_time(0.9, temp[10m])",
    "quantile_over_time(1.2, temp[10m])",
    "last_over_time(temp[10m])",
    "present_over_time(temp[10m])",
    "stddev_over_time(temp[10m])",
    "stdvar_over_time(temp[10m])",
    "sum(temp)",
    "sum by (node) (temp)",
    "avg without (gpu) (temp)",
    "min by (node, gpu) (temp)",
    "max by (nothing) (temp)",
    "count by (__name__) ({gpu=~\".+\"})",
    "group by (gpu) (temp)",
    "stddev by (node) (temp)",
    "stdvar(temp)",
    "quantile by (node) (0.25, temp)",
    "topk(2, energy)",
    "bottomk by (node) (1, temp)",
    "topk(0, temp)",
    "sum by (node) (rate(energy[5m])) / 1000",
    "1 + 2 * 3 ^ 2 % 5",
    "2 ^ 3 ^ 2",
    "1 > bool 2",
    "temp > 50",
    "50 > temp",
    "temp >= bool 50",
    "temp * 2 - temp",
    "temp / on (node, gpu) limit",
    "temp > on (node, gpu) limit",
    "temp > ignoring (unit) limit",
    "temp >bool ignoring (unit) limit",
    "temp - on (node) group_left () avg by (node) (temp)",
    "temp * on (node, gpu) group_left (unit) limit",
    "limit * on (node, gpu) group_right (unit) temp",
    r#"temp and on (node) limit{node="a"}"#,
    r#"temp unless on (node) limit{node="a"}"#,
    r#"temp{node="a"} or temp{node="b"} or energy"#,
    "abs(-temp)",
    "ceil(temp / 7)",
    "floor(temp / 7)",
    "round(temp / 7)",
    "round(temp, 5)",
    "clamp(temp, 42, 55)",
    "clamp(temp, 55, 42)",
    "clamp_min(temp, 50)",
    "clamp_max(temp, 50)",
    "sqrt(temp)",
    "ln(temp)",
    "log2(temp)",
    "log10(temp)",
    "exp(temp / 100)",
    "sgn(temp - 50)",
    "scalar(temp)",
    r#"scalar(temp{node="a",gpu="0"})"#,
    "vector(3)",
    "time()",
    "vector(time()) - timestamp(vector(1))",
    "timestamp(temp)",
    "timestamp(temp) - time()",
    "absent(temp)",
    r#"absent(nothing{node="x",gpu=~"1"})"#,
    "absent(sum(nothing))",
    "sort(temp)",
    "sort_desc(temp)",
];

type Points = Vec<(i64, f64)>;
type Answer = BTreeMap<BTreeMap<String, String>, Points>;

/// Name, labels, samples.
fn data() -> Vec<(&'static str, Vec<(&'static str, String)>, Points)> {
    let mut noise = 1u64;
    let mut random = move |below: u64| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) % below
    };
    let mut all = Vec::new();
    for (at, (node, gpu)) in [("a", "0"), ("a", "1"), ("b", "0"), ("b", "1"), ("c", "0")]
        .into_iter()
        .enumerate()
    {
        let labels = || vec![("gpu", gpu.to_owned()), ("node", node.to_owned())];
        let (mut temp, mut energy, mut limit) = (Points::new(), Points::new(), Points::new());
        let mut count = 1000.0;
        for row in 0..360 {
            let at_ms = START_MS + row * 15_000 + random(400) as i64 + at as i64 * 1000;
            // One is silent for a while, one starts late.
            if (at == 1 && (100..150).contains(&row)) || (at == 4 && row < 200) {
                continue;
            }
            temp.push((at_ms, (40 + random(30)) as f64));
            count = if random(60) == 0 {
                0.0
            } else {
                count + random(5000) as f64 / 1000.0
            };
            energy.push((at_ms, count));
            limit.push((at_ms, 55.0));
        }
        all.push(("temp", labels(), temp));
        all.push(("energy", labels(), energy));
        if node != "c" {
            let mut labels = labels();
            labels.push(("unit", "celsius".to_owned()));
            all.push(("limit", labels, limit));
        }
    }
    let mut counts = [0.0; 4];
    let mut buckets = vec![Points::new(); 4];
    for row in 0..360 {
        for (bucket, points) in buckets.iter_mut().enumerate() {
            counts[bucket] += random(4) as f64;
            points.push((START_MS + row * 15_000, counts[..=bucket].iter().sum()));
        }
    }
    for (le, points) in ["0.1", "0.5", "2.5", "+Inf"].into_iter().zip(buckets) {
        all.push(("latency_bucket", vec![("le", le.to_owned())], points));
    }
    all
}

fn store(dir: &Path) -> MetricStore {
    let options = Options {
        clock: Arc::new(|| END_MS),
        ..Options::default()
    };
    let store = MetricStore::open(dir, options).unwrap();
    for (name, labels, points) in data() {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, value.as_str())).collect();
        let series = store.series(name, &labels).unwrap();
        let samples = points.iter().map(|&(at_ms, value)| Sample { series, at_ms, value });
        assert_eq!(store.append(&samples.collect::<Vec<_>>()).unwrap().dropped.total(), 0);
    }
    store
}

/// A Prometheus of the test's own.
struct Prometheus {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Prometheus {
    /// With the samples of [`data`]; `None` where it is not installed and need not be.
    fn start() -> Option<Self> {
        if Command::new("promtool").arg("--version").output().is_err() {
            let required = std::env::var("CLAWBERNETES_TEST_PROMETHEUS").is_ok_and(|value| value == "required");
            assert!(!required, "prometheus is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for (name, labels, points) in data() {
            let labels: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{value}\""))
                .collect();
            for (at_ms, value) in points {
                let (seconds, millis) = (at_ms / 1000, at_ms % 1000);
                writeln!(text, "{name}{{{}}} {value} {seconds}.{millis:03}", labels.join(",")).unwrap();
            }
        }
        text.push_str("# EOF\n");
        let (input, blocks) = (dir.path().join("input"), dir.path().join("blocks"));
        std::fs::write(&input, text).unwrap();
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&input, &blocks])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = dir.path().join("prometheus.yml");
        std::fs::write(&config, "global: {scrape_interval: 1h}\n").unwrap();
        loop {
            let address = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .to_string();
            let mut child = Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", blocks.display()))
                .arg("--storage.tsdb.retention.time=100y")
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=error")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // It ends by itself when another took the port.
            while child.try_wait().unwrap().is_none() {
                if get(&address, "/-/ready").is_some_and(|(status, _)| status == 200) {
                    return Some(Self { child, address, dir });
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }

    /// `None` when Prometheus refuses the expression.
    fn ask(&self, path: &str, expression: &str, rest: &str) -> Option<Answer> {
        assert!(self.dir.path().exists());
        let mut target = format!("/api/v1/{path}?query=");
        for byte in expression.bytes() {
            write!(target, "%{byte:02x}").unwrap();
        }
        let (status, body) = get(&self.address, &format!("{target}&{rest}")).unwrap();
        if status != 200 {
            return None;
        }
        let json: Json = serde_json::from_str(&body).unwrap();
        let result = &json["data"]["result"];
        let mut answer = Answer::new();
        if json["data"]["resultType"] == "scalar" {
            answer.insert(BTreeMap::new(), vec![point(result)]);
            return Some(answer);
        }
        for series in result.as_array().unwrap() {
            let labels = series["metric"].as_object().unwrap().iter();
            let labels = labels.map(|(label, value)| (label.clone(), value.as_str().unwrap().to_owned()));
            let points = match series.get("values") {
                Some(values) => values.as_array().unwrap().iter().map(point).collect(),
                None => vec![point(&series["value"])],
            };
            answer.insert(labels.collect(), points);
        }
        Some(answer)
    }
}

fn point(json: &Json) -> (i64, f64) {
    let value = json[1].as_str().unwrap();
    (
        (json[0].as_f64().unwrap() * 1000.0).round() as i64,
        value.parse().unwrap(),
    )
}

fn get(address: &str, target: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The store under its own names.
struct Plain(MetricStore);

impl promql::Source for Plain {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<Series>, MetricError> {
        self.0.select(matchers, from_ms, to_ms)
    }
}

fn limits() -> Limits {
    Limits {
        samples: 1_000_000,
        points: 1_000_000,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

fn instant(store: &Plain, expression: &str, at_ms: i64) -> Result<promql::Answer, PromqlError> {
    Query::parse(expression)?.instant(store, at_ms, &limits())
}

fn range(store: &Plain, expression: &str, step_ms: i64) -> Result<promql::Answer, PromqlError> {
    Query::parse(expression)?.range(store, (FROM_MS, END_MS), step_ms, &limits())
}

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn same(ours: &Answer, theirs: &Answer) -> bool {
    let points =
        |(a, b): (&Points, &Points)| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && close(a.1, b.1));
    ours.keys().eq(theirs.keys()) && ours.values().zip(theirs.values()).all(points)
}

/// Both refuse, or both answer the same.
fn agree(ours: Option<&Answer>, theirs: Option<&Answer>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => same(ours, theirs),
        (ours, theirs) => ours.is_none() && theirs.is_none(),
    }
}

#[test]
fn answers_are_those_of_prometheus() {
    let Some(prometheus) = Prometheus::start() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Plain(store(dir.path()));
    let mut wrong = String::new();
    let mut points = 0;
    for expression in EXPRESSIONS {
        // On a sample, between samples, in the gap, at the end, after it.
        for at_ms in [2_700_000, 1_234_567, 1_900_000, 5_399_000, 5_650_000, 9_000_000] {
            let at_ms = FROM_MS + at_ms;
            let ours = match instant(&store, expression, at_ms) {
                Ok(promql::Answer::Scalar(value)) => Some(Answer::from([(BTreeMap::new(), vec![(at_ms, value)])])),
                Ok(promql::Answer::Vector(elements)) => Some(
                    elements
                        .into_iter()
                        .map(|(labels, value)| (labels, vec![(at_ms, value)]))
                        .collect(),
                ),
                Ok(other) => panic!("{expression}: {other:?}"),
                Err(_) => None,
            };
            let theirs = prometheus.ask("query", expression, &format!("time={}", at_ms as f64 / 1000.0));
            if !agree(ours.as_ref(), theirs.as_ref()) {
                writeln!(
                    wrong,
                    "{expression} at {at_ms}:\n  ours   {ours:?}\n  theirs {theirs:?}"
                )
                .unwrap();
            }
            points += ours.map_or(0, |ours| ours.len());
        }
        for step_ms in [30_000, 411_000] {
            let ours: Option<Answer> = match range(&store, expression, step_ms) {
                Ok(promql::Answer::Matrix(series)) => Some(series.into_iter().collect()),
                Ok(other) => panic!("{expression}: {other:?}"),
                Err(_) => None,
            };
            let (start, end) = (FROM_MS as f64 / 1000.0, END_MS as f64 / 1000.0);
            let rest = format!("start={start}&end={end}&step={}", step_ms as f64 / 1000.0);
            let theirs = prometheus.ask("query_range", expression, &rest);
            if !agree(ours.as_ref(), theirs.as_ref()) {
                writeln!(
                    wrong,
                    "{expression} by {step_ms}:\n  ours   {ours:?}\n  theirs {theirs:?}"
                )
                .unwrap();
            }
            points += ours.map_or(0, |ours| ours.values().map(Vec::len).sum());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(points > 10_000);
}
