//! What a draft can't be: contradictions, numbers that can't be, and what its verb can't have.

use api::{
    Cpu, Size,
    deploy::{Comparison, Condition, Signal, Strategy},
};

use super::Draft;
use crate::intent::{Amount, Batch, Care, Verb, clause::Way, misread::Misread, verb};

impl Draft {
    /// Whether anything is said of what a replica is or gets.
    fn changes_revision(&self) -> bool {
        self.version.get().is_some()
            || self.image.get().is_some()
            || self.command.get().is_some()
            || !self.env.is_empty()
            || self.port.get().is_some()
            || self.gpus.get().is_some()
            || self.gpu_model.get().is_some()
            || self.gpu_memory.get().is_some()
            || self.memory.get().is_some()
            || self.cpu.get().is_some()
            || self.priority.get().is_some()
    }

    fn changes_number(&self) -> bool {
        self.replicas.get().is_some()
            || self.min.get().is_some()
            || self.max.get().is_some()
            || self.follow.get().is_some()
    }

    /// What is to be done: as it is said, or as what is said makes plain.
    pub(super) fn settled_verb(&mut self) -> Result<Verb, Misread> {
        let strategy = self.strategy.get().is_some()
            || self.immediately.is_some()
            || self.steps.get().is_some()
            || self.batch.get().is_some()
            || self.switch.is_some();
        let verb = match self.verb.get().copied() {
            // "scale memory to 64Gi", "resize X to 4 GPUs": the replicas become others.
            Some(Verb::Scale) if self.changes_revision() => Verb::Update,
            // "set X to 5 replicas": nothing but the number changes.
            Some(Verb::Update) if self.changes_number() && !self.changes_revision() => Verb::Scale,
            Some(verb) => verb,
            None if self.way.is_none() && (self.version.get().is_some() || self.image.get().is_some() || strategy) => {
                Verb::Deploy
            }
            None if self.changes_revision() => Verb::Update,
            None if self.changes_number() => Verb::Scale,
            None => {
                return Err(Misread::new("the sentence doesn't say what is to be done".to_owned())
                    .help("begin with deploy, update, scale, rollback, abort or restart"));
            }
        };
        if let Some((way, words)) = &self.way {
            let settled = [
                self.replicas.get().is_some(),
                self.memory.get().is_some(),
                self.cpu.get().is_some(),
                self.gpus.get().is_some(),
                self.min.get().is_some(),
                self.max.get().is_some(),
            ];
            if !settled.contains(&true) {
                let more = if *way == Way::Up { "more" } else { "fewer" };
                return Err(Misread::new(format!("'{words}': to how many, or by how many {more}?"))
                    .help("say 'to 8 replicas' or 'by 2 replicas'")
                    .example("scale inference to 8 replicas"));
            }
        }
        Ok(verb)
    }

    /// An image alone names what it is for: its last part.
    pub(super) fn named_by_image(&mut self) {
        if self.target.get().is_some() {
            return;
        }
        if let Some(image) = self.image.get() {
            let last = image.rsplit('/').next().unwrap_or(image);
            let name = last.split([':', '@']).next().unwrap_or(last).to_ascii_lowercase();
            if api::id::check_name(&name).is_ok() && !verb::is_deployment(&name) {
                self.notes.push(format!("the name is taken from the image: {name}"));
                self.target.0 = Some((name, image.clone()));
            }
        }
    }

    pub(super) fn settled_version(&self, verb: Verb) -> Result<(), Misread> {
        if let (Some(from), Some(to)) = (self.from_version.get(), self.version.get())
            && from == to
        {
            return Err(Misread::new(format!("from {from} to {to} is no change")));
        }
        if self.from_version.get().is_some() && self.version.get().is_none() && verb != Verb::Rollback {
            return Err(
                Misread::new(format!("'{}': to which version?", self.from_version.words()))
                    .help("say 'from v1 to v2'")
                    .example("update model-server from v2.0 to v2.1"),
            );
        }
        Ok(())
    }

