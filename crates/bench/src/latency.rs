//! From the caller's request to the job's own first word, on an idle fleet.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use api::{
    Timestamp,
    op::{LogsRequest, Operation, Streaming, SubmitRequest, WorkloadGet, WorkloadLogs, WorkloadRef, WorkloadSubmit},
    workload::Phase,
};

use crate::{
    Bench,
    client::Client,
    figures::Times,
    placements::sync_span,
    reference,
    world::{World, job},
};

/// The job: it says when it runs, in nanoseconds since 1970.
const STAMP: [&str; 2] = ["/bin/date", "+%s%N"];

fn now_ns() -> anyhow::Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

/// Measures one job after the other.
pub async fn run(bench: &Bench) -> anyhow::Result<()> {
    println!("\nsubmit -> running process on an idle fleet (aim: p50 15 ms, p99 60 ms)");
    let count = bench.size(300, 5);
    let world = World::start(bench).await?;
    let syncs = reference::syncs(world.folder(), sync_span(bench))?;
    let mut alone = Vec::new();
    for _ in 0..count {
        let at = now_ns()?;
        let told = Command::new(STAMP[0]).arg(STAMP[1]).stdin(Stdio::null()).output()?;
        alone.push(since(at, &String::from_utf8_lossy(&told.stdout))?);
    }
    let agent = world.native_agent().await?;
    let mut client = world.client().await?;
    let (mut begun, mut answered, mut decided, mut started) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        let request = SubmitRequest {
            workloads: vec![job(format!("stamp-{number}"), 0, &STAMP)],
            ..SubmitRequest::default()
        };
        let body = serde_json::to_vec(&request)?;
        let (at, clock) = (now_ns()?, Instant::now());
        let answer = client.raw(WorkloadSubmit::NAME, body).await?;
        answered.push(clock.elapsed());
        let submitted: Vec<api::op::Submitted> = serde_json::from_slice(&answer)?;
        let id = submitted
            .first()
            .context("nothing was submitted")?
            .workload
            .id
            .to_string();
        let workload = end(&mut client, &id).await?;
        let stamp = client
            .raw(
                WorkloadLogs::NAME,
                serde_json::to_vec(&LogsRequest {
                    id,
                    ..LogsRequest::default()
                })?,
            )
            .await?;
        let line: api::op::LogEntry = serde_json::from_slice(&stamp).context("no line of output")?;
        begun.push(since(at, &line.text)?);
        let scheduled = workload.timeline.iter().find(|t| t.phase == Phase::Scheduled);
        decided.push(after(at, scheduled.context("it was never scheduled")?.at));
        let node = workload.started_at.context("it never started")?;
        started.push(after(at, node));
    }
    drop(agent);
    let begun = Times::new(begun);
    let alone = Times::new(alone);
    println!("  to the job's own first word:  {begun}");
    println!("  to the scheduler's decision:  {}", Times::new(decided));
    println!("  to the agent's start of it:   {}", Times::new(started));
    println!("  to the answer of the submit:  {}", Times::new(answered));
    println!("  reference: fork + exec of the same program to its first word {alone}");
    println!("  reference: append + fdatasync alone {syncs}");
    println!(
        "  ratio: {:.1} x (fork + exec + one fdatasync)",
        begun.median() / (alone.median() + syncs.median())
    );
    Ok(())
}

fn since(at: u64, stamp: &str) -> anyhow::Result<Duration> {
    let then: u64 = stamp.trim().parse().with_context(|| format!("'{stamp}' is no stamp"))?;
    Ok(Duration::from_nanos(then.saturating_sub(at)))
}

fn after(at: u64, then: Timestamp) -> Duration {
    Duration::from_nanos((then.as_nanosecond() as u64).saturating_sub(at))
}

async fn end(client: &mut Client, id: &str) -> anyhow::Result<api::workload::Workload> {
    let begun = Instant::now();
    loop {
        let request = WorkloadRef {
            id: id.to_owned(),
            namespace: None,
        };
        let workload = client.call::<WorkloadGet>(&request).await?.workload;
        if workload.phase.ended() {
            anyhow::ensure!(workload.phase == Phase::Succeeded, "{id} is {}", workload.phase);
            return Ok(workload);
        }
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "{id} is {} after 30 s",
            workload.phase
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
