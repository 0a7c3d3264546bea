//! What is measured, from its source to the bytes of the session.

use std::sync::atomic::{AtomicU64, Ordering};

use api::wire::{Fact, FactKind, MetricBatch, SeriesKey};

use super::*;
use crate::gpu::simulated::{Clock, Simulated};

/// Reads batches as a gateway does.
#[derive(Default)]
struct Dictionary {
    series: Vec<Arc<SeriesKey>>,
    /// Number of the last tick.
    through: u64,
    /// The last value of each series, by metric and the value of one label.
    values: BTreeMap<(String, String), f64>,
    /// Times of ticks.
    times: Vec<i64>,
}

impl Dictionary {
    fn take(&mut self, batch: MetricBatch, by: &str) {
        batch.check(self.series.len()).unwrap();
        if batch.anew {
            self.series.clear();
        }
        self.series.extend(batch.define);
        for tick in batch.ticks {
            assert!(tick.number > self.through, "{} after {}", tick.number, self.through);
            self.through = tick.number;
            self.times.push(tick.at_ms);
            for (key, value) in self.series.iter().zip(tick.values) {
                let label = key.labels.get(by).cloned().unwrap_or_default();
                if let Some(value) = value {
                    self.values.insert((key.metric.clone(), label), value);
                }
            }
        }
    }

    fn value(&self, metric: &str, label: &str) -> Option<f64> {
        self.values.get(&(metric.to_owned(), label.to_owned())).copied()
    }
}

impl Peer {
    /// Takes and acknowledges what comes until the measurements are as wanted.
    async fn measured(&mut self, by: &str, done: impl Fn(&Dictionary) -> bool) -> (Dictionary, Vec<Fact>) {
        self.measured_on(Dictionary::default(), by, done).await
    }

    /// The same, going on with what was measured before in the session.
    async fn measured_on(
        &mut self,
        mut dictionary: Dictionary,
        by: &str,
        done: impl Fn(&Dictionary) -> bool,
    ) -> (Dictionary, Vec<Fact>) {
        let mut facts = Vec::new();
        while !done(&dictionary) {
            match self.next_but_heartbeats().await {
                FromNode::Metrics { batch } => {
                    dictionary.take(batch, by);
                    let through = dictionary.through;
                    self.say(&ToNode::MetricsAck { through }).await;
                }
                FromNode::Facts { facts: said } => {
                    let through = said.last().unwrap().number;
                    facts.extend(said);
                    self.say(&ToNode::FactsAck { through }).await;
                }
                FromNode::Observations { observations } => {
                    let through = observations.last().unwrap().number;
                    self.say(&ToNode::ObservationsAck { through }).await;
                }
                _ => {}
            }
        }
        (dictionary, facts)
    }
}

/// An agent with two made-up GPUs, and the clock of these.
fn simulated(bench: &mut Bench, scenario: &str) -> (Arc<AtomicU64>, AgentOptions) {
    let seconds = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&seconds);
    let clock = Clock::new(move || Duration::from_secs(read.load(Ordering::SeqCst)));
    let gpus = "2xH100".parse().unwrap();
    let driver = Simulated::new(NodeName::new("n1"), &gpus, scenario.parse().unwrap(), clock).unwrap();
    let options = AgentOptions {
        drivers: vec![Box::new(driver)],
        sample_interval: Duration::from_millis(20),
        ..bench.options()
    };
    (seconds, options)
}

#[tokio::test]
async fn a_scenario_shows_in_metrics_and_facts() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let scenario = "steps:\n  - {at: 30s, gpu: 1, event: thermal-throttle, celsius: 92}\n  \
                    - {at: 40s, gpu: 0, event: xid, code: 94}\n  - {at: 60s, gpu: 1, event: falls-off-bus}\n";
    let (seconds, options) = simulated(&mut bench, scenario);
    let agent = bench.start_with(options);
    let mut peer = gateway.session(vec![]).await;
    let (cool, facts) = peer.measured("gpu", |d| d.value("gpu.up", "1").is_some()).await;
    assert!(facts.is_empty());
    assert_eq!(cool.value("gpu.up", "1"), Some(1.0));
    assert_eq!(cool.value("gpu.throttle", "1"), Some(1.0), "idle");
    assert_eq!(
        cool.value("gpu.memory.total", "0"),
        Some(f64::from(81_559) * 1_048_576.0)
    );
    assert!(cool.value("gpu.fan", "0").is_none(), "it has none");
    seconds.store(45, Ordering::SeqCst);
    // A dictionary belongs to its session: this goes on with a new one.
    drop(peer);
    let mut peer = gateway.session(vec![]).await;
    let hot = |d: &Dictionary| d.value("gpu.temperature", "1") == Some(92.0);
    let (hot, facts) = peer.measured("gpu", hot).await;
    assert_eq!(hot.value("gpu.throttle", "1"), Some(72.0));
    let slowdown = hot.value("gpu.temperature.slowdown", "1").unwrap();
    assert!(slowdown < 92.0);
    seconds.store(61, Ordering::SeqCst);
    let gone = |d: &Dictionary| d.value("gpu.up", "1") == Some(0.0);
    let (lost, more) = peer.measured_on(hot, "gpu", gone).await;
    assert!(lost.value("gpu.temperature", "0").is_some());
    let xids: Vec<(u32, Option<u32>)> = facts
        .iter()
        .chain(&more)
        .map(|fact| match fact.what {
            FactKind::Xid { xid, gpu, .. } => (xid, gpu),
            _ => panic!("{fact:?}"),
        })
        .collect();
    assert!(xids.starts_with(&[(94, Some(0))]), "{xids:?}");
    agent.stop().await;
}

