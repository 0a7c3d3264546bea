//! Parts put together: one intent without contradictions, or the words that contradict each other.

use std::collections::BTreeMap;

use api::{
    Cpu, Size, Span,
    deploy::{Comparison, Condition, Load, Signal, Strategy},
    workload::{EnvVar, Priority},
};

use super::{
    Amount, Batch, Care, Intent, Verb, When,
    clause::{Part, Placed, Way, amount},
    misread::Misread,
    resource::{Noun, Quantity, Thing, Value},
    value,
};

/// A thing said once, and the words that said it.
#[derive(Debug)]
struct Once<T>(Option<(T, String)>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Once<T> {
    /// # Errors
    /// It was said before, and was something else.
    fn say(&mut self, what: &str, value: T, words: &str) -> Result<(), Misread> {
        match &self.0 {
            Some((before, said)) if *before != value => {
                Err(Misread::new(format!("two {what}: '{said}' and '{words}'")).help("say one of them"))
            }
            Some(_) => Ok(()),
            None => {
                self.0 = Some((value, words.to_owned()));
                Ok(())
            }
        }
    }

    fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(value, _)| value)
    }

    fn words(&self) -> &str {
        self.0.as_ref().map_or("", |(_, words)| words)
    }

    fn take(self) -> Option<T> {
        self.0.map(|(value, _)| value)
    }
}

/// What has been said so far.
#[derive(Debug, Default)]
struct Draft {
    verb: Once<Verb>,
    /// "scale to 8" beside another verb.
    scale: Option<String>,
    way: Option<(Way, String)>,
    target: Once<String>,
    version: Once<String>,
    from_version: Once<String>,
    image: Once<String>,
    command: Once<Vec<String>>,
    replicas: Once<Amount<u32>>,
    min: Once<u32>,
    max: Once<u32>,
    follow: Once<(Load, f64)>,
    gpus: Once<Amount<u32>>,
    gpu_model: Once<String>,
    gpu_memory: Once<Size>,
    memory: Once<Amount<Size>>,
    cpu: Once<Amount<Cpu>>,
    priority: Once<Priority>,
    timeout: Once<Span>,
    env: BTreeMap<String, String>,
    env_order: Vec<String>,
    port: Once<u16>,
    namespace: Once<String>,
    strategy: Once<Strategy>,
    immediately: Option<String>,
    steps: Once<Vec<f64>>,
    batch: Once<Batch>,
    pause: Once<Span>,
    promote_after: Once<Span>,
    promote_if: Vec<Condition>,
    promote_words: String,
    by_hand: Option<String>,
    rollback_if: Vec<Condition>,
    rollback_words: String,
    /// A condition that nothing says the purpose of.
    condition: Option<String>,
    keep_old: Once<Span>,
    switch: Option<String>,
    care: Once<Care>,
    when: Once<When>,
    job: Option<String>,
    reason: Once<String>,
    /// A thing whose value is still to come.
    noun: Option<(Noun, String)>,
    /// "add 2 GPUs": numbers after it could be more, or in all.
    added: Option<String>,
    notes: Vec<String>,
    passed: Vec<String>,
}

/// The intent that these parts say, and what whoever wrote it should know.
///
/// # Errors
/// They contradict each other, or something is missing.
pub(super) fn put_together(
    parts: Vec<Placed>,
    words: impl Fn(usize, usize) -> String,
) -> Result<(Intent, Vec<String>), Misread> {
    let mut draft = Draft::default();
    let to_come = parts.iter().any(|(part, ..)| matches!(part, Part::To(_) | Part::By(_)));
    for (part, from, to) in parts {
        let said = words(from, to);
        draft.add(part, said, to_come)?;
    }
    draft.finish()
}

