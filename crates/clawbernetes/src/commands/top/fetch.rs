//! What `top` asks the gateway for, beside the screen: one question at a time, and never more often than was asked for.

use std::{sync::mpsc, time::Duration};

use api::{
    ApiError, Span, Timestamp,
    op::{FleetStatus, NodeFilter, NodeList, StatusRequest, WorkloadFilter, WorkloadList},
    time,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::state::{Answer, Fetched, Need, Want};
use crate::{cli::INTERRUPTED, client::Client};

/// How long workloads that have ended stay in view.
const ENDED: Span = Span::secs(3600);

/// How long after a signal the screen may take to end by itself.
const STUCK: Duration = Duration::from_secs(1);

/// What happens beside the keys.
#[derive(Debug)]
pub(super) enum Message {
    /// The gateway is being asked.
    Asking,
    /// It has answered, or hasn't.
    Answered(Box<Result<Fetched, ApiError>>),
    /// A signal asks the program to end.
    Quit,
}

/// Asks once.
///
/// # Errors
/// Those of the calls.
pub(super) async fn fetch(client: &Client, need: Need) -> Result<Fetched, ApiError> {
    let fleet = client.call::<FleetStatus>(&StatusRequest { rows: Some(0) }).await?;
    let answer = match need {
        Need::Nodes => Answer::Nodes(client.call::<NodeList>(&NodeFilter::default()).await?),
        Need::Workloads => {
            let filter = WorkloadFilter {
                since: Some(time::before(fleet.gateway.now, ENDED)),
                ..WorkloadFilter::default()
            };
            Answer::Workloads(client.call::<WorkloadList>(&filter).await?)
        }
    };
    Ok(Fetched {
        at: Timestamp::now(),
        clock: fleet.gateway.now,
        cluster: fleet.cluster,
        answer,
    })
}

/// Asks for what is wanted, again and again, until nobody listens. A question whose answer isn't wanted any more is
/// dropped.
pub(super) async fn keep(
    client: Client,
    mut want: watch::Receiver<Want>,
    tell: mpsc::Sender<Message>,
    interval: Duration,
) {
    let mut due = [Instant::now(); 2];
    loop {
        let now = *want.borrow_and_update();
        let wait = async {
            if now.paused {
                std::future::pending::<()>().await;
            }
            sleep_until(due[now.need as usize]).await;
        };
        tokio::select! {
            changed = want.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            () = wait => {}
        }
        if tell.send(Message::Asking).is_err() {
            return;
        }
        let began = Instant::now();
        due[now.need as usize] = began + interval;
        let answer = tokio::select! {
            answer = fetch(&client, now.need) => answer,
            () = left(&mut want, now.need) => continue,
        };
        due[now.need as usize] = next(began, Instant::now(), interval);
        if tell.send(Message::Answered(Box::new(answer))).is_err() {
            return;
        }
    }
}

/// When to ask again: the gateway gets at least as long a rest as it took to answer.
fn next(began: Instant, ended: Instant, interval: Duration) -> Instant {
    (began + interval).max(ended + (ended - began))
}

/// Ends when something else is wanted, or nothing any more.
async fn left(want: &mut watch::Receiver<Want>, need: Need) {
    while want.changed().await.is_ok() {
        if want.borrow_and_update().need != need {
            return;
        }
    }
}

/// Tells of the signals that would otherwise end the program with the terminal as it is. Where nobody hears, the program
/// ends here.
pub(super) async fn signals(tell: mpsc::Sender<Message>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut hang_up), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
        signal(SignalKind::interrupt()),
    ) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = hang_up.recv() => {}
        _ = interrupt.recv() => {}
    }
    // Who listened has ended already.
    let _ = tell.send(Message::Quit);
    sleep(STUCK).await;
    // The terminal has gone, and what reads keys (crossterm 0.29) asks it for more without end.
    let _ = ratatui::try_restore();
    std::process::exit(INTERRUPTED.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_gateway_is_asked_less_often() {
        let began = Instant::now();
        let interval = Duration::from_secs(2);
        let after = |took| next(began, began + Duration::from_secs(took), interval) - began;
        assert_eq!(after(0), interval);
        assert_eq!(after(1), interval);
        assert_eq!(after(5), Duration::from_secs(10));
    }
}
