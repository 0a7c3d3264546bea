//! The two loops: one evaluates the rules, the other one sends.

use std::{sync::Arc, time::Duration};

use api::{NodeName, Span, Timestamp};
use diagnosis::alert::{Delivery, Labels, Ledger, Receiver, Rule, States, evaluate_each, plan};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    Alerting,
    answers::{Answers, Fleet, Snapshot},
    keep::{self, Written},
    reasons::{self, REASONS},
    send::Sender,
};
use crate::{
    control::PlannerHandle,
    draft::Draft,
    hub::{Committed, Hub, now},
    keys,
    live::Nodes,
    metrics::Metrics,
};

/// How long the first evaluation waits until the past has been read.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages that are on their way at once.
const AT_ONCE: usize = 16;
/// Without anything due, what is to be sent is planned again after this long.
const IDLE: Duration = Duration::from_secs(60);

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// The fleet.
    pub hub: Arc<Hub>,
    /// Nodes as of now.
    pub live: Arc<Nodes>,
    /// Numbers over time.
    pub metrics: Arc<Metrics>,
    /// Who knows why workloads wait.
    pub planner: PlannerHandle,
}

/// Evaluates all rules again and again, until told to stop.
pub async fn watch(alerting: Arc<Alerting>, sources: Sources, every: Span, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(every.duration());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let written = Written::new(&alerting.now().states, now());
    let mut round = Round {
        written,
        answers: Answers::default(),
        alerting,
        sources,
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = round.past() => {}
    }
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => round = round.evaluate(now()).await,
        }
    }
    round.finish(now()).await;
}

/// What an evaluation needs.
struct Round {
    alerting: Arc<Alerting>,
    sources: Sources,
    written: Written,
    answers: Answers,
}

impl Round {
    /// Returns when the past has been read, or takes too long: rules of metrics mustn't wait for it.
    async fn past(&self) {
        let mut recent = self.alerting.recent.subscribe();
        let read = recent.wait_for(Option::is_some);
        if tokio::time::timeout(PATIENCE, read).await.is_err() {
            tracing::warn!("the last events haven't been read yet: rules that count them begin with none");
        }
    }

    async fn evaluate(mut self, at: Timestamp) -> Self {
        let before = Arc::clone(&self.alerting.now().states);
        let words = self.words(&before, at).await;
        let (alerting, sources) = (Arc::clone(&self.alerting), self.sources.clone());
        let mut answers = std::mem::take(&mut self.answers);
        let mut recent = self.alerting.recent(at);
        let previous = Arc::clone(&before);
        // Reads files.
        let judged = tokio::task::spawn_blocking(move || {
            let snapshot = Snapshot::of(&sources.hub.view(), &previous, recent.horizon(at));
            snapshot.stepped.iter().for_each(|workload| recent.add(workload, at));
            let heard_of = |node: &NodeName| sources.live.with(node, |live| live.seen_at.is_some());
            let fleet = Fleet::of(&snapshot, heard_of, &previous).with_words(words);
            answers.begin(&alerting.rules, at);
            let observe = |rule: &Rule| answers.observe(rule, &sources.metrics.store, &fleet, &recent, &previous, at);
            let outcome = evaluate_each(&alerting.rules, observe, &previous, at);
            (outcome, answers)
        })
        .await;
        let ((mut states, transitions), answers) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                tracing::error!(%error, "alert rules couldn't be evaluated");
                return self;
            }
        };
        self.answers = answers;
        states.prune(&self.alerting.now().ledger, at);
        let draft = self
            .written
            .draft(&states, &self.alerting.rules, &transitions, at, false);
        if let Some((draft, written)) = draft
            && commit(&self.sources.hub, draft, "alerts").await
        {
            self.written = written;
        }
        for transition in &transitions {
            tracing::debug!(rule = transition.rule, change = ?transition.change, "{}", transition.summary);
        }
        let ended = {
            let mut now = self.alerting.now();
            now.states = Arc::new(states);
            now.evaluated_at = Some(at);
            keep::ended(&now.silences, at)
        };
        self.forget(ended).await;
        self.alerting.news.notify_one();
        self
    }

    /// What sentences of rules name that no label has.
    async fn words(&self, alerts: &States, at: Timestamp) -> Labels {
        if !reasons::wanted(&self.alerting.rules, alerts) {
            return Labels::new();
        }
        let waiting = reasons::longest(&self.sources.hub.view());
        let why = reasons::ask(&self.sources.planner, waiting, at).await;
        why.map(|why| (REASONS.to_owned(), why)).into_iter().collect()
    }

    /// Removes silences that ended long ago.
    async fn forget(&self, ended: Vec<String>) {
        if ended.is_empty() {
            return;
        }
        let mut draft = Draft::new();
        for id in &ended {
            draft.forget(&format!("{}{id}", keys::SILENCES));
        }
        if commit(&self.sources.hub, draft, "the removal of old silences").await {
            let mut now = self.alerting.now();
            ended.iter().for_each(|id| drop(now.silences.remove(id)));
        }
    }

    /// Writes what only moved times on.
    async fn finish(self, at: Timestamp) {
        let states = Arc::clone(&self.alerting.now().states);
        if let Some((draft, _)) = self.written.draft(&states, &self.alerting.rules, &[], at, true) {
            commit(&self.sources.hub, draft, "alerts").await;
        }
    }
}

