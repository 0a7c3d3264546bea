//! The ecosystem reads our metrics: a real Prometheus scrapes, is written to, and agrees with the gateway's own answers;
//! promtool accepts what is scraped; the dashboards' queries find data in both.
//!
//! Skipped where Prometheus isn't installed; `scripts/test` installs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cluster::{Answer, Cluster, exchange, wait_for},
    world::{Home, free_port},
};

const SIMULATED: &[&str] = &[
    "--simulate-gpus",
    "2xH100",
    "--sample-interval",
    "1s",
    "--engine",
    "native",
];

pub fn installed() -> bool {
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let both = there("prometheus") && there("promtool");
    if !both {
        let required = std::env::var("CLAWBERNETES_TEST_PROMETHEUS").is_ok_and(|value| value == "required");
        assert!(!required, "prometheus and promtool aren't installed");
        eprintln!("skipped: prometheus and promtool aren't installed");
    }
    both
}

/// Where PromQL is answered: a Prometheus, or the gateway.
struct Api {
    address: SocketAddr,
    prefix: &'static str,
    authorization: Option<String>,
}

impl Api {
    fn of(cluster: &Cluster) -> Self {
        Self {
            address: cluster.address(),
            prefix: "/prometheus",
            authorization: Some(format!("Bearer {}", cluster.token())),
        }
    }

    /// An answer's `data`. `None`: nobody is there.
    #[track_caller]
    fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let answer = self.raw("GET", &format!("{path}?{}", form(parameters)), "")?;
        data(&answer)
    }

    /// As [`Self::get`], with the parameters in a form.
    #[track_caller]
    fn post(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        data(&self.raw("POST", path, &form(parameters))?)
    }

    fn raw(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        let path = format!("{}/api/v1/{path}", self.prefix);
        exchange(self.address, method, &path, &headers, body.as_bytes())
    }

    /// The series of a query as it is now.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let data = wait_for("an answer", || self.post("query", &[("query", query)]));
        match &data["result"] {
            Value::Array(series) if data["resultType"] != "scalar" => series.clone(),
            scalar => vec![scalar.clone()],
        }
    }

    /// A query's series over a range, by labels: times and values.
    #[track_caller]
    fn range(&self, query: &str, (start, end): (f64, f64), step: &str) -> BTreeMap<String, Vec<(f64, f64)>> {
        let (start, end) = (format!("{start:.3}"), format!("{end:.3}"));
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", step)];
        let data = wait_for("an answer", || self.get("query_range", &parameters));
        by_labels(&data)
    }

    /// A range's samples, by labels.
    #[track_caller]
    fn samples(&self, selector: &str, seconds: f64, end: f64) -> BTreeMap<String, Vec<(f64, f64)>> {
        let query = format!("{selector}[{}ms]", (seconds * 1000.0).round());
        let end = format!("{end:.3}");
        let data = wait_for("an answer", || self.get("query", &[("query", &query), ("time", &end)]));
        by_labels(&data)
    }
}

#[track_caller]
fn data(answer: &Answer) -> Option<Value> {
    // Between its start and the end of its preparations.
    if answer.status == 503 || answer.status == 401 {
        return None;
    }
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut answer = answer.json();
    assert_eq!(answer["status"], "success", "{answer}");
    Some(answer["data"].take())
}

fn by_labels(data: &Value) -> BTreeMap<String, Vec<(f64, f64)>> {
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let series = data["result"].as_array().unwrap().iter();
    let series = series.map(|one| {
        let points = one["values"].as_array().unwrap().iter();
        let points = points.map(|point| (point[0].as_f64().unwrap(), number(&point[1])));
        (one["metric"].to_string(), points.collect())
    });
    series.collect()
}

fn form(parameters: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in parameters {
        let _ = write!(form, "{name}=");
        for byte in value.bytes() {
            let _ = write!(form, "%{byte:02X}");
        }
        form.push('&');
    }
    form
}