impl Draft {
    fn add(&mut self, part: Part, words: String, to_come: bool) -> Result<(), Misread> {
        match part {
            Part::Verb(verb) => self.verb(verb, words),
            Part::Way(way) => match &self.way {
                Some((before, said)) if *before != way => {
                    Err(Misread::new(format!("'{said}' and '{words}' go opposite ways")))
                }
                _ => {
                    self.way = Some((way, words));
                    Ok(())
                }
            },
            Part::Relative(way, quantities) => {
                for quantity in quantities {
                    let way = match quantity.way {
                        Some(other) if other != way => {
                            return Err(Misread::new(format!("'{words}' is both more and fewer")));
                        }
                        _ => Some(way),
                    };
                    self.quantity(
                        Quantity {
                            thing: quantity.thing,
                            way,
                        },
                        &words,
                    )?;
                }
                self.added = Some(words);
                Ok(())
            }
            Part::Factor(factor) => match self.replicas.say("numbers of replicas", Amount::Times(factor), &words) {
                Ok(()) => self.verb(Verb::Scale, words),
                error => error,
            },
            Part::Times(noun, factor) => self.times(noun, factor, &words),
            Part::Target(name) => self.target.say("targets", name, &words),
            Part::Version(version) => self.version.say("versions", version, &words),
            Part::FromVersion(version) => self.from_version.say("versions to start from", version, &words),
            Part::Image(image) => self.image.say("images", image, &words),
            Part::Command(command) => self.command.say("commands", command, &words),
            Part::Quantity(quantity) => {
                if let Some(added) = self.added.as_ref().filter(|_| quantity.way.is_none()) {
                    return Err(Misread::new(format!(
                        "'{words}' after '{added}': is it so many more, or so many in all?"
                    ))
                    .help(format!("say '{words} more', or say it in a sentence of its own")));
                }
                self.quantity(quantity, &words)
            }
            Part::Noun(noun) => match self.noun.replace((noun, words.clone())) {
                Some((before, said)) if before != noun || !to_come => Err(Misread::new(format!("'{said}' to what?"))
                    .help("say one thing after the other: 'memory 64Gi, 4 cpus'")
                    .example("increase memory for data-processor to 64Gi")),
                _ => Ok(()),
            },
            Part::To(value) => self.towards(value, words),
            Part::By(value) => self.by(value, words),
            Part::Bounds(least, most) => {
                if let Some(least) = least {
                    self.min.say("least numbers of replicas", least, &words)?;
                }
                match most {
                    Some(most) => self.max.say("greatest numbers of replicas", most, &words),
                    None => Ok(()),
                }
            }
            Part::Follow(load, target) => self.follow.say("loads to follow", (load, target), &words),
            Part::Priority(priority) => self.priority.say("priorities", priority, &words),
            Part::Timeout(span) => self.timeout.say("timeouts", span, &words),
            Part::Env(all) => {
                for EnvVar { name, value } in all {
                    match self.env.insert(name.clone(), value.clone()) {
                        Some(before) if before != value => {
                            return Err(Misread::new(format!("two values of {name}: '{before}' and '{value}'"))
                                .help("say one of them"));
                        }
                        Some(_) => {}
                        None => self.env_order.push(name),
                    }
                }
                Ok(())
            }
            Part::Port(port) => self.port.say("ports", port, &words),
            Part::Namespace(name) => self.namespace.say("namespaces", name, &words),
            Part::Strategy(strategy) => self.strategy.say("strategies", strategy, &words),
            Part::Immediately => {
                self.immediately = Some(words);
                Ok(())
            }
            Part::Steps(steps) => self.steps.say("canaries", steps, &words),
            Part::Batch(batch) => self.batch.say("sizes of a batch", batch, &words),
            Part::Pause(span) => self.pause.say("rests between batches", span, &words),
            Part::PromoteAfter(span) => self.promote_after.say("times to promote after", span, &words),
            Part::PromoteIf(conditions) => {
                self.promote_words = words;
                extend(&mut self.promote_if, conditions);
                Ok(())
            }
            Part::ByHand => {
                self.by_hand = Some(words);
                Ok(())
            }
            Part::RollbackIf(conditions) => {
                self.rollback_words = words;
                extend(&mut self.rollback_if, conditions);
                Ok(())
            }
            Part::Condition => {
                self.condition = Some(words);
                Ok(())
            }
            Part::KeepOld(span) => self.keep_old.say("times to keep the old set", span, &words),
            Part::Switch => {
                self.switch = Some(words);
                Ok(())
            }
            Part::Care(care) => self.care.say("ways to go about it", care, &words),
            Part::When(when) => self.when.say("times to begin", when, &words),
            Part::Job => {
                self.job = Some(words);
                Ok(())
            }
            Part::Reason(reason) => self.reason.say("reasons", reason, &words),
            Part::Note(note) => {
                self.notes.push(note);
                Ok(())
            }
            Part::Passed => {
                self.passed.push(words);
                Ok(())
            }
        }
    }