async fn commit(hub: &Hub, draft: Draft, what: &str) -> bool {
    match hub.commit(draft).await {
        Ok(Committed::Done) => true,
        Ok(Committed::Overtaken(failed)) => {
            tracing::warn!(?failed, "{what} couldn't be kept");
            false
        }
        Err(error) => {
            tracing::warn!(%error, cause = error.cause, "{what} couldn't be kept; trying again");
            false
        }
    }
}

/// Tells receivers what they have to know, until told to stop.
pub async fn deliver(alerting: Arc<Alerting>, hub: Arc<Hub>, sender: Option<Sender>, stop: CancellationToken) {
    let Some(sender) = sender else {
        // Nobody wants to be told.
        return stop.cancelled().await;
    };
    let kept = alerting.now().ledger.clone();
    let mut post = Post {
        kept,
        alerting,
        hub,
        sender,
    };
    loop {
        let wait = tokio::select! {
            () = stop.cancelled() => break,
            wait = post.round() => wait,
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = post.alerting.news.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    // What arrived while the end came must not arrive again.
    post.keep().await;
}

/// What sending needs.
struct Post {
    alerting: Arc<Alerting>,
    hub: Arc<Hub>,
    sender: Sender,
    /// The ledger on disk.
    kept: Ledger,
}

impl Post {
    /// Sends what is due, and says how long there is nothing to do.
    async fn round(&mut self) -> Duration {
        let at = now();
        let receivers = self.alerting.receivers.clone();
        let plan = {
            let mut guard = self.alerting.now();
            let now = &mut *guard;
            now.ledger.prune(&now.states, &receivers);
            let mutes = now.mutes(&self.alerting.rules, at);
            let plan = plan(&now.states, &mutes, &receivers, &now.ledger, at);
            plan.deliveries.iter().for_each(|delivery| now.ledger.sending(delivery));
            plan
        };
        // Sent all the same where the store takes nothing: a full disk is news.
        self.keep().await;
        let sent = plan
            .deliveries
            .into_iter()
            .map(|delivery| self.send(&receivers, delivery));
        let failed = stream::iter(sent)
            .buffer_unordered(AT_ONCE)
            .filter(|arrived| std::future::ready(!arrived))
            .count()
            .await;
        self.keep().await;
        let wait = match plan.next_at {
            // After a failure the ledger knows when to try again.
            _ if failed > 0 => Duration::from_secs(1),
            Some(next) => api::time::between(now(), next).duration().min(IDLE),
            None => IDLE,
        };
        wait.max(Duration::from_millis(100))
    }

    async fn send(&self, receivers: &[Receiver], delivery: Delivery) -> bool {
        let Some(receiver) = receivers.iter().find(|receiver| receiver.name == delivery.receiver) else {
            return true;
        };
        let sent = self
            .sender
            .send(receiver, &delivery, self.alerting.link.as_deref())
            .await;
        let at = now();
        let mut guard = self.alerting.now();
        let now = &mut *guard;
        let told = now.deliveries.entry(receiver.name.clone()).or_default();
        match sent {
            Ok(()) => {
                told.at = Some(at);
                told.failing = None;
                now.ledger.delivered(&delivery, at);
                true
            }
            Err(why) => {
                tracing::warn!(receiver = receiver.name, host = ?receiver.url, why, "alerts couldn't be delivered; they are sent again");
                told.failing = Some(why);
                now.ledger.failed(&delivery, at);
                false
            }
        }
    }

    /// Writes the ledger where it changed.
    async fn keep(&mut self) {
        let ledger = self.alerting.now().ledger.clone();
        if ledger == self.kept {
            return;
        }
        let mut draft = Draft::new();
        draft.keep(keys::ALERT_LEDGER, &ledger);
        if commit(&self.hub, draft, "what receivers were told").await {
            self.kept = ledger;
        }
    }
}