    /// The strategy that is said or follows from what is, without contradictions.
    pub(super) fn strategies(&mut self, verb: Verb) -> Result<(), Misread> {
        if let Some(words) = self.immediately.take() {
            if verb == Verb::Scale || verb == Verb::Abort {
                self.passed.push(words);
            } else {
                self.strategy.say("strategies", Strategy::Immediate, &words)?;
            }
        }
        if let Some(steps) = self.steps.get() {
            if self.strategy.get().is_none() {
                return Err(Misread::new(format!("'{}': of what?", self.steps.words()))
                    .help("a part of the requests is said as 'canary 10%'"));
            }
            let words = self.steps.words();
            for step in steps {
                if *step <= 0.0 {
                    return Err(Misread::new(format!("'{words}': a canary of {step}% gets no requests"))
                        .help("say 'canary 10%'")
                        .example("deploy model-server v2.5, canary 10%"));
                }
                if *step >= 100.0 {
                    return Err(Misread::new(format!(
                        "'{words}': a canary is a part, and {step}% is {}",
                        if *step > 100.0 { "more than all" } else { "all" }
                    ))
                    .help("say 'canary 10%', or leave the canary out")
                    .example("deploy model-server v2.5, canary 10%"));
                }
            }
            if steps.windows(2).any(|pair| pair[1] <= pair[0]) {
                return Err(Misread::new(format!("'{words}': the steps of a canary grow"))
                    .help("say 'canary 10% then 25% then 50%'")
                    .example("deploy model-server v2.5, canary 10% then 25% then 50%"));
            }
        }
        if let Some(words) = self
            .switch
            .clone()
            .or_else(|| self.keep_old.get().map(|_| self.keep_old.words().to_owned()))
        {
            match self.strategy.get() {
                None => self.strategy.0 = Some((Strategy::BlueGreen, words)),
                Some(Strategy::BlueGreen) => {}
                Some(_) => {
                    return Err(Misread::new(format!(
                        "'{words}' is about blue-green, and '{}' isn't",
                        self.strategy.words()
                    ))
                    .help("say one of them")
                    .example("blue-green deploy api-server v3.0, switch after health check"));
                }
            }
        }
        let promotes = self.promote_after.get().is_some() || !self.promote_if.is_empty() || self.by_hand.is_some();
        let batches = self.batch.get().is_some() || self.pause.get().is_some();
        let new_revision = matches!(verb, Verb::Deploy | Verb::Update);
        match self.strategy.get() {
            None if promotes && new_revision => {
                self.strategy.0 = Some((Strategy::Canary, "promote".to_owned()));
                self.notes
                    .push("taken as a canary: only what begins with a part is promoted".to_owned());
            }
            None if batches && matches!(verb, Verb::Deploy | Verb::Update | Verb::Rollback | Verb::Restart) => {
                self.strategy.0 = Some((Strategy::Rolling, self.batch.words().to_owned()));
            }
            Some(strategy @ (Strategy::Rolling | Strategy::Immediate)) if promotes => {
                return Err(Misread::new(format!(
                    "'{}' is {strategy}: nothing waits to be promoted",
                    self.strategy.words()
                ))
                .help("say 'canary 10%', or leave the promotion out"));
            }
            Some(strategy @ (Strategy::BlueGreen | Strategy::Immediate)) if batches => {
                let words = if self.batch.get().is_some() {
                    self.batch.words()
                } else {
                    self.pause.words()
                };
                return Err(Misread::new(format!(
                    "'{words}' contradicts '{}': {strategy} knows no batches",
                    self.strategy.words()
                ))
                .help("say 'rolling', or leave the batches out"));
            }
            _ => {}
        }
        if let Some(by_hand) = &self.by_hand
            && (self.promote_after.get().is_some() || !self.promote_if.is_empty())
        {
            return Err(Misread::new(format!(
                "it is to wait for a person ('{by_hand}') and to go on by itself as well"
            ))
            .help("say one of them"));
        }
        if self.strategy.get() == Some(&Strategy::Immediate)
            && let Some(care @ (Care::Safely | Care::Slowly)) = self.care.get()
        {
            return Err(Misread::new(format!(
                "'{}' contradicts '{}': immediate stops all replicas first",
                self.care.words(),
                self.strategy.words()
            ))
            .help(if *care == Care::Safely {
                "say 'canary 10%' to be safe"
            } else {
                "say 'one at a time' to be slow"
            }));
        }
        Ok(())
    }