#[tokio::test]
async fn ticks_wait_for_the_gateway_and_go_out_again_until_acknowledged() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let (_, options) = simulated(&mut bench, "");
    let agent = bench.start_with(options);
    let first = |message| match message {
        FromNode::Metrics { batch } => batch,
        other => panic!("{other:?}"),
    };
    let mut peer = gateway.session(vec![]).await;
    let unanswered = first(peer.next_but_heartbeats().await);
    assert_eq!(unanswered.ticks[0].number, 1);
    drop(peer);
    let mut peer = gateway.session(vec![]).await;
    let again = first(peer.next_but_heartbeats().await);
    assert_eq!(again.ticks[0], unanswered.ticks[0], "the same tick, of the same series");
    assert_eq!(again.define[..unanswered.define.len()], unanswered.define[..]);
    let through = again.ticks.last().unwrap().number;
    peer.say(&ToNode::MetricsAck { through }).await;
    let next = first(peer.next_but_heartbeats().await);
    assert_eq!(next.ticks[0].number, through + 1);
    assert!(next.define.is_empty(), "{:?}", next.define);
    agent.stop().await;
}

/// Serves one page to whoever asks, until it is dropped.
async fn page(text: &'static str) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = answer(stream, "200 OK", text).await;
            assert!(asked.starts_with("GET /metrics "), "{asked}");
        }
    });
    (port, task)
}

