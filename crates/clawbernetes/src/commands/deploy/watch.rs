//! Following a deployment to its end, and what its end means for the exit status.

use std::{
    io::{IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use api::{
    ApiError, Span, Timestamp,
    deploy::Phase,
    op::{DeployRef, DeployWatch, DeploymentStatus, DeploymentSummary},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{named, stands};
use crate::{
    cli::{App, INTERRUPTED},
    client::Client,
    failure::{Failure, Outcome, render},
    output::{Format, Ongoing, Page, Render as _, changes, sentence},
    terminal::{Live, Progress, able},
};

/// How often times in a live view are told anew.
const TICK: Duration = Duration::from_secs(1);

/// Exit status of a deployment that ended otherwise than was asked for.
const FAILED: u8 = 1;

/// Which end was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That it does what it was made for.
    Done,
    /// That the revision before is back: by a deployment of its own, or by the end of the one under way.
    Back,
}

impl Wanted {
    /// The exit status of an end.
    fn status(self, summary: &DeploymentSummary) -> u8 {
        match (self, summary.phase) {
            (_, Phase::Complete) | (Self::Back, Phase::RolledBack) => 0,
            // What never began was called off.
            (Self::Back, Phase::Failed) if summary.started_at.is_none() => 0,
            _ => FAILED,
        }
    }
}

/// How it is shown as it goes on.
enum Shown<W> {
    /// In place, on a terminal.
    Live(Live<W>),
    /// What changes, a line each.
    Lines(W),
    /// Each standing as a line of JSON on standard output.
    Items,
    /// One line on a terminal, then the last standing as a document.
    Document(Progress),
}

/// Follows a deployment that the gateway has told of until it has ended, showing on `to` how it goes on. Ctrl-C leaves
/// it alone, and says how to follow it.
pub(super) async fn follow(
    app: &App,
    client: &Client,
    status: &DeploymentStatus,
    wanted: Wanted,
    to: impl Write + IsTerminal + AsFd,
) -> Outcome {
    let id = status.summary.id.to_string();
    let shown = match app.out.format {
        Format::Jsonl => Shown::Items,
        Format::Json | Format::Yaml | Format::Name => Shown::Document(Progress::new()),
        Format::Table if able(&to) => Shown::Live(Live::new(to)),
        Format::Table => Shown::Lines(to),
    };
    tokio::select! {
        outcome = until_ended(app, client, &id, wanted, shown) => outcome,
        _ = tokio::signal::ctrl_c() => {
            app.out.note(&format!(
                "\n{} goes on; follow it with: clawbernetes deploy status {id} -w\n\
                 take it back with: clawbernetes deploy rollback {id}",
                named(status)
            ));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn until_ended<W: Write + IsTerminal + AsFd>(
    app: &App,
    client: &Client,
    id: &str,
    wanted: Wanted,
    mut shown: Shown<W>,
) -> Outcome {
    let request = DeployRef {
        id: id.to_owned(),
        namespace: None,
    };
    let mut stream = client.go_on::<DeployWatch>(request);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(DeploymentStatus, Instant)> = None;
    loop {
        // Given up half-way, it would forget since when the gateway is silent.
        let item = {
            let mut next = std::pin::pin!(stream.next());
            loop {
                tokio::select! {
                    item = &mut next => break item?,
                    _ = ticks.tick() => {
                        if let (Shown::Live(live), Some((status, at))) = (&mut shown, &last) {
                            draw(live, status, at.elapsed().into())?;
                        }
                    }
                }
            }
        };
        let Some(status) = item else {
            return Err(ApiError::internal(format!("the gateway stopped following {id} before its end")).into());
        };
        if status.summary.phase.ended() {
            return end(app, shown, last.map(|(last, _)| last).as_ref(), &status, wanted);
        }
        match &mut shown {
            Shown::Live(live) => draw(live, &status, Span(0))?,
            Shown::Lines(to) => print(to, last.as_ref().map(|(last, _)| last), &status)?,
            Shown::Items => app.out.item(&status)?,
            Shown::Document(progress) => progress.show(&sentence(&status)),
        }
        last = Some((status, Instant::now()));
    }
}

fn draw<W: Write + IsTerminal + AsFd>(live: &mut Live<W>, status: &DeploymentStatus, age: Span) -> Result<(), Failure> {
    let mut page = Page::new(live.view());
    Ongoing { status, age }.render(&mut page);
    Ok(live.draw(&page.text)?)
}

fn print(to: &mut impl Write, last: Option<&DeploymentStatus>, status: &DeploymentStatus) -> Result<(), Failure> {
    for line in changes(last, status, Timestamp::now()) {
        writeln!(to, "{line}")?;
    }
    Ok(to.flush()?)
}

/// Shows the last standing, says on standard error what went wrong, and gives the exit status.
fn end<W: Write + IsTerminal + AsFd>(
    app: &App,
    shown: Shown<W>,
    last: Option<&DeploymentStatus>,
    status: &DeploymentStatus,
    wanted: Wanted,
) -> Outcome {
    let code = wanted.status(&status.summary);
    match shown {
        Shown::Live(live) => {
            let mut page = Page::new(live.view());
            status.render(&mut page);
            live.end(&page.text)?;
        }
        Shown::Lines(mut to) => {
            print(&mut to, last, status)?;
            let told = format!("{} ended as {}", named(status), stands(status));
            match &status.error {
                Some(error) if code != 0 => app.out.note(&format!("{told}\n{}", render(error, false).trim_end())),
                _ => app.out.note(&told),
            }
        }
        Shown::Items => app.out.item(status)?,
        Shown::Document(progress) => {
            drop(progress);
            app.out.show(status)?;
        }
    }
    Ok(ExitCode::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_end_that_was_asked_for() {
        let ended = |phase: Phase, begun: bool| -> DeploymentSummary {
            serde_json::from_value(serde_json::json!({
                "id": "dep-0000000001", "workload": "w", "namespace": "default", "action": "update", "version": null,
                "revision": null, "from": null, "strategy": null, "phase": phase, "ready": 0, "replicas": 1, "by": "a",
                "reason": null, "createdAt": Timestamp::UNIX_EPOCH, "finishedAt": null, "duration": null,
                "startedAt": begun.then_some(Timestamp::UNIX_EPOCH),
            }))
            .unwrap()
        };
        for (phase, begun, done, back) in [
            (Phase::Complete, true, 0, 0),
            (Phase::RolledBack, true, 1, 0),
            (Phase::Failed, true, 1, 1),
            (Phase::Failed, false, 1, 0),
        ] {
            let summary = ended(phase, begun);
            let both = (Wanted::Done.status(&summary), Wanted::Back.status(&summary));
            assert_eq!(both, (done, back), "{phase}");
        }
    }
}