/// A real Prometheus, in the home of a test.
pub struct Prometheus {
    child: Child,
    port: u16,
    folder: PathBuf,
    api: Api,
}

impl Prometheus {
    pub fn start(home: &Home, port: u16, config: &str) -> Self {
        let file = home.write("prometheus/prometheus.yml", config);
        Self::again(file.parent().unwrap(), port)
    }

    pub fn again(folder: &Path, port: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--web.enable-remote-write-receiver")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let api = Api {
            address,
            prefix: "",
            authorization: None,
        };
        wait_for("prometheus to be ready", || {
            let ready = exchange(address, "GET", "/-/ready", &[], b"")?;
            (ready.status == 200).then_some(())
        });
        Self {
            child,
            port,
            folder: folder.to_owned(),
            api,
        }
    }

    /// `kill -9`; what it needs to be started again.
    pub fn kill(self) -> (PathBuf, u16) {
        // It is buried where it is dropped.
        (self.folder.clone(), self.port)
    }

    /// The values of a query's series as it is now.
    #[track_caller]
    pub fn values(&self, query: &str) -> Vec<String> {
        let series = self.api.query(query);
        series
            .iter()
            .map(|one| one["value"][1].as_str().unwrap().to_owned())
            .collect()
    }

    /// SIGTERM, and its end; what it needs to be started again.
    fn stop(mut self) -> (PathBuf, u16) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait_for("prometheus to end", || self.child.try_wait().unwrap());
        (self.folder.clone(), self.port)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            eprintln!("--- prometheus\n{log}");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A workload that counts, and tells so.
fn run_counting(cluster: &Cluster) -> String {
    let script = "n=0; while :; do n=$((n+1)); echo \"::metric tokens=$n\"; sleep 1; done";
    let words = [
        "--image",
        "host",
        "--gpus",
        "1",
        "--timeout",
        "20m",
        "--",
        "sh",
        "-c",
        script,
    ];
    cluster.run(&words)
}

/// Ends everything in order; a workload would outlive its agent.
fn finish(cluster: Cluster, workload: &str) {
    cluster.home.run(&format!("workload cancel {workload}")).ok();
    cluster.wait_phase(workload, "cancelled");
    cluster.end();
}

#[track_caller]
fn promtool(text: &str) {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
}

/// The dashboards, by name.
fn dashboards() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/grafana");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = files.map(|path| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).unwrap())
    });
    let read: Vec<_> = read.collect();
    assert_eq!(read.len(), 3, "fleet, node and workload");
    read
}

/// Names of our metrics in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("clawbernetes_") || word.starts_with("DCGM_"));
    // A pattern's beginning is no name.
    ours.filter(|word| !word.ends_with('_')).map(str::to_owned).collect()
}

