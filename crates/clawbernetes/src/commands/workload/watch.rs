//! Waiting for a workload to end, and what its end means for the exit status.

use std::{future::Future, process::ExitCode};

use api::{
    ApiError, ErrorCode, Timestamp,
    op::{WorkloadDetail, WorkloadRef, WorkloadWatch},
    time,
    workload::{Phase, Workload},
};

use crate::{
    cli::{App, INTERRUPTED},
    client::Client,
    failure::{Failure, Outcome, render},
    output::span_of,
    terminal::Progress,
};

/// Exit status for a workload that never started.
const NEVER_STARTED: u8 = 125;

/// Follows a workload that the gateway has told of until it has ended, showing how it goes on a terminal.
pub(crate) async fn until_ended(client: &Client, workload: &WorkloadRef) -> Result<WorkloadDetail, ApiError> {
    let mut progress = Progress::new();
    let mut stream = client.go_on::<WorkloadWatch>(workload.clone());
    while let Some(detail) = stream.next().await? {
        if detail.workload.phase.ended() {
            return Ok(detail);
        }
        progress.show(&sentence(&detail, Timestamp::now()));
    }
    Err(ApiError::internal(format!(
        "the gateway stopped following {} before its end",
        workload.id
    )))
}

/// Where a workload stands, on one line.
fn sentence(detail: &WorkloadDetail, now: Timestamp) -> String {
    let workload = &detail.workload;
    let mut text = format!("{} {}", workload.id, workload.phase);
    match workload.phase {
        Phase::Pending => {
            if let Some(explanation) = &detail.explanation {
                text.push_str(&format!(": {}", explanation.summary));
            }
        }
        Phase::Pulling => {
            if let Some(pull) = detail.pull.filter(|pull| pull.total_bytes > 0) {
                let percent = u128::from(pull.done_bytes) * 100 / u128::from(pull.total_bytes);
                text.push_str(&format!(": {percent}%"));
            }
        }
        _ => {
            if let Some(started) = workload.started_at {
                text.push_str(&format!(" for {}", span_of(time::between(started, now))));
            }
            if let Some(member) = workload.members.first() {
                text.push_str(&format!(" on {}", member.node));
            }
        }
    }
    text
}

/// Does something long; Ctrl-C leaves the workload running and says how to follow it.
pub(crate) async fn interruptible(app: &App, id: &str, wait: impl Future<Output = Outcome>) -> Outcome {
    tokio::select! {
        outcome = wait => outcome,
        _ = tokio::signal::ctrl_c() => {
            app.out.note(&format!(
                "\n{id} runs on; follow it with: clawbernetes workload logs -f {id}\nstop it with: clawbernetes workload cancel {id}"
            ));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// The exit status that a workload's end means: its own exit code; 125 if it never started; 1 where it didn't succeed
/// but exited 0 (cancelled, say), or where nobody saw its code.
pub(crate) fn own_status(workload: &Workload) -> u8 {
    match workload.exit_code {
        Some(0) if workload.phase == Phase::Succeeded => 0,
        Some(0) => 1,
        Some(code) => u8::try_from(code & 0xff).ok().filter(|code| *code != 0).unwrap_or(1),
        None if workload.phase == Phase::Succeeded => 0,
        None if workload.started_at.is_none() => NEVER_STARTED,
        None => 1,
    }
}

/// Says on standard error how a workload ended, unless it succeeded; gives its exit status.
pub(crate) fn report_end(app: &App, workload: &Workload) -> Result<ExitCode, Failure> {
    if workload.phase != Phase::Succeeded {
        let code = workload
            .reason
            .clone()
            .and_then(|reason| serde_json::from_value::<ErrorCode>(reason.into()).ok());
        let mut text = format!("{} ({}) ended as {}", workload.id, workload.name, workload.phase);
        if let Some(exit) = workload.exit_code {
            text.push_str(&format!(", exit code {exit}"));
        }
        if let Some(message) = &workload.message {
            text.push_str(&format!(": {message}"));
        }
        if !app.out.for_programs() {
            match code {
                Some(code) => app.out.note(render(&ApiError::new(code, text), false).trim_end()),
                None => app.out.note(&text),
            }
        }
    }
    Ok(ExitCode::from(own_status(workload)))
}
