//! Parts put together: one intent without contradictions, or the words that contradict each other.

mod check;

use std::collections::BTreeMap;

use api::{
    Cpu, Size, Span,
    deploy::{Condition, Load, Strategy},
    workload::{EnvVar, Priority},
};

use super::{
    Amount, Batch, Care, Intent, Verb, When,
    clause::{Part, Placed, Way, counted},
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
    /// "double": of the replicas, unless something else is named.
    factor: Once<f64>,
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
    /// "the previous version".
    previous: Option<String>,
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

/// The intent that these parts say, and what whoever wrote it should know. `about`: what it is about where they don't say.
///
/// # Errors
/// They contradict each other, or something is missing.
pub(super) fn put_together(
    parts: Vec<Placed>,
    about: Option<&str>,
    words: impl Fn(usize, usize) -> String,
) -> Result<(Intent, Vec<String>), Misread> {
    let mut draft = Draft::default();
    let to_come = parts.iter().any(|(part, ..)| matches!(part, Part::To(_) | Part::By(_)));
    for (part, from, to) in parts {
        let said = words(from, to);
        draft.add(part, said, to_come)?;
    }
    draft.finish(about)
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
            Part::Factor(factor) if self.noun.is_some() => {
                let noun = self.noun.take().map_or(Noun::Replicas, |(noun, _)| noun);
                self.times(noun, factor, &words)
            }
            Part::Factor(factor) => self.factor.say("multiples", factor, &words),
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
            Part::Previous => {
                self.previous = Some(words);
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
            Thing::Replicas(count) => self.replicas.say("numbers of replicas", counted(way, count), words),
            Thing::Gpus { count, model, memory } => {
                if let Some(count) = count {
                    self.gpus.say("numbers of GPUs", counted(way, count), words)?;
                }
                if let Some(model) = model {
                    self.gpu_model.say("models of GPU", model, words)?;
                }
                match memory {
                    Some(memory) => self.gpu_memory.say("sizes of GPU memory", memory, words),
                    None => Ok(()),
                }
            }
            Thing::Memory(size) => self.memory.say("sizes of memory", counted(way, size), words),
            Thing::Cpu(cpu) => self.cpu.say("amounts of CPU", counted(way, cpu), words),
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
            (_, None, Value::Percent(percent)) => {
                let target = self.target.get().map_or("inference", String::as_str);
                Err(unclear().help(format!(
                    "say 'increase {target} by {percent}%' or 'reduce {target} by {percent}%'"
                )))
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
                    .say("numbers of replicas", counted(Some(way), count), &words),
                None => Err(unclear()),
            },
            (None, ..) => Err(unclear()),
        }
    }

    /// "double" is of what was named, otherwise of the replicas.
    fn settled_factor(&mut self) -> Result<(), Misread> {
        let Some((factor, words)) = self.factor.0.take() else {
            return Ok(());
        };
        match self.noun.take() {
            Some((noun, _)) => self.times(noun, factor, &words),
            None => {
                self.times(Noun::Replicas, factor, &words)?;
                self.verb(Verb::Scale, words)
            }
        }
    }

    fn finish(mut self, about: Option<&str>) -> Result<(Intent, Vec<String>), Misread> {
        self.settled_factor()?;
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
        if let (None, Some(name)) = (self.target.get(), about) {
            self.target.0 = Some((name.to_owned(), name.to_owned()));
        }
        self.named_by_image();
        if self.target.get().is_none() {
            let misread = Misread::new("the sentence doesn't say what it is about".to_owned());
            return Err(match verb {
                Verb::Deploy | Verb::Update | Verb::Scale => misread.help(
                    "name the service or job; a name that is also a word of the grammar is quoted: deploy \"canary\" v2",
                ),
                Verb::Rollback | Verb::Abort | Verb::Restart => {
                    let verb = verb.name();
                    misread.help(format!("name the service: '{verb} model-server'"))
                }
            });
        }
        if let Some(words) = self
            .previous
            .as_ref()
            .filter(|_| verb != Verb::Rollback || self.version.get().is_some())
        {
            return Err(
                Misread::new(format!("'{words}': which one is that?")).help("name the version, or say 'roll back'")
            );
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