#[test]
fn a_real_prometheus_scrapes_the_fleet_and_dashboards_find_data_in_both() {
    if !installed() {
        return;
    }
    let mut cluster = Cluster::start();
    let agent = SocketAddr::from(([127, 0, 0, 1], free_port()));
    cluster.join("a", &[SIMULATED, &["--metrics-listen", &agent.to_string()]].concat());
    cluster.join("b", SIMULATED);
    let workload = run_counting(&cluster);
    cluster.home.write("prometheus/token", &cluster.token());
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n\
         - job_name: clawbernetes\n  \
           authorization: {{credentials_file: token}}\n  \
           static_configs: [{{targets: ['{}']}}]\n\
         - job_name: agents\n  \
           static_configs: [{{targets: ['{agent}']}}]\n",
        cluster.address()
    );
    let prometheus = Prometheus::start(&cluster.home, free_port(), &config);
    let gateway = Api::of(&cluster);

    for job in ["clawbernetes", "agents"] {
        wait_for(&format!("{job} to be scraped"), || {
            let up = prometheus.api.query(&format!("up{{job=\"{job}\"}} == 1"));
            (!up.is_empty()).then_some(())
        });
    }
    // Two samples of what is measured least often: the gateway itself; and the workload is seen.
    for query in [
        "rate(clawbernetes_gateway_cpu_seconds_total[1m])",
        "rate(clawbernetes_custom_tokens[1m])",
        "clawbernetes_workload_cpu_cores",
    ] {
        for api in [&gateway, &prometheus.api] {
            wait_for(query, || (!api.query(query).is_empty()).then_some(()));
        }
    }

    let bearer = format!("Bearer {}", cluster.token());
    let ours = exchange(cluster.address(), "GET", "/metrics", &[("authorization", &bearer)], b"").unwrap();
    let theirs = exchange(agent, "GET", "/metrics", &[], b"").unwrap();
    for text in [&ours.body, &theirs.body] {
        assert!(text.contains("clawbernetes_node_load1") && text.contains("DCGM_FI_DEV_GPU_UTIL"));
        promtool(text);
    }

    let known = gateway.get("label/__name__/values", &[]).unwrap();
    let known: BTreeSet<String> = serde_json::from_value(known).unwrap();
    let (mut found, mut absent) = (0, Vec::new());
    for (file, dashboard) in dashboards() {
        assert_eq!(dashboard["schemaVersion"], 39, "{file}");
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["definition"].as_str() else {
                continue;
            };
            let (selector, label) = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')')?.rsplit_once(", "))
                .unwrap();
            let selector = selector.replace("$node", "(a|b)");
            let values = |api: &Api| api.get(&format!("label/{label}/values"), &[("match[]", &selector)]);
            wait_for(&format!("the same values of {query} in both"), || {
                let ours = values(&gateway)?;
                (Some(&ours) == values(&prometheus.api).as_ref() && ours != serde_json::json!([])).then_some(())
            });
        }
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap();
                let query = query
                    .replace("$node", "(a|b)")
                    .replace("$workload", &workload)
                    .replace("$__rate_interval", "1m");
                // What this machine doesn't have can't be measured here.
                if let Some(name) = names(&query).into_iter().find(|name| !known.contains(name)) {
                    gateway.query(&query);
                    prometheus.api.query(&query);
                    absent.push(name);
                    continue;
                }
                // Filters for what is wrong find nothing in a fleet that is well.
                for (name, api) in [("the gateway", &gateway), ("prometheus", &prometheus.api)] {
                    wait_for(&format!("{name} to answer {query} of {}", panel["title"]), || {
                        (!api.query(&query).is_empty()).then_some(())
                    });
                }
                found += 1;
            }
        }
    }
    eprintln!("{found} queries of dashboards found data; not measured here: {absent:?}");
    assert!(found >= 70, "{found} queries found data; not measured here: {absent:?}");

    // The rest of the API that Grafana calls.
    assert_eq!(gateway.get("status/buildinfo", &[]).unwrap()["version"], "2.42.0");
    let told = gateway
        .get("metadata", &[("metric", "clawbernetes_node_load1")])
        .unwrap();
    assert_eq!(told["clawbernetes_node_load1"][0]["type"], "gauge");
    let labels = gateway.get("labels", &[("match[]", "clawbernetes_node_up")]).unwrap();
    assert_eq!(labels, serde_json::json!(["__name__", "node"]));
    let series = gateway
        .get("series", &[("match[]", "clawbernetes_node_up{node=\"a\"}")])
        .unwrap();
    assert_eq!(
        series,
        serde_json::json!([{ "__name__": "clawbernetes_node_up", "node": "a" }])
    );

    prometheus.stop();
    finish(cluster, &workload);
}