    fn verb(&mut self, verb: Verb, words: String) -> Result<(), Misread> {
        match (self.verb.get().copied(), verb) {
            // "update X to v2 and scale to 8": one change.
            (Some(Verb::Deploy | Verb::Update), Verb::Scale) => {
                self.scale = Some(words);
                Ok(())
            }
            (Some(Verb::Scale), Verb::Deploy | Verb::Update) => {
                self.scale = self.verb.0.take().map(|(_, words)| words);
                self.verb.say("things to do", verb, &words)
            }
            _ => self.verb.say("things to do", verb, &words),
        }
    }

    fn quantity(&mut self, Quantity { thing, way }: Quantity, words: &str) -> Result<(), Misread> {
        match thing {
            Thing::Replicas(count) => self.replicas.say("numbers of replicas", amount(way, count), words),
            Thing::Gpus { count, model, memory } => {
                if let Some(count) = count {
                    self.gpus.say("numbers of GPUs", amount(way, count), words)?;
                }
                if let Some(model) = model {
                    self.gpu_model.say("models of GPU", model, words)?;
                }
                match memory {
                    Some(memory) => self.gpu_memory.say("sizes of GPU memory", memory, words),
                    None => Ok(()),
                }
            }
            Thing::Memory(size) => self.memory.say("sizes of memory", amount(way, size), words),
            Thing::Cpu(cpu) => self.cpu.say("amounts of CPU", amount(way, cpu), words),
        }
    }

    fn times(&mut self, noun: Noun, factor: f64, words: &str) -> Result<(), Misread> {
        if !(factor > 0.0 && factor <= 1000.0) {
            return Err(Misread::new(format!("'{words}': {factor} times of it can't be had")));
        }
        match noun {
            Noun::Replicas => self.replicas.say("numbers of replicas", Amount::Times(factor), words),
            Noun::Gpus => self.gpus.say("numbers of GPUs", Amount::Times(factor), words),
            Noun::Memory => self.memory.say("sizes of memory", Amount::Times(factor), words),
            Noun::Cpu => self.cpu.say("amounts of CPU", Amount::Times(factor), words),
            Noun::Image => Err(Misread::new("an image can't be multiplied".to_owned())),
        }
    }

    /// A number whose thing was said before: "memory for X to 64Gi".
    fn of_noun(&self, noun: Noun, value: &Value, words: &str) -> Result<Thing, Misread> {
        let count = |number: &str| value::whole(number);
        let thing = match (noun, value) {
            (Noun::Replicas, Value::Number(number)) => count(number).map(Thing::Replicas),
            (Noun::Gpus, Value::Number(number)) => count(number).map(|count| Thing::Gpus {
                count: Some(count),
                model: None,
                memory: None,
            }),
            (Noun::Memory, Value::Size(size)) => Some(Thing::Memory(*size)),
            // `512m` of memory: nobody means thousandths of a byte.
            (Noun::Memory, Value::Number(number)) => value::size_word(number).map(Thing::Memory),
            (Noun::Cpu, Value::Number(number) | Value::Version(number)) => number.parse().ok().map(Thing::Cpu),
            (_, Value::Thing(thing)) => Some(thing.clone()).filter(|thing| {
                matches!(
                    (noun, thing),
                    (Noun::Replicas, Thing::Replicas(_))
                        | (Noun::Gpus, Thing::Gpus { .. })
                        | (Noun::Memory, Thing::Memory(_))
                        | (Noun::Cpu, Thing::Cpu(_))
                )
            }),
            _ => None,
        };
        thing.ok_or_else(|| {
            Misread::new(format!("'{words}' isn't what {} is counted in", noun.name()))
                .help(match noun {
                    Noun::Memory => "say 'to 64Gi'",
                    Noun::Cpu => "say 'to 4' or 'to 500m'",
                    Noun::Image => "say 'to ghcr.io/acme/web:v2'",
                    Noun::Replicas | Noun::Gpus => "say 'to 8'",
                })
                .example("increase memory for data-processor to 64Gi")
        })
    }