    /// Numbers that can't be, or that are dangerous.
    pub(super) fn numbers(&self) -> Result<(), Misread> {
        let zero =
            |words: &str, help: &str| Err(Misread::new(format!("'{words}': nothing would be left running")).help(help));
        if self.replicas.get() == Some(&Amount::To(0)) || self.max.get() == Some(&0) {
            let words = if self.max.get() == Some(&0) {
                self.max.words()
            } else {
                self.replicas.words()
            };
            return zero(
                words,
                "a deployment leaves at least 1 replica; a service is ended with a command of its own",
            );
        }
        if self.min.get() == Some(&0) {
            return zero(self.min.words(), "at least 1 replica stays: say 'at least 1'");
        }
        if let (Some(min), Some(max)) = (self.min.get(), self.max.get())
            && min > max
        {
            return Err(
                Misread::new(format!("at least {min} and at most {max} replicas can't be"))
                    .help(format!("say 'between {max} and {min} replicas'"))
                    .example("autoscale inference between 2 and 10 replicas on cpu 70%"),
            );
        }
        if let Some(Amount::To(count)) = self.replicas.get()
            && (self.min.get().is_some_and(|min| count < min) || self.max.get().is_some_and(|max| count > max))
        {
            return Err(Misread::new(format!(
                "'{}' is outside '{}'",
                self.replicas.words(),
                if self.min.get().is_some() {
                    self.min.words()
                } else {
                    self.max.words()
                }
            )));
        }
        let nothing = |words: &str| Err(Misread::new(format!("'{words}' changes nothing")));
        if matches!(self.replicas.get(), Some(Amount::More(0) | Amount::Fewer(0))) {
            return nothing(self.replicas.words());
        }
        if matches!(self.gpus.get(), Some(Amount::More(0) | Amount::Fewer(0))) {
            return nothing(self.gpus.words());
        }
        if self.gpus.get() == Some(&Amount::To(0))
            && (self.gpu_model.get().is_some() || self.gpu_memory.get().is_some())
        {
            return Err(Misread::new(format!("'{}': no GPUs, and of a kind", self.gpus.words())));
        }
        if matches!(
            self.memory.get(),
            Some(Amount::To(Size(0)) | Amount::More(Size(0)) | Amount::Fewer(Size(0)))
        ) {
            return Err(
                Misread::new(format!("'{}' is no memory at all", self.memory.words())).help("say 'memory 64Gi'")
            );
        }
        if matches!(
            self.cpu.get(),
            Some(Amount::To(Cpu(0)) | Amount::More(Cpu(0)) | Amount::Fewer(Cpu(0)))
        ) {
            return Err(
                Misread::new(format!("'{}' is no CPU at all", self.cpu.words())).help("say '4 cpus' or '500m cpu'")
            );
        }
        match self.batch.get() {
            Some(Batch::Count(0) | Batch::Fewer(0)) => {
                return Err(Misread::new(format!("'{}' replaces none", self.batch.words())).help("say 'one at a time'"));
            }
            Some(Batch::Percent(percent) | Batch::FewerPercent(percent)) if !(*percent > 0.0 && *percent < 100.0) => {
                return Err(Misread::new(format!(
                    "'{}' replaces {}",
                    self.batch.words(),
                    if *percent > 0.0 { "all at once" } else { "none" }
                ))
                .help("say '20% at a time', or 'immediate' for all at once"));
            }
            _ => {}
        }
        for (span, what) in [
            (&self.timeout, "a timeout"),
            (&self.pause, "a rest"),
            (&self.promote_after, "a time to promote after"),
            (&self.keep_old, "a time to keep the old set"),
        ] {
            if span.get().is_some_and(|span| span.is_zero()) {
                return Err(Misread::new(format!("'{}': {what} of nothing", span.words()))
                    .help("leave it out, or give it a length: 15m"));
            }
        }
        Ok(())
    }