#[test]
fn the_query_api_refuses_as_prometheus_does() {
    let cluster = Cluster::start();
    let mut gateway = Api::of(&cluster);
    let refused = |api: &Api, path: &str, parameters: &[(&str, &str)]| {
        let answer = api.raw("POST", path, &form(parameters)).unwrap();
        let told = answer.json();
        assert_eq!(told["status"], "error", "{answer:?}");
        assert!(!told["error"].as_str().unwrap().is_empty(), "{answer:?}");
        (answer.status, told["errorType"].as_str().unwrap().to_owned())
    };
    let bad = (400, "bad_data".to_owned());
    let range = [("query", "up"), ("start", "0"), ("end", "100000"), ("step", "1")];
    assert_eq!(refused(&gateway, "query", &[]), bad);
    assert_eq!(refused(&gateway, "query", &[("query", "up{")]), bad);
    assert_eq!(refused(&gateway, "query", &[("query", "up"), ("time", "soon")]), bad);
    assert_eq!(
        refused(&gateway, "query", &[("query", "histogram_quantile(1, up)")]),
        bad
    );
    assert_eq!(refused(&gateway, "query", &[("query", "up[1e300]")]), bad);
    assert_eq!(refused(&gateway, "query_range", &range), bad, "too many steps");
    assert_eq!(refused(&gateway, "query_range", &range[..3]), bad, "no step");
    assert_eq!(refused(&gateway, "series", &[]), bad);
    assert_eq!(refused(&gateway, "rules", &[]), (404, "not_found".to_owned()));
    // The gateway measures the fleet each ten seconds: the first time at once.
    wait_for("numbers of the fleet", || {
        (!gateway.query("clawbernetes_nodes").is_empty()).then_some(())
    });
    let many = "clawbernetes_nodes + on () clawbernetes_nodes";
    assert_eq!(
        refused(&gateway, "query", &[("query", many)]),
        (422, "execution".to_owned())
    );

    // As Grafana and Prometheus log in; but nothing can be changed that way.
    gateway.authorization = Some(format!("Basic {}", base64(&format!("any:{}", cluster.token()))));
    assert!(!gateway.query("clawbernetes_nodes").is_empty());
    let basic = gateway.authorization.clone().unwrap();
    let path = api::op::path("auth.token.list");
    let answer = exchange(cluster.address(), "POST", &path, &[("authorization", &basic)], b"{}").unwrap();
    assert_eq!(answer.status, 401, "{answer:?}");
    for nobody in [None, Some("Bearer cbt_x_y".to_owned())] {
        gateway.authorization = nobody;
        let told = refused(&gateway, "query", &[("query", "up")]);
        assert_eq!(told, (401, "unauthorized".to_owned()));
    }
    cluster.end();
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut made = String::new();
    for part in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(part.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            made.push(if at <= part.len() { char::from(letter) } else { '=' });
        }
    }
    made
}