    fn towards(&mut self, value: Value, words: String) -> Result<(), Misread> {
        let noun = self.noun.take().map(|(noun, _)| noun);
        match (noun, value) {
            (Some(Noun::Image), Value::Image(image) | Value::Version(image)) => self.image.say("images", image, &words),
            (Some(noun), value) => {
                let thing = self.of_noun(noun, &value, &words)?;
                self.quantity(Quantity { thing, way: None }, &words)
            }
            (None, Value::Thing(thing)) => self.quantity(Quantity { thing, way: None }, &words),
            (None, Value::Version(version)) => self.version.say("versions", version, &words),
            (None, Value::Image(image)) => self.image.say("images", image, &words),
            (None, Value::Size(size)) => {
                self.notes.push(format!("'{words}' is taken as memory"));
                self.memory.say("sizes of memory", Amount::To(size), &words)
            }
            (None, Value::Number(number)) if self.verb.get() == Some(&Verb::Scale) || self.scale.is_some() => {
                match value::whole(&number) {
                    Some(count) => self.replicas.say("numbers of replicas", Amount::To(count), &words),
                    None => Err(what(&words, &number)),
                }
            }
            (None, Value::Number(number)) => Err(what(&words, &number)),
            (None, Value::Percent(_) | Value::Factor(_)) => {
                Err(Misread::new(format!("'{words}': of what?")).help("a part of the requests is said as 'canary 10%'"))
            }
        }
    }

    fn by(&mut self, value: Value, words: String) -> Result<(), Misread> {
        let noun = self.noun.take().map(|(noun, _)| noun);
        let way = self.way.as_ref().map(|(way, _)| *way);
        let unclear = || {
            let target = self.target.get().map_or("inference", String::as_str);
            Misread::new(format!("'{words}' can be so many more, or so many times as many"))
                .help(format!("say 'add 2 replicas to {target}' or 'double {target}'"))
                .example("add 2 replicas to inference")
        };
        let scaling = self.verb.get() == Some(&Verb::Scale);
        match (noun, way, value) {
            (noun, _, Value::Factor(factor)) => self.times(noun.unwrap_or(Noun::Replicas), factor, &words),
            (noun, Some(way), Value::Percent(percent)) => {
                let factor = if way == Way::Up {
                    1.0 + percent / 100.0
                } else {
                    1.0 - percent / 100.0
                };
                self.times(noun.unwrap_or(Noun::Replicas), (factor * 1e6).round() / 1e6, &words)
            }
            (_, None, _) => Err(unclear()),
            (Some(noun), way, value) => {
                let thing = self.of_noun(noun, &value, &words)?;
                self.quantity(Quantity { thing, way }, &words)
            }
            (None, way, Value::Thing(thing)) => self.quantity(Quantity { thing, way }, &words),
            (None, way, Value::Size(size)) => self.quantity(
                Quantity {
                    thing: Thing::Memory(size),
                    way,
                },
                &words,
            ),
            (None, Some(way), Value::Number(number)) if scaling => match value::whole(&number) {
                Some(count) => self
                    .replicas
                    .say("numbers of replicas", amount(Some(way), count), &words),
                None => Err(unclear()),
            },
            (None, ..) => Err(unclear()),
        }
    }