#[tokio::test]
async fn workloads_report_numbers_of_their_own() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let (port, server) = page("# TYPE tokens_total counter\ntokens_total{model=\"m\",workload=\"other\"} 12\n").await;
    let options = AgentOptions {
        sample_interval: Duration::from_millis(20),
        ..bench.options()
    };
    let agent = bench.start_with(options);
    let job = Assignment {
        metrics_port: Some(port),
        memory: Some(Size::gib(2)),
        ..assignment("wl-a.3.0", &[])
    };
    let mut peer = gateway.session(vec![job]).await;
    bench.native.until_started("wl-a.3.0").await;
    bench.native.starts("wl-a.3.0");
    bench.output.write("wl-a.3.0", "::metric loss=0.5 unit=nats");
    let all = |d: &Dictionary| {
        [
            "custom.loss",
            "custom.tokens_total",
            "workload.restarts",
            "workload.memory.limit",
        ]
        .iter()
        .all(|metric| d.value(metric, "wl-a").is_some())
    };
    let (measured, _) = peer.measured("workload", all).await;
    assert_eq!(measured.value("custom.loss", "wl-a"), Some(0.5));
    assert_eq!(measured.value("custom.tokens_total", "wl-a"), Some(12.0));
    assert_eq!(measured.value("workload.restarts", "wl-a"), Some(2.0));
    assert_eq!(
        measured.value("workload.memory.limit", "wl-a"),
        Some(2.0 * 1_073_741_824.0)
    );
    assert_eq!(
        measured.value("workload.memory", "wl-a"),
        None,
        "its engine doesn't say"
    );
    let key = |metric: &str| measured.series.iter().find(|key| key.metric == metric).unwrap();
    assert_eq!(key("custom.loss").unit.as_deref(), Some("nats"));
    assert_eq!(key("custom.tokens_total").kind, Some(api::metric::Kind::Counter));
    assert!(measured.times.contains(&0), "the time of the line");
    agent.stop().await;
    server.abort();
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_laid_at_its_jobs_door() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let agent = bench.start();
    let _peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    let engines: Vec<Arc<dyn Engine>> = vec![puppet(&bench.events), Arc::clone(&bench.native) as _];
    let owner = async |cgroup: Option<&str>| {
        let mut what = FactKind::OomKill {
            process: "a".to_owned(),
            pid: 7,
            cgroup: cgroup.map(str::to_owned),
            job: None,
        };
        super::super::measure::name_job(&mut what, &engines).await;
        match what {
            FactKind::OomKill { job, .. } => job.map(|job| job.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let group = Some("/system.slice/puppet-wl-a.1.0.scope");
    assert_eq!(owner(group).await.as_deref(), Some("wl-a.1.0"), "the second engine's");
    assert_eq!(owner(Some("/system.slice/sshd.service")).await, None);
    assert_eq!(owner(None).await, None, "the machine's memory ran out");
    agent.stop().await;
}

#[tokio::test]
async fn how_much_workloads_say_is_measured() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let options = AgentOptions {
        sample_interval: Duration::from_millis(20),
        ..bench.options()
    };
    let agent = bench.start_with(options);
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.starts("wl-a.1.0");
    let silent = |d: &Dictionary| d.value("workload.log.bytes", "wl-a").is_some();
    let (measured, _) = peer.measured("workload", silent).await;
    assert_eq!(measured.value("workload.log.lines", "wl-a"), Some(0.0));
    assert_eq!(measured.value("workload.log.lost", "wl-a"), Some(0.0));
    bench.output.lost.store(7, Ordering::SeqCst);
    let output = Arc::clone(&bench.output);
    let loud = tokio::spawn(async move {
        loop {
            output.write("wl-a.1.0", "0123456789");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let heard = |d: &Dictionary| {
        d.value("workload.log.lines", "wl-a").is_some_and(|lines| lines > 0.0)
            && d.value("workload.log.lost", "wl-a") == Some(7.0)
    };
    let (measured, _) = peer.measured_on(measured, "workload", heard).await;
    loud.abort();
    let rate = |metric: &str| measured.value(metric, "wl-a").unwrap();
    let a_line = rate("workload.log.bytes") / rate("workload.log.lines");
    assert!((a_line - 10.0).abs() < 0.1, "{a_line}");
    // What is lost is told of one that has ended, too.
    bench.output.lost.store(9, Ordering::SeqCst);
    bench.native.ends("wl-a.1.0", 0);
    peer.measured_on(measured, "workload", |d| {
        d.value("workload.log.lost", "wl-a") == Some(9.0)
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_answers_prometheus_where_it_is_told_to() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let (_, options) = simulated(&mut bench, "");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = AgentOptions {
        metrics: Some(listener),
        ..options
    };
    let agent = bench.start_with(options);
    let mut peer = gateway.session(vec![]).await;
    peer.measured("gpu", |d| d.value("gpu.up", "1").is_some()).await;
    let ask = |path: &'static str| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer
    };
    let answer = ask("/metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(
        answer.contains("DCGM_FI_DEV_GPU_TEMP{Hostname=\"n1\",gpu=\"1\",model=\"NVIDIA H100 80GB HBM3\",UUID="),
        "{answer}"
    );
    assert!(ask("/").await.starts_with("HTTP/1.1 404"));
    agent.stop().await;
}

#[tokio::test]
async fn a_driver_that_hangs_leaves_the_other_numbers() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let (let_go, hang) = std::sync::mpsc::channel();
    let options = AgentOptions {
        drivers: vec![Box::new(Hanging(Mutex::new(hang)))],
        machine: Arc::new(crate::host::Host::default()),
        sample_interval: Duration::from_millis(20),
        ..bench.options()
    };
    let agent = bench.start_with(options);
    let mut peer = gateway.session(vec![]).await;
    let (measured, _) = peer
        .measured("gpu", |d| {
            d.value("gpu.up", "0") == Some(0.0) && d.value("cpu.load1", "").is_some()
        })
        .await;
    assert!(measured.value("memory.usage", "").is_some());
    drop(let_go);
    agent.stop().await;
}

#[tokio::test]
async fn a_workload_that_reports_too_much_is_told_once() {
    let gateway = Gateway::new().await;
    let mut bench = Bench::new(gateway.address());
    let options = AgentOptions {
        sample_interval: Duration::from_millis(20),
        ..bench.options()
    };
    let agent = bench.start_with(options);
    let mut peer = gateway.session(vec![assignment("wl-a.1.0", &[])]).await;
    bench.native.until_started("wl-a.1.0").await;
    bench.native.starts("wl-a.1.0");
    for user in 0..150 {
        bench.output.write("wl-a.1.0", &format!("::metric user_{user}=1"));
    }
    bench.output.write("wl-a.1.0", "::metric user_3=2");
    let (measured, _) = peer
        .measured("workload", |d| d.value("custom.user_3", "wl-a") == Some(2.0))
        .await;
    let own = measured.series.iter().filter(|key| key.metric.starts_with("custom."));
    assert_eq!(own.count(), 100);
    let remarks = std::mem::take(&mut bench.native.jobs().remarks);
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(remarks[0].1.starts_with("more than 100 series"), "{remarks:?}");
    agent.stop().await;
}