/// Queries that both must answer alike, over series that are measured each second.
const ALIKE: &[&str] = &[
    "clawbernetes_node_load1",
    "-clawbernetes_node_load1 offset 5s",
    "DCGM_FI_DEV_GPU_TEMP{Hostname!=\"b\", gpu=~\"0|1\"} @ end()",
    "sum by (gpu) (DCGM_FI_DEV_GPU_UTIL)",
    "avg without (gpu, UUID) (DCGM_FI_DEV_POWER_USAGE)",
    "min(DCGM_FI_DEV_GPU_TEMP)",
    "max(DCGM_FI_DEV_GPU_TEMP)",
    "count by (model) (DCGM_FI_DEV_GPU_TEMP)",
    "quantile(0.9, DCGM_FI_DEV_GPU_TEMP)",
    "stddev(DCGM_FI_DEV_GPU_TEMP)",
    "stdvar by (Hostname) (DCGM_FI_DEV_GPU_TEMP)",
    "topk(1, DCGM_FI_DEV_POWER_USAGE)",
    "bottomk(2, DCGM_FI_DEV_POWER_USAGE)",
    "count_values(\"load\", round(clawbernetes_node_load1))",
    "rate(clawbernetes_custom_tokens[10s])",
    "irate(clawbernetes_custom_tokens[10s])",
    "increase(clawbernetes_custom_tokens[7s])",
    "delta(DCGM_FI_DEV_POWER_USAGE[10s])",
    "idelta(DCGM_FI_DEV_POWER_USAGE[10s])",
    "deriv(DCGM_FI_DEV_POWER_USAGE[10s])",
    "predict_linear(clawbernetes_custom_tokens[10s], 60)",
    "changes(DCGM_FI_DEV_POWER_USAGE[10s])",
    "resets(DCGM_FI_DEV_POWER_USAGE[10s])",
    "avg_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "min_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "max_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "sum_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "count_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "last_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "present_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "stddev_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "stdvar_over_time(DCGM_FI_DEV_POWER_USAGE[10s])",
    "quantile_over_time(0.3, DCGM_FI_DEV_POWER_USAGE[10s])",
    "absent_over_time(nothing{a=\"b\"}[10s])",
    "absent(nothing{a=\"b\", c=~\"d\"})",
    "max_over_time(rate(clawbernetes_custom_tokens[5s])[10s:2s])",
    "avg_over_time(sum(DCGM_FI_DEV_GPU_UTIL)[10s:3s] offset 2s)",
    "DCGM_FI_DEV_FB_USED / DCGM_FI_DEV_FB_TOTAL",
    "DCGM_FI_DEV_POWER_USAGE / on (Hostname) group_left sum by (Hostname) (DCGM_FI_DEV_POWER_USAGE)",
    "sum by (Hostname) (DCGM_FI_DEV_POWER_USAGE) - ignoring (gpu) group_right (model) max by (Hostname, gpu) (DCGM_FI_DEV_GPU_TEMP)",
    "DCGM_FI_DEV_GPU_TEMP > 40",
    "DCGM_FI_DEV_GPU_TEMP > bool 40",
    "40 <= DCGM_FI_DEV_GPU_TEMP",
    "2 ^ 3 ^ 2 % 7 - -1",
    "DCGM_FI_DEV_GPU_TEMP and on (gpu) DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"}",
    "DCGM_FI_DEV_GPU_TEMP unless on (gpu) DCGM_FI_DEV_GPU_UTIL{gpu=\"0\"}",
    "DCGM_FI_DEV_GPU_TEMP{gpu=\"0\"} or DCGM_FI_DEV_GPU_UTIL or vector(1)",
    "label_replace(clawbernetes_node_load1, \"machine\", \"$1-x\", \"node\", \"(.*)\")",
    "label_join(DCGM_FI_DEV_GPU_TEMP, \"place\", \"/\", \"Hostname\", \"gpu\")",
    "clamp(DCGM_FI_DEV_GPU_TEMP, 35, 40)",
    "clamp_min(DCGM_FI_DEV_GPU_TEMP, 41)",
    "clamp_max(DCGM_FI_DEV_GPU_TEMP, 41)",
    "round(DCGM_FI_DEV_POWER_USAGE, 0.5)",
    "ceil(clawbernetes_node_load1) + floor(clawbernetes_node_load1)",
    "sqrt(abs(ln(clawbernetes_node_load1 + 1))) * exp(sgn(clawbernetes_node_load1))",
    "log2(clawbernetes_node_load1 + 1) < log10(clawbernetes_node_load1 + 10)",
    "time() - timestamp(clawbernetes_node_load1)",
    "scalar(clawbernetes_node_load1{node=\"a\"}) + scalar(clawbernetes_node_load1)",
    "{__name__=~\"clawbernetes_node_load.*\", node=\"a\"}",
];

fn close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