    fn finish(mut self) -> Result<(Intent, Vec<String>), Misread> {
        if let Some((noun, words)) = &self.noun {
            let help = match noun {
                Noun::Memory => "say 'memory 64Gi'",
                Noun::Cpu => "say '4 cpus'",
                Noun::Gpus => "say '8 GPUs'",
                Noun::Replicas => "say '8 replicas'",
                Noun::Image => "say 'image ghcr.io/acme/web:v2'",
            };
            return Err(Misread::new(format!("'{words}': how much?"))
                .help(help)
                .example("increase memory for data-processor to 64Gi"));
        }
        if let Some(words) = &self.condition {
            return Err(match self.verb.get() {
                Some(verb @ (Verb::Rollback | Verb::Abort | Verb::Restart)) => self.now_or_if(*verb, words),
                _ => Misread::new(format!("'{words}': what then?"))
                    .help(format!("say 'rollback {words}' or 'promote {words}'"))
                    .example("update model-server to v2.1, rollback if errors > 1%"),
            });
        }
        let verb = self.settled_verb()?;
        self.named_by_image();
        if self.target.get().is_none() {
            return Err(Misread::new("the sentence doesn't say what it is about".to_owned())
                .help("name the service or job; a name that is also a word of the grammar is quoted: deploy \"canary\" v2"));
        }
        self.settled_version(verb)?;
        self.strategies(verb)?;
        self.numbers()?;
        self.directions()?;
        self.fits(verb)?;
        let notes = self.told();
        let env = self
            .env_order
            .iter()
            .map(|name| EnvVar {
                name: name.clone(),
                value: self.env[name].clone(),
            })
            .collect();
        let back_to = if verb == Verb::Rollback {
            self.version.0.take().map(|(version, _)| version)
        } else {
            None
        };
        let intent = Intent {
            verb,
            target: self.target.take().unwrap_or_default(),
            version: self.version.take(),
            from_version: self.from_version.take(),
            image: self.image.take(),
            command: self.command.take().unwrap_or_default(),
            replicas: self.replicas.take(),
            min_replicas: self.min.take(),
            max_replicas: self.max.take(),
            follow: self.follow.take(),
            gpus: self.gpus.take(),
            gpu_model: self.gpu_model.take(),
            gpu_memory: self.gpu_memory.take(),
            memory: self.memory.take(),
            cpu: self.cpu.take(),
            priority: self.priority.take(),
            timeout: self.timeout.take(),
            env,
            port: self.port.take(),
            namespace: self.namespace.take(),
            strategy: self.strategy.take(),
            canary_steps: self.steps.take().unwrap_or_default(),
            batch: self.batch.take(),
            pause_between: self.pause.take(),
            promote_after: self.promote_after.take(),
            promote_if: self.promote_if,
            promote_by_hand: self.by_hand.is_some(),
            rollback_if: self.rollback_if,
            keep_old_for: self.keep_old.take(),
            care: self.care.take(),
            when: self.when.take(),
            batch_job: self.job.is_some(),
            back_to,
            reason: self.reason.take(),
        };
        Ok((intent, notes))
    }

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
    fn settled_verb(&mut self) -> Result<Verb, Misread> {
        let strategy = self.strategy.get().is_some()
            || self.immediately.is_some()
            || self.steps.get().is_some()
            || self.batch.get().is_some()
            || self.switch.is_some();
        let verb = match self.verb.get().copied() {
            // "scale memory to 64Gi", "resize X to 4 GPUs": the replicas become others.
            Some(Verb::Scale) if self.changes_revision() => Verb::Update,
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
    fn named_by_image(&mut self) {
        if self.target.get().is_some() {
            return;
        }
        if let Some(image) = self.image.get() {
            let last = image.rsplit('/').next().unwrap_or(image);
            let name = last.split([':', '@']).next().unwrap_or(last).to_ascii_lowercase();
            if api::id::check_name(&name).is_ok() {
                self.notes.push(format!("the name is taken from the image: {name}"));
                self.target.0 = Some((name, image.clone()));
            }
        }
    }

    fn settled_version(&self, verb: Verb) -> Result<(), Misread> {
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
    fn strategies(&mut self, verb: Verb) -> Result<(), Misread> {
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
    fn numbers(&self) -> Result<(), Misread> {
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
            Some(Batch::Count(0)) => {
                return Err(Misread::new(format!("'{}' replaces none", self.batch.words())).help("say 'one at a time'"));
            }
            Some(Batch::Percent(percent)) if !(*percent > 0.0 && *percent < 100.0) => {
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
    fn directions(&self) -> Result<(), Misread> {
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
    fn fits(&self, verb: Verb) -> Result<(), Misread> {
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
                        if self.promote_words.is_empty() {
                            "promote"
                        } else {
                            &self.promote_words
                        },
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
    fn now_or_if(&self, verb: Verb, words: &str) -> Misread {
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

    /// What whoever wrote the sentence should know.
    fn told(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.notes);
        if !self.passed.is_empty() {
            let words: Vec<String> = self.passed.iter().map(|words| format!("'{words}'")).collect();
            notes.push(format!("passed over: {}", words.join(", ")));
        }
        notes
    }
}

/// Adds conditions that aren't there yet.
fn extend(all: &mut Vec<Condition>, more: Vec<Condition>) {
    for condition in more {
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
}

fn what(words: &str, number: &str) -> Misread {
    Misread::new(format!("'{words}' can be {number} replicas, or version {number}"))
        .help(format!("say 'to {number} replicas' or 'to version {number}'"))
        .example("scale inference to 8 replicas")
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