    /// Conditions that point the wrong way, or that would hold together.
    pub(super) fn directions(&self) -> Result<(), Misread> {
        for condition in &self.promote_if {
            if bad_when_high(&condition.metric) && upward(condition.operator)
                || condition.metric == Signal::Healthy && !upward(condition.operator)
            {
                return Err(
                    Misread::new(format!("'{}' goes on when things are bad", self.promote_words))
                        .help("turn it round: 'promote if errors < 1%'"),
                );
            }
        }
        for condition in &self.rollback_if {
            if bad_when_high(&condition.metric) && !upward(condition.operator)
                || condition.metric == Signal::Healthy && upward(condition.operator)
            {
                return Err(
                    Misread::new(format!("'{}' goes back when things are good", self.rollback_words))
                        .help("turn it round: 'rollback if errors > 1%'"),
                );
            }
        }
        for promote in &self.promote_if {
            for rollback in &self.rollback_if {
                if promote.metric == rollback.metric
                    && promote.window == rollback.window
                    && both_can_hold(promote, rollback)
                {
                    return Err(Misread::new(format!(
                        "'{}' and '{}' can hold at the same time: it can't go on and back",
                        self.promote_words, self.rollback_words
                    ))
                    .help("leave a gap: 'promote if errors < 0.5%, rollback if errors > 1%'"));
                }
            }
        }
        Ok(())
    }

    /// What the verb can't have.
    pub(super) fn fits(&self, verb: Verb) -> Result<(), Misread> {
        let promotes = self.promote_after.get().is_some() || !self.promote_if.is_empty() || self.by_hand.is_some();
        let no =
            |what: &str, words: &str, help: &str| Err(Misread::new(format!("'{words}': {what}")).help(help.to_owned()));
        let canary_like = matches!(self.strategy.get(), Some(Strategy::Canary | Strategy::BlueGreen));
        match verb {
            Verb::Scale => {
                if let Some(strategy) = self.strategy.get() {
                    return no(
                        &format!("{strategy} is a way from one revision to the next, and scaling changes none"),
                        self.strategy.words(),
                        "leave it out, or name the version to deploy",
                    );
                }
                if self.batch.get().is_some() || self.pause.get().is_some() || promotes {
                    let words = [
                        self.batch.words(),
                        self.pause.words(),
                        self.promote_after.words(),
                        &self.promote_words,
                        self.by_hand.as_deref().unwrap_or_default(),
                    ]
                    .into_iter()
                    .find(|words| !words.is_empty());
                    return no(
                        "scaling replaces no replicas",
                        words.unwrap_or("promote"),
                        "leave it out",
                    );
                }
                if !self.changes_number() {
                    return Err(Misread::new(format!("'{}': to how many replicas?", self.verb.words()))
                        .help("say 'to 8 replicas'")
                        .example("scale inference to 8 replicas"));
                }
            }
            Verb::Update => {
                if !self.changes_revision() && !self.changes_number() {
                    return Err(Misread::new(format!("'{}': to what? nothing is said that would change", self.verb.words()))
                        .help("name the version, the image or what a replica gets; 'restart' starts replicas anew as they are")
                        .example("update model-server to v2.1"));
                }
            }
            Verb::Deploy => {}
            Verb::Rollback | Verb::Restart | Verb::Abort => {
                let verb_name = verb.name();
                let extras: [(&str, &str); 15] = [
                    (
                        if verb == Verb::Rollback {
                            ""
                        } else {
                            self.version.words()
                        },
                        "version",
                    ),
                    (self.image.words(), "image"),
                    (self.command.words(), "command"),
                    (self.replicas.words(), "replicas"),
                    (self.min.words(), "replicas"),
                    (self.max.words(), "replicas"),
                    (self.follow.words(), "load"),
                    (self.gpus.words(), "GPUs"),
                    (self.gpu_model.words(), "GPUs"),
                    (self.gpu_memory.words(), "GPUs"),
                    (self.memory.words(), "memory"),
                    (self.cpu.words(), "CPU"),
                    (self.port.words(), "port"),
                    (self.env_order.first().map_or("", String::as_str), "environment"),
                    (self.keep_old.words(), "old set"),
                ];
                if let Some((words, what)) = extras.into_iter().find(|(words, _)| !words.is_empty()) {
                    return no(
                        &format!("a {verb_name} changes no {what}"),
                        words,
                        "say it in a sentence of its own: update model-server to …",
                    );
                }
                if canary_like {
                    return no(
                        &format!("a {verb_name} has no canary and no second set"),
                        self.strategy.words(),
                        "leave it out",
                    );
                }
                if promotes {
                    return no(
                        &format!("a {verb_name} isn't promoted"),
                        [
                            self.promote_words.as_str(),
                            self.promote_after.words(),
                            self.by_hand.as_deref().unwrap_or_default(),
                        ]
                        .into_iter()
                        .find(|words| !words.is_empty())
                        .unwrap_or("promote"),
                        "leave it out",
                    );
                }
                if !self.rollback_if.is_empty() {
                    return Err(self.now_or_if(verb, &self.rollback_words));
                }
                if verb == Verb::Abort {
                    let extras = [
                        self.when.words(),
                        self.strategy.words(),
                        self.batch.words(),
                        self.pause.words(),
                        self.timeout.words(),
                    ];
                    if let Some(words) = extras.into_iter().find(|words| !words.is_empty()) {
                        return no("an abort is at once and as a whole", words, "leave it out");
                    }
                }
            }
        }
        self.fits_job(verb)
    }