#[test]
fn what_is_written_to_a_prometheus_arrives_also_after_it_was_down_and_both_compute_alike() {
    if !installed() {
        return;
    }
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/api/v1/write");
    let mut cluster = Cluster::start_with(&["--remote-write", &url]);
    let prometheus = Prometheus::start(&cluster.home, port, "global: {}\n");
    cluster.join("a", SIMULATED);
    cluster.join("b", SIMULATED);
    let workload = run_counting(&cluster);
    let gateway = Api::of(&cluster);
    let last = |api: &Api| {
        let told =
            api.query("min(timestamp(clawbernetes_custom_tokens)) and on () count(clawbernetes_node_load1) == 2");
        told.first()?["value"][1].as_str()?.parse::<f64>().ok()
    };
    let begun = wait_for("samples to arrive", || last(&prometheus.api));

    // It goes away, and the gateway tells so.
    let counter = |name: &str| {
        let name = format!("clawbernetes_gateway_remote_write_{name}_total");
        let told = gateway.query(&name);
        told.first()
            .map_or(0.0, |one| one["value"][1].as_str().unwrap().parse().unwrap())
    };
    let failures = counter("failures");
    let (folder, port) = prometheus.stop();
    wait_for("failures to be counted", || {
        (counter("failures") > failures).then_some(())
    });
    // The queue outlives the gateway, too.
    cluster.kill_gateway();
    cluster.start_gateway();
    let down = wait_for("samples of the time when nobody took them", || {
        last(&gateway).filter(|at| *at > begun + 15.0)
    });
    let prometheus = Prometheus::again(&folder, port);
    let end = wait_for("the samples of that time, and more", || {
        last(&prometheus.api).filter(|at| *at > down + 20.0)
    }) - 5.0;

    // Ranges of this Prometheus have their start in them, ours don't: moments are chosen on which no sample lies, and no
    // step of a subquery, which are whole seconds.
    let all = gateway.samples("{__name__=~\"clawbernetes_.*|DCGM_.*\"}", 600.0, end);
    let times = all
        .values()
        .flatten()
        .map(|(at, _)| (at * 1000.0).round() as i64 % 1000);
    let taken: BTreeSet<i64> = times.collect();
    let phase = (1..1000).find(|ms| !taken.contains(ms)).unwrap() as f64 / 1000.0;
    let (start, end) = (begun.ceil() + phase, end.floor() - 1.0 + phase);

    // Nothing is missing, and nothing is there twice.
    for selector in [
        "clawbernetes_node_load1",
        "clawbernetes_custom_tokens",
        "DCGM_FI_DEV_POWER_USAGE",
    ] {
        let until = Instant::now() + Duration::from_secs(30);
        let ours = loop {
            let ours = gateway.samples(selector, end - start, end);
            let theirs = prometheus.api.samples(selector, end - start, end);
            if ours == theirs {
                break ours;
            }
            assert!(
                Instant::now() < until,
                "{selector}\n  ours   {ours:?}\n  theirs {theirs:?}"
            );
        };
        let fewest = ours.values().map(Vec::len).min().unwrap_or(0);
        assert!(fewest > 20, "{selector} has {fewest} samples in {} s", end - start);
    }
    wait_for("samples to be counted", || (counter("samples") > 0.0).then_some(()));

    // The same samples make the same answers.
    let moments = (end - 24.0, end);
    let (mut wrong, mut empty) = (Vec::new(), Vec::new());
    for query in ALIKE {
        let ours = gateway.range(query, moments, "3");
        let theirs = prometheus.api.range(query, moments, "3");
        let alike = ours.len() == theirs.len()
            && ours.iter().all(|(labels, points)| {
                theirs.get(labels).is_some_and(|others| {
                    let mut both = points.iter().zip(others);
                    points.len() == others.len() && both.all(|(a, b)| a.0 == b.0 && close(a.1, b.1))
                })
            });
        if theirs.is_empty() {
            empty.push(query);
        }
        if !alike {
            wrong.push(format!("{query}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        ALIKE.len(),
        wrong.join("\n")
    );

    // Comparisons may hold for nothing.
    assert!(empty.len() <= 3, "these compare nothing: {empty:?}");

    prometheus.stop();
    finish(cluster, &workload);
}
