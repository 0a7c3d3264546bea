//! Native jobs against plain processes: `true` from start to exit, in the same run.

#![expect(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

use std::{
    collections::HashMap,
    io::Write,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use api::{Span, Timestamp, wire::Assignment};
use clawbernetes_node::{
    engine::{
        Engine, What,
        native::{self, Config, NativeEngine},
    },
    spool::{Limits, Spool},
};

/// Jobs in flight at once.
const WINDOW: usize = 32;

fn main() -> ExitCode {
    if let Some(code) = native::helper_main() {
        return code;
    }
    let count = std::env::var("JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let folder = tempfile::tempdir().unwrap();
    let mut out = std::io::stdout();
    let plain = plain(count);
    writeln!(out, "fork+exec  {plain}").unwrap();
    let mut config = Config::new(folder.path().join("data"));
    for cgroups in ["/sys/fs/cgroup", "/no/cgroups"] {
        config.cgroups = cgroups.into();
        for window in [1, WINDOW] {
            let engine = jobs(count, window, &config, folder.path());
            writeln!(out, "native, {window} at once, cgroups in {cgroups}  {engine}").unwrap();
        }
    }
    ExitCode::SUCCESS
}

/// What was measured.
fn told(count: usize, took: Duration, cpu_ms: u64, mut starts: Vec<Duration>) -> String {
    starts.sort();
    let at = |share: f64| {
        starts
            .get((starts.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "{:.0} jobs/s, {:.2} ms CPU a job, start p50 {:.2} ms, p99 {:.2} ms",
        count as f64 / took.as_secs_f64(),
        cpu_ms as f64 / count as f64,
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
    )
}

/// CPU time of this process, of its children, and of theirs that have been waited for, in milliseconds.
fn cpu_ms() -> u64 {
    let ticks = |pid: &str| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .map(|n| n.parse::<u64>().unwrap())
            .sum()
    };
    let own = std::process::id();
    let mut total = ticks("self");
    for task in std::fs::read_dir(format!("/proc/{own}/task")).unwrap().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        total += children.split_whitespace().map(ticks).sum::<u64>();
    }
    total * 10
}

fn plain(count: usize) -> String {
    let (begun, cpu) = (Instant::now(), cpu_ms());
    let mut starts = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let mut child = Command::new("/bin/true")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        starts.push(start.elapsed());
        child.wait().unwrap();
    }
    told(count, begun.elapsed(), cpu_ms() - cpu, starts)
}

fn jobs(count: usize, window: usize, config: &Config, folder: &std::path::Path) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let spool = Spool::open(folder.join("spool"), Limits::default()).unwrap();
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let engine = NativeEngine::open(config, &spool, sender).unwrap();
        let (begun, cpu) = (Instant::now(), cpu_ms());
        let mut begins = HashMap::new();
        let mut starts = Vec::new();
        let (mut sent, mut ended) = (0, 0);
        while ended < count {
            while sent < count && sent - ended < window {
                let job = assignment(sent);
                begins.insert(job.job.clone(), Timestamp::now());
                engine.start(Arc::new(job), None);
                sent += 1;
            }
            let event = events.recv().await.unwrap();
            match event.what {
                // By its own clock reading, just behind the exec.
                What::Started { at } => {
                    let nanos = at.as_nanosecond() - begins[&event.job].as_nanosecond();
                    starts.push(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
                }
                What::Ended { outcome, .. } => {
                    assert!(outcome.success(), "{outcome:?}");
                    engine.forget(&event.job).await;
                    ended += 1;
                }
                What::Pulling(_) => {}
            }
        }
        told(count, begun.elapsed(), cpu_ms() - cpu, starts)
    })
}

fn assignment(n: usize) -> Assignment {
    Assignment {
        job: format!("wl-bench{n}.1.0").parse().unwrap(),
        name: "bench".to_owned(),
        namespace: "default".to_owned(),
        image: "host".to_owned(),
        command: vec!["/bin/true".to_owned()],
        env: Vec::new(),
        secrets: Vec::new(),
        volumes: Vec::new(),
        gpus: Vec::new(),
        cpu: None,
        memory: None,
        timeout: None,
        grace: Span::secs(10),
        checkpointing: None,
        gang: None,
        ports: Vec::new(),
        dynamic_ports: false,
        host_ports: Vec::new(),
        health_check: None,
        readiness: None,
        hooks: None,
        metrics_port: None,
        stop: None,
    }
}