    /// "roll back X if errors > 1%": now, or later by itself?
    pub(super) fn now_or_if(&self, verb: Verb, words: &str) -> Misread {
        let (name, target) = (verb.name(), self.target.get().map_or("model-server", String::as_str));
        Misread::new(format!("is it to {name} now, or by itself: '{words}'?"))
            .help(format!(
                "say '{name} {target}' for now; a condition belongs to the deployment that it watches"
            ))
            .example("update model-server to v2.1, rollback if errors > 1%")
    }

    fn fits_job(&self, verb: Verb) -> Result<(), Misread> {
        let Some(job) = self.job.as_ref().filter(|_| verb == Verb::Deploy) else {
            return Ok(());
        };
        let extras = [
            self.strategy.words(),
            self.batch.words(),
            self.pause.words(),
            self.promote_after.words(),
            &self.promote_words,
            &self.rollback_words,
            self.min.words(),
            self.max.words(),
            self.follow.words(),
            if matches!(self.replicas.get(), None | Some(Amount::To(1))) {
                ""
            } else {
                self.replicas.words()
            },
        ];
        match extras.into_iter().find(|words| !words.is_empty()) {
            Some(words) => Err(Misread::new(format!(
                "'{job}' and '{words}': a job runs once, to its end, and has neither replicas nor revisions"
            ))
            .help("leave one of them out")),
            None => Ok(()),
        }
    }
}

/// Signals of which more is worse.
const fn bad_when_high(signal: &Signal) -> bool {
    matches!(signal, Signal::ErrorRate | Signal::Latency { .. } | Signal::Restarts)
}

const fn upward(operator: Comparison) -> bool {
    matches!(operator, Comparison::Above | Comparison::AtLeast)
}

/// Whether some value satisfies both.
fn both_can_hold(a: &Condition, b: &Condition) -> bool {
    if upward(a.operator) == upward(b.operator) {
        return true;
    }
    let (low, high) = if upward(a.operator) { (a, b) } else { (b, a) };
    let touching = low.operator == Comparison::AtLeast && high.operator == Comparison::AtMost;
    low.threshold < high.threshold || touching && low.threshold == high.threshold
}
