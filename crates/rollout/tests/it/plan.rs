//! What sentences become on what is there.

use std::sync::Arc;

use api::{
    ApiError, Cpu, DeploymentId, ErrorCode, Size, Span, Timestamp, WorkloadId,
    deploy::{
        Action, Autoscale, Basis, Comparison, Condition, Course, Deployment, Load, Marks, Numbers, Phase, Plan,
        Revision, Service, Signal, Standing, Strategy,
    },
    workload::{EnvVar, GpuRequest, Port, Priority, Probe, RestartPolicy, WorkloadSpec},
};
use proptest::prelude::*;
use rollout::{
    intent::{Amount, Batch, Care, Intent, Verb, When},
    plan::{self, DEFAULT_TIMEOUT, Facts, Standalone},
};
use serde_json::json;

const NAME: &str = "model-server";

fn say(verb: Verb) -> Intent {
    Intent::new(verb, NAME)
}

fn to_version(version: &str) -> Intent {
    Intent {
        version: Some(version.to_owned()),
        ..say(Verb::Update)
    }
}

fn errors(operator: Comparison, threshold: f64) -> Condition {
    Condition {
        metric: Signal::ErrorRate,
        operator,
        threshold,
        window: None,
    }
}

fn now() -> Timestamp {
    "2026-02-16T12:00:00Z".parse().unwrap()
}

/// What is there.
struct World {
    service: Option<Service>,
    under_way: Option<Deployment>,
    workload: Option<(WorkloadId, WorkloadSpec, bool)>,
    image: Option<&'static str>,
    template: Option<WorkloadSpec>,
    marks: Option<Marks>,
    timeout: Option<Span>,
    memory_used: Option<Size>,
    force: bool,
}

impl World {
    fn empty() -> Self {
        Self {
            service: None,
            under_way: None,
            workload: None,
            image: None,
            template: None,
            marks: None,
            timeout: None,
            memory_used: None,
            force: false,
        }
    }

    /// A service with a port, made by the planner itself: v1, v2 and so on, all good.
    fn with(replicas: u32, revisions: u32) -> Self {
        Self::of(replicas, revisions, Some(8080))
    }

    fn of(replicas: u32, revisions: u32, port: Option<u16>) -> Self {
        let first = Intent {
            image: Some("reg:5000/x/y:v1".to_owned()),
            port,
            memory: Some(Amount::To(Size::gib(4))),
            replicas: Some(Amount::To(replicas)),
            ..say(Verb::Deploy)
        };
        let plan = Self::empty().plan(&first);
        let mut world = Self::empty();
        // As it is kept: fields that came later have their defaults.
        world.service = serde_json::from_value(json!({
            "name": NAME, "namespace": "default", "owner": "ada", "createdAt": now(), "revisions": [],
            "replicas": replicas, "members": [], "weights": {},
        }))
        .unwrap();
        world.add(&plan, Standing::Good);
        for n in 2..=revisions {
            let plan = world.plan(&to_version(&format!("v{n}")));
            world.add(&plan, Standing::Good);
        }
        world
    }

    fn service(&mut self) -> &mut Service {
        self.service.as_mut().unwrap()
    }

    /// The revision that a plan makes; a good one is stable.
    fn add(&mut self, plan: &Plan, standing: Standing) -> u32 {
        let service = self.service();
        let number = service.revisions.last().map_or(1, |last| last.number + 1);
        service.revisions.push(Revision {
            number,
            version: plan.version.clone(),
            spec: Arc::clone(&plan.spec),
            marks: plan.marks.clone(),
            created_at: now(),
            created_by: "ada".to_owned(),
            deployment: DeploymentId::new(format!("dep-{number}")),
            standing,
        });
        service.replicas = plan.replicas;
        service.autoscale = plan.autoscale.clone();
        if standing == Standing::Good {
            service.stable = Some(number);
        }
        number
    }

    /// A deployment that has begun.
    fn begin(&mut self, plan: Plan, phase: Phase) {
        let from = self.service().stable;
        let revision = match (phase, plan.action) {
            (Phase::Pending, _) | (_, Action::Scale) => None,
            _ => Some(self.add(&plan, Standing::New)),
        };
        self.service().deployment = Some(DeploymentId::new("dep-x"));
        self.under_way = serde_json::from_value(json!({
            "id": "dep-x", "namespace": "default", "intent": "", "by": "ada", "createdAt": now(), "phase": phase,
            "revision": revision, "from": from, "replicasBefore": plan.replicas, "course": Course::Forward, "step": 0,
            "verdicts": [], "timeline": [], "plan": plan,
        }))
        .unwrap();
    }

    fn make(&self, intent: &Intent) -> Result<Plan, ApiError> {
        plan::make(intent, &self.facts())
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            namespace: "default",
            now: now(),
            service: self.service.as_ref(),
            under_way: self.under_way.as_ref(),
            workload: self.workload.as_ref().map(|(id, spec, ended)| Standalone {
                id,
                spec,
                ended: *ended,
            }),
            known: &["model-server", "data-processor"],
            image: self.image,
            template: self.template.as_ref(),
            marks: self.marks.as_ref(),
            timeout: self.timeout,
            default_timeout: DEFAULT_TIMEOUT,
            memory_used: self.memory_used,
            force: self.force,
        }
    }

    fn plan(&self, intent: &Intent) -> Plan {
        self.make(intent).unwrap()
    }

    /// The refusal's code, and all that it says.
    fn refusal(&self, intent: &Intent) -> (ErrorCode, String) {
        let error = self.make(intent).unwrap_err();
        (
            error.code,
            format!(
                "{} | {} | {}",
                error.message,
                error.cause.unwrap_or_default(),
                error.hint.unwrap_or_default()
            ),
        )
    }
}

#[track_caller]
fn refused(world: &World, intent: &Intent, code: ErrorCode, words: &str) {
    let (found, text) = world.refusal(intent);
    assert_eq!(found, code, "{text}");
    assert!(text.contains(words), "'{text}' doesn't say '{words}'");
}

#[track_caller]
fn says(sentences: &[String], words: &str) {
    assert!(
        sentences.iter().any(|sentence| sentence.contains(words)),
        "{sentences:#?} don't say '{words}'"
    );
}

fn change<'a>(plan: &'a Plan, field: &str) -> Option<(Option<&'a str>, &'a str)> {
    plan.changes
        .iter()
        .find(|change| change.field == field)
        .map(|change| (change.from.as_deref(), change.to.as_str()))
}

// ---- what it is about

#[test]
fn an_unknown_name_is_made_and_a_known_one_gets_another_revision() {
    let create = Intent {
        image: Some("a/b:c".to_owned()),
        ..say(Verb::Deploy)
    };
    let plan = World::empty().plan(&create);
    assert_eq!((plan.action, plan.replicas, plan.batch), (Action::Deploy, 1, false));
    assert_eq!((plan.strategy, plan.version.as_deref()), (Strategy::Rolling, Some("c")));
    assert_eq!(plan.timeout, Some(DEFAULT_TIMEOUT));
    assert!(plan.missing.is_empty() && plan.warnings.is_empty(), "{plan:?}");
    assert_eq!(plan.spec.restart, RestartPolicy::Always);

    for verb in [Verb::Deploy, Verb::Update] {
        let intent = Intent {
            verb,
            ..to_version("v2.1")
        };
        let plan = World::with(4, 2).plan(&intent);
        let action = if verb == Verb::Deploy {
            Action::Deploy
        } else {
            Action::Update
        };
        assert_eq!((plan.action, plan.image.as_str()), (action, "reg:5000/x/y:v2.1"));
        assert_eq!(
            change(&plan, "image"),
            Some((Some("reg:5000/x/y:v2"), "reg:5000/x/y:v2.1"))
        );
        assert_eq!(change(&plan, "version"), Some((Some("v2"), "v2.1")));
        assert_eq!(plan.replicas, 4);
        assert_eq!(plan.spec.memory, Some(Size::gib(4)));
        says(
            &plan.steps,
            "makes revision 3 (v2.1) of model-server: reg:5000/x/y:v2.1",
        );
    }
}

#[test]
fn what_needs_a_service_names_the_nearest() {
    for verb in [Verb::Update, Verb::Scale, Verb::Rollback, Verb::Restart, Verb::Abort] {
        let typo = Intent {
            target: "model-sevrer".to_owned(),
            ..say(verb)
        };
        refused(
            &World::empty(),
            &typo,
            ErrorCode::NotFound,
            "did you mean 'model-server'?",
        );
    }
    let bad = Intent {
        target: "Model_Server".to_owned(),
        ..say(Verb::Deploy)
    };
    refused(
        &World::empty(),
        &bad,
        ErrorCode::InvalidArgument,
        "can't be a service's name",
    );
    let elsewhere = Intent {
        namespace: Some("lab".to_owned()),
        ..say(Verb::Deploy)
    };
    refused(
        &World::empty(),
        &elsewhere,
        ErrorCode::InvalidArgument,
        "namespace 'lab'",
    );
}

#[test]
fn a_name_that_a_workload_holds_is_not_taken_from_it() {
    let mut world = World::empty();
    let spec = WorkloadSpec {
        image: "reg/z:v1".to_owned(),
        memory: Some(Size::gib(1)),
        ..WorkloadSpec::default()
    };
    world.workload = Some((WorkloadId::new("wl-1"), spec, false));
    for verb in [Verb::Deploy, Verb::Update, Verb::Scale] {
        refused(
            &world,
            &say(verb),
            ErrorCode::AlreadyExists,
            "workload cancel model-server",
        );
    }
    if let Some((_, _, ended)) = &mut world.workload {
        *ended = true;
    }
    let plan = world.plan(&to_version("v2.1"));
    assert_eq!((plan.action, plan.image.as_str()), (Action::Deploy, "reg/z:v2.1"));
    assert_eq!(plan.spec.memory, Some(Size::gib(1)));
    says(&plan.warnings, "wl-1");
    refused(&world, &say(Verb::Scale), ErrorCode::NotFound, "no service");
}

#[test]
fn images_come_from_the_sentence_the_flag_the_template_and_the_revision_before() {
    let template = WorkloadSpec {
        image: "tem/plate:v1".to_owned(),
        cpu: Some(Cpu::cores(2)),
        ..WorkloadSpec::default()
    };
    let mut world = World::with(2, 1);
    let mut intent = Intent {
        image: Some("sen/tence:v9".to_owned()),
        ..to_version("v9")
    };
    world.image = Some("fl/ag");
    world.template = Some(template);
    assert_eq!(world.plan(&intent).image, "sen/tence:v9");
    intent.image = None;
    assert_eq!(world.plan(&intent).image, "fl/ag:v9");
    world.image = None;
    let plan = world.plan(&intent);
    assert_eq!(
        (plan.image.as_str(), plan.spec.cpu),
        ("tem/plate:v9", Some(Cpu::cores(2)))
    );
    assert_eq!(plan.spec.memory, None, "a template stands for the whole specification");
    world.template.as_mut().unwrap().image.clear();
    assert_eq!(world.plan(&intent).image, "reg:5000/x/y:v9");

    let plan = World::empty().plan(&say(Verb::Deploy));
    says(&plan.missing, "--image");
    assert_eq!(plan.image, "");
}

#[test]
fn marks_come_from_the_manifest_and_stay_with_their_revision() {
    let marks = |owner: &str| Marks {
        labels: [("team".to_owned(), owner.to_owned())].into(),
        annotations: [("runbook".to_owned(), format!("https://wiki/{owner}"))].into(),
    };
    let mut world = World::with(2, 1);
    let unmarked = world.plan(&to_version("v2"));
    assert!(unmarked.marks.is_empty());
    // Other marks alone are another revision, and are told.
    world.template = Some((*world.service().revisions[0].spec).clone());
    world.marks = Some(marks("nlp"));
    let plan = world.plan(&say(Verb::Update));
    assert_eq!(plan.marks, marks("nlp"));
    let told: Vec<_> = plan.changes.iter().map(|c| (c.field.as_str(), c.to.as_str())).collect();
    assert_eq!(
        told,
        [("label.team", "nlp"), ("annotation.runbook", "https://wiki/nlp")]
    );
    assert_ne!(plan.digest, unmarked.digest);
    world.add(&plan, Standing::Good);
    refused(&world, &say(Verb::Update), ErrorCode::Conflict, "nothing would change");
    // Unsaid, they stay: for another version, another number of replicas, and a restart.
    (world.template, world.marks) = (None, None);
    let scaled = Intent {
        replicas: Some(Amount::To(5)),
        ..say(Verb::Scale)
    };
    for intent in [&to_version("v2"), &scaled, &say(Verb::Restart)] {
        assert_eq!(world.plan(intent).marks, marks("nlp"), "{intent}");
    }
    // A manifest without any takes them away; going back brings those of then back.
    world.marks = Some(Marks::default());
    let plan = world.plan(&to_version("v2"));
    assert!(plan.marks.is_empty());
    assert!(
        plan.changes.iter().any(|c| c.field == "label.team" && c.to == "none"),
        "{:?}",
        plan.changes
    );
    world.add(&plan, Standing::Good);
    world.marks = None;
    assert_eq!(world.plan(&say(Verb::Rollback)).marks, marks("nlp"));
    // A new service's, and a job's.
    let mut world = World::empty();
    world.image = Some("reg/x:v1");
    world.marks = Some(marks("nlp"));
    assert_eq!(world.plan(&say(Verb::Deploy)).marks, marks("nlp"));
    let job = Intent {
        batch_job: true,
        ..say(Verb::Deploy)
    };
    let plan = world.plan(&job);
    assert!(plan.batch && plan.marks == marks("nlp"));
}

#[test]
fn a_version_is_told_by_a_variable_where_no_tag_tells_it() {
    let mut world = World::empty();
    let host = WorkloadSpec {
        image: "host".to_owned(),
        command: vec!["serve".to_owned()],
        ..WorkloadSpec::default()
    };
    world.template = Some(host);
    let deploy = |version: &str| Intent {
        verb: Verb::Deploy,
        ..to_version(version)
    };
    let plan = world.plan(&deploy("v1"));
    let var = |value: &str| {
        vec![EnvVar {
            name: "VERSION".to_owned(),
            value: value.to_owned(),
        }]
    };
    assert_eq!((plan.image.as_str(), &plan.spec.env), ("host", &var("v1")));
    // An image that never asked for it isn't given one; one that did is told the truth.
    let plain = World::with(1, 1).plan(&to_version("v2"));
    assert_eq!(plain.spec.env, Vec::new());
    let mut asked = World::empty();
    asked.template = Some(WorkloadSpec {
        image: "x:v1".to_owned(),
        env: var("v1"),
        ..WorkloadSpec::default()
    });
    assert_eq!(asked.plan(&deploy("v2")).spec.env, var("v2"));
    let said = Intent {
        env: var("mine"),
        ..deploy("v2")
    };
    assert_eq!(asked.plan(&said).spec.env, var("mine"));
    // The node's own file system doesn't say what to run.
    let bare = Intent {
        image: Some("host".to_owned()),
        ..say(Verb::Deploy)
    };
    says(&World::empty().plan(&bare).missing, "a command");
}

// ---- batch jobs

#[test]
fn gpus_for_a_limited_time_are_a_batch_job() {
    let seed = Intent {
        gpus: Some(Amount::To(8)),
        gpu_model: Some("A100".to_owned()),
        priority: Some(Priority::High),
        timeout: Some("48h".parse().unwrap()),
        image: Some("pytorch:2".to_owned()),
        ..say(Verb::Deploy)
    };
    let plan = World::empty().plan(&seed);
    assert!(plan.batch);
    assert_eq!(
        (plan.replicas, plan.priority, plan.resources.gpus),
        (1, Priority::High, 8)
    );
    assert_eq!((plan.timeout, plan.spec.timeout), (seed.timeout, seed.timeout));
    assert_eq!(plan.spec.restart, RestartPolicy::Never);
    says(
        &plan.steps,
        "runs pytorch:2 with 8 GPUs once, to its end, for at most 2d",
    );

    let services = [
        Intent {
            replicas: Some(Amount::To(2)),
            ..seed.clone()
        },
        Intent {
            strategy: Some(Strategy::Canary),
            ..seed.clone()
        },
        Intent {
            rollback_if: vec![errors(Comparison::Above, 0.01)],
            ..seed.clone()
        },
        Intent {
            promote_after: Some(Span::secs(60)),
            ..seed.clone()
        },
        Intent {
            port: Some(8080),
            ..seed.clone()
        },
        Intent {
            timeout: None,
            ..seed.clone()
        },
        Intent {
            gpus: None,
            gpu_model: None,
            ..seed.clone()
        },
    ];
    for intent in services {
        let plan = World::empty().plan(&intent);
        assert!(!plan.batch, "{intent:?}");
        assert_eq!(
            plan.timeout,
            intent.timeout.or(plan.timeout),
            "the deployment's deadline"
        );
        assert_eq!(plan.spec.timeout, None);
        let job = Intent {
            batch_job: true,
            ..intent
        };
        match job.timeout {
            Some(_) if job.gpus.is_some() => refused(&World::empty(), &job, ErrorCode::InvalidArgument, "a job has no"),
            _ => assert!(World::empty().plan(&job).batch),
        }
    }
    // A service that is there stays one.
    let plan = World::with(2, 1).plan(&seed);
    assert!(!plan.batch);
    let job = Intent {
        batch_job: true,
        ..seed
    };
    refused(&World::with(2, 1), &job, ErrorCode::Conflict, "is a service");
}

#[test]
fn a_job_without_a_timeout_is_warned_of() {
    let job = Intent {
        batch_job: true,
        image: Some("x:1".to_owned()),
        ..say(Verb::Deploy)
    };
    let mut world = World::empty();
    let plan = world.plan(&job);
    assert_eq!(plan.timeout, None);
    says(&plan.warnings, "no timeout");
    world.timeout = Some(Span::secs(60));
    assert_eq!(world.plan(&job).spec.timeout, Some(Span::secs(60)));
    world.template = Some(WorkloadSpec {
        restart: RestartPolicy::Always,
        ..WorkloadSpec::default()
    });
    let plan = world.plan(&job);
    assert_eq!(plan.spec.restart, RestartPolicy::Never);
    says(&plan.warnings, "runs once");
}

// ---- replicas

#[test]
fn replicas_are_counted() {
    let table: [(u32, Amount<u32>, Result<u32, &str>); 12] = [
        (4, Amount::To(8), Ok(8)),
        (4, Amount::More(2), Ok(6)),
        (4, Amount::Fewer(3), Ok(1)),
        (4, Amount::Times(2.0), Ok(8)),
        (3, Amount::Times(0.5), Ok(2)),
        (30, Amount::Times(0.1), Ok(3)),
        (1, Amount::Times(0.01), Err("nothing would change")),
        (4, Amount::To(4), Err("nothing would change")),
        (4, Amount::To(0), Err("service delete model-server")),
        (4, Amount::Fewer(4), Err("service delete model-server")),
        (4, Amount::Times(-1.0), Err("a number above 0")),
        (4, Amount::To(4_000_000_000), Err("at most 1000")),
    ];
    for (before, amount, expected) in table {
        let intent = Intent {
            replicas: Some(amount),
            ..say(Verb::Scale)
        };
        let world = World::with(before, 1);
        match expected {
            Ok(replicas) => {
                let plan = world.plan(&intent);
                assert_eq!(
                    (plan.action, plan.replicas),
                    (Action::Scale, replicas),
                    "{amount:?} of {before}"
                );
                assert_eq!(plan.to_revision, None);
                assert_eq!(plan.spec, world.service.as_ref().unwrap().revisions[0].spec);
                assert_eq!(plan.changes.len(), 1);
            }
            Err(words) => {
                let (_, text) = world.refusal(&intent);
                assert!(text.contains(words), "{text}");
            }
        }
    }
    let more = Intent {
        replicas: Some(Amount::More(2)),
        image: Some("x:1".to_owned()),
        ..say(Verb::Deploy)
    };
    refused(&World::empty(), &more, ErrorCode::InvalidArgument, "no replicas yet");
}

#[test]
fn another_number_beside_another_version_is_a_revision() {
    let both = Intent {
        replicas: Some(Amount::To(8)),
        ..to_version("v2")
    };
    let plan = World::with(4, 1).plan(&both);
    assert_eq!((plan.action, plan.replicas), (Action::Update, 8));
    assert_eq!(change(&plan, "replicas"), Some((Some("4"), "8")));
    // And "scale" that changes what runs is one too.
    let memory = Intent {
        replicas: Some(Amount::To(8)),
        memory: Some(Amount::To(Size::gib(8))),
        ..say(Verb::Scale)
    };
    assert_eq!(World::with(4, 1).plan(&memory).action, Action::Update);
    // While "update to 8 replicas" is none.
    let only = Intent {
        replicas: Some(Amount::To(8)),
        ..say(Verb::Update)
    };
    assert_eq!(World::with(4, 1).plan(&only).action, Action::Scale);
}

#[test]
fn bounds_are_merged_with_those_that_are_there() {
    let scale = |min, max, follow| Intent {
        min_replicas: min,
        max_replicas: max,
        follow,
        ..say(Verb::Scale)
    };
    let mut world = World::with(4, 1);
    let plan = world.plan(&scale(Some(2), Some(10), Some((Load::Cpu, 70.0))));
    let first = Autoscale {
        min: 2,
        max: 10,
        load: Some(Load::Cpu),
        target: 70.0,
    };
    assert_eq!((plan.autoscale.as_ref(), plan.replicas), (Some(&first), 4));
    says(&plan.steps, "2 to 10, CPU use about 70 %");
    world.service().autoscale = Some(first.clone());
    // One of them changes, the others stay; the number moves into the new bounds.
    let plan = world.plan(&scale(Some(6), None, None));
    assert_eq!(
        (plan.autoscale, plan.replicas),
        (
            Some(Autoscale {
                min: 6,
                ..first.clone()
            }),
            6
        )
    );
    let plan = world.plan(&scale(None, Some(3), None));
    assert_eq!(
        (plan.autoscale, plan.replicas),
        (
            Some(Autoscale {
                max: 3,
                ..first.clone()
            }),
            3
        )
    );
    refused(
        &world,
        &scale(Some(2), Some(10), None),
        ErrorCode::Conflict,
        "nothing would change",
    );
    // A number within them is taken, with a word of warning; one outside isn't.
    let to = |n| Intent {
        replicas: Some(Amount::To(n)),
        ..say(Verb::Scale)
    };
    says(&world.plan(&to(8)).warnings, "follows its CPU use");
    refused(&world, &to(11), ErrorCode::InvalidArgument, "bounds, 2 to 10");
    // A new pair.
    let world = World::with(4, 1);
    let plan = world.plan(&scale(Some(6), None, None));
    assert_eq!(
        (plan.autoscale, plan.replicas),
        (
            Some(Autoscale {
                min: 6,
                max: 6,
                load: None,
                target: 0.0
            }),
            6
        )
    );
    let plan = world.plan(&scale(Some(2), None, Some((Load::RequestRate, 50.0))));
    says(&plan.missing, "max 10");
    for (intent, words) in [
        (scale(Some(5), Some(3), None), "can't both be"),
        (scale(Some(0), Some(3), None), "service delete"),
        (scale(Some(1), Some(2000), None), "at most 1000"),
        (scale(Some(1), Some(3), Some((Load::Gpu, 70.0))), "no GPUs to follow"),
        (scale(Some(1), Some(3), Some((Load::Cpu, 0.0))), "above 0"),
        (scale(Some(1), Some(3), Some((Load::Cpu, f64::NAN))), "above 0"),
    ] {
        refused(&world, &intent, ErrorCode::InvalidArgument, words);
    }
    let blind = World::of(4, 1, None);
    let queue = scale(Some(1), Some(3), Some((Load::Queue, 5.0)));
    refused(&blind, &queue, ErrorCode::InvalidArgument, "no port");
}

#[test]
fn a_strategy_on_a_mere_number_is_refused() {
    let world = World::with(4, 1);
    let scale = |change: fn(&mut Intent)| {
        let mut intent = Intent {
            replicas: Some(Amount::To(8)),
            ..say(Verb::Scale)
        };
        change(&mut intent);
        intent
    };
    for intent in [
        scale(|intent| intent.strategy = Some(Strategy::Canary)),
        scale(|intent| intent.strategy = Some(Strategy::BlueGreen)),
        scale(|intent| intent.promote_after = Some(Span::secs(60))),
    ] {
        refused(
            &world,
            &intent,
            ErrorCode::InvalidArgument,
            "only the number of replicas changes",
        );
    }
    says(
        &world.plan(&scale(|i| i.strategy = Some(Strategy::Immediate))).warnings,
        "no replica is replaced",
    );
    // Haste is no reason to start every replica anew.
    let plan = world.plan(&scale(|i| i.care = Some(Care::Emergency)));
    assert_eq!((plan.action, plan.priority), (Action::Scale, Priority::Normal));
    let back = scale(|i| i.rollback_if = vec![errors(Comparison::Above, 0.01)]);
    assert_eq!(world.plan(&back).rollback_conditions.len(), 1);
}

// ---- what a replica runs

#[test]
fn resources_make_another_revision() {
    let memory = |amount| Intent {
        memory: Some(amount),
        ..say(Verb::Update)
    };
    let mut world = World::with(4, 1);
    for (amount, expected) in [
        (Amount::To(Size::gib(64)), Size::gib(64)),
        (Amount::More(Size::gib(1)), Size::gib(5)),
        (Amount::Fewer(Size::gib(1)), Size::gib(3)),
        (Amount::Times(1.5), Size::gib(6)),
        (Amount::Times(1.0 / 3.0), Size::mib(1366)),
    ] {
        let plan = world.plan(&memory(amount));
        assert_eq!(
            (plan.action, plan.resources.memory),
            (Action::Update, Some(expected)),
            "{amount:?}"
        );
        assert_eq!(plan.version.as_deref(), Some("v1"), "it is called as before");
        assert_eq!(
            change(&plan, "memory"),
            Some((Some("4Gi"), expected.to_string().as_str()))
        );
        assert_eq!(plan.changes.len(), 1);
    }
    refused(
        &world,
        &memory(Amount::To(Size::mib(15))),
        ErrorCode::InvalidArgument,
        "16Mi is the least",
    );
    refused(
        &world,
        &memory(Amount::Fewer(Size::gib(9))),
        ErrorCode::InvalidArgument,
        "16Mi is the least",
    );
    assert!(world.make(&memory(Amount::To(Size::mib(16)))).is_ok());
    world.memory_used = Some(Size::gib(3));
    says(
        &world.plan(&memory(Amount::To(Size::gib(2)))).warnings,
        "measured to use 3Gi of memory: with 2Gi",
    );
    assert!(world.plan(&memory(Amount::To(Size::gib(3)))).warnings.is_empty());
    // No fear of what was there before.
    assert!(world.plan(&to_version("v2")).warnings.is_empty());

    let cpu = |amount| Intent {
        cpu: Some(amount),
        ..say(Verb::Update)
    };
    assert_eq!(world.plan(&cpu(Amount::To(Cpu(1500)))).resources.cpu, Some(Cpu(1500)));
    refused(
        &world,
        &cpu(Amount::Times(2.0)),
        ErrorCode::InvalidArgument,
        "no share of CPU to change",
    );
    refused(&world, &cpu(Amount::To(Cpu(0))), ErrorCode::InvalidArgument, "no CPU");

    let gpus = |amount, model: Option<&str>| Intent {
        gpus: amount,
        gpu_model: model.map(str::to_owned),
        ..say(Verb::Update)
    };
    let count = |plan: &Plan| (plan.resources.gpus, plan.resources.gpu_type.clone());
    assert_eq!(count(&world.plan(&gpus(Some(Amount::To(2)), None))), (2, None));
    assert_eq!(
        count(&world.plan(&gpus(None, Some("A100")))),
        (1, Some("A100".to_owned()))
    );
    refused(
        &world,
        &gpus(Some(Amount::To(0)), Some("A100")),
        ErrorCode::InvalidArgument,
        "none of it",
    );
    refused(
        &world,
        &gpus(Some(Amount::To(0)), None),
        ErrorCode::Conflict,
        "nothing would change",
    );
}

#[test]
fn replicas_are_ready_when_their_port_accepts_connections() {
    let world = World::with(2, 1);
    let spec = Arc::clone(&world.service.as_ref().unwrap().revisions[0].spec);
    let ready = spec.readiness.clone().unwrap();
    assert_eq!(
        (&ready.probe, ready.interval, ready.timeout, ready.failures),
        (&Probe::Tcp(8080), Span::secs(1), Span::secs(1), 3)
    );
    assert!(spec.dynamic_ports);
    assert_eq!((spec.ports.len(), spec.ports[0].protocol.as_str()), (1, "TCP"));
    // Another port, another check.
    let plan = world.plan(&Intent {
        port: Some(9000),
        ..say(Verb::Update)
    });
    assert_eq!((plan.spec.ports.len(), plan.spec.ports[0].port), (1, 9000));
    assert_eq!(plan.spec.readiness.as_ref().unwrap().probe, Probe::Tcp(9000));
    assert_eq!(change(&plan, "ports"), Some((Some("8080"), "9000")));
    refused(
        &world,
        &Intent {
            port: Some(0),
            ..say(Verb::Update)
        },
        ErrorCode::InvalidArgument,
        "no port",
    );
    // One's own check is kept, and without a port there is none.
    let mut own = World::empty();
    let http = api::workload::HealthCheck {
        probe: Probe::Http("/ready".to_owned()),
        ..ready
    };
    own.template = Some(WorkloadSpec {
        image: "x:1".to_owned(),
        ports: vec![
            Port {
                name: "dns".to_owned(),
                port: 53,
                protocol: "UDP".to_owned(),
            },
            Port {
                name: "web".to_owned(),
                port: 80,
                protocol: "TCP".to_owned(),
            },
        ],
        readiness: Some(http.clone()),
        ..WorkloadSpec::default()
    });
    assert_eq!(own.plan(&say(Verb::Deploy)).spec.readiness, Some(http));
    own.template.as_mut().unwrap().readiness = None;
    assert_eq!(
        own.plan(&say(Verb::Deploy)).spec.readiness.as_ref().unwrap().probe,
        Probe::Tcp(80)
    );
    let plan = own.plan(&Intent {
        port: Some(80),
        ..say(Verb::Deploy)
    });
    assert_eq!(plan.spec.ports[0].port, 80, "the sentence's port is the first");
    let plan = World::of(2, 1, None).plan(&to_version("v2"));
    assert!(plan.spec.readiness.is_none() && !plan.spec.dynamic_ports);
}

#[test]
fn nothing_to_change_is_a_conflict_and_restart_is_not() {
    let world = World::with(4, 2);
    refused(&world, &to_version("v2"), ErrorCode::Conflict, "restart model-server");
    refused(
        &world,
        &say(Verb::Deploy),
        ErrorCode::Conflict,
        "runs just that already",
    );
    let plan = world.plan(&say(Verb::Restart));
    assert_eq!((plan.action, plan.to_revision), (Action::Update, None));
    assert_eq!(plan.spec, world.service.as_ref().unwrap().revisions[1].spec);
    assert_eq!(change(&plan, "revision"), Some((Some("2"), "3, the same anew")));
    assert!(plan::looping(&plan, world.service.as_ref().unwrap()).is_none());
    // On its way there.
    let mut world = World::with(4, 2);
    let coming = world.plan(&to_version("v3"));
    world.begin(coming, Phase::Canary);
    refused(
        &world,
        &to_version("v3"),
        ErrorCode::Conflict,
        "dep-x is on its way there",
    );
}

#[test]
fn what_was_bad_is_refused_unless_forced() {
    let mut world = World::with(4, 2);
    let bad = world.plan(&to_version("v3"));
    world.add(&bad, Standing::Bad);
    let again = world.plan(&to_version("v3"));
    says(&again.warnings, "this is what revision 3 (v3) was");
    let service = world.service.as_ref().unwrap();
    let error = plan::looping(&again, service).unwrap();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.message.contains("revision 3 (v3)") && error.hint.unwrap().contains("--force"));
    // With other memory it is something else.
    let other = world.plan(&Intent {
        memory: Some(Amount::To(Size::gib(8))),
        ..to_version("v3")
    });
    assert!(plan::looping(&other, service).is_none());
    assert!(!other.warnings.iter().any(|warning| warning.contains("this is what")));
    // One that is yet to be judged says nothing, a later good one of the same speaks for it.
    world.add(&again, Standing::New);
    assert!(plan::looping(&again, world.service.as_ref().unwrap()).is_some());
    world.add(&again, Standing::Good);
    assert!(plan::looping(&again, world.service.as_ref().unwrap()).is_none());
    // What failed as a restart is no reason to leave the number of replicas as it is, or not to go back.
    let mut world = World::with(4, 2);
    let restart = world.plan(&say(Verb::Restart));
    world.add(&restart, Standing::Bad);
    let scale = Intent {
        replicas: Some(Amount::To(8)),
        ..say(Verb::Scale)
    };
    let back = Intent {
        back_to: Some("v1".to_owned()),
        ..say(Verb::Rollback)
    };
    for intent in [scale, back] {
        assert!(plan::looping(&world.plan(&intent), world.service.as_ref().unwrap()).is_none());
    }
    assert!(plan::looping(&restart, world.service.as_ref().unwrap()).is_some());
    // The very first try may be tried again.
    let mut world = World::with(1, 1);
    world.service().stable = None;
    world.service().revisions[0].standing = Standing::Bad;
    let plan = world.plan(&say(Verb::Deploy));
    assert!(plan::looping(&plan, world.service.as_ref().unwrap()).is_some());
}

// ---- strategies

#[test]
fn a_canary_in_numbers() {
    let canary = |steps: &[f64]| Intent {
        strategy: Some(Strategy::Canary),
        canary_steps: steps.to_vec(),
        ..to_version("v2")
    };
    let plan = World::with(4, 1).plan(&canary(&[]));
    let way = plan.canary.as_ref().unwrap();
    assert_eq!(
        (plan.strategy, way.percentage, way.effective_replicas),
        (Strategy::Canary, 10.0, 1)
    );
    assert_eq!((way.steps.len(), way.steps[0].effective_percentage), (1, 25.0));
    assert!(!way.auto_promote && way.promote_after.is_none());
    says(&plan.steps, "10% of 4 replicas = 1 replica (25%)");
    says(&plan.steps, "exactly 10% of the requests");
    says(&plan.steps, "waits for `clawbernetes deploy promote`");
    says(&plan.warnings, "rollback if errors > 1%");
    assert!(plan.blue_green.is_none());

    let plan = World::with(10, 1).plan(&canary(&[10.0, 50.0]));
    let steps: Vec<_> = plan
        .canary
        .unwrap()
        .steps
        .iter()
        .map(|step| (step.percentage, step.replicas))
        .collect();
    assert_eq!(steps, [(10.0, 1), (50.0, 5)]);

    let plan = World::of(4, 1, None).plan(&canary(&[]));
    says(
        &plan.warnings,
        "it has no port: the canary is a part of the replicas (25 %), not of the requests",
    );
    assert!(!plan.steps.iter().any(|step| step.contains("exactly")));
    let plan = World::of(4, 1, None).plan(&canary(&[10.0, 20.0]));
    says(&plan.warnings, "the same number of replicas");

    let plan = World::with(1, 1).plan(&canary(&[]));
    assert_eq!(plan.canary.as_ref().unwrap().steps[0].effective_percentage, 50.0);
    says(&plan.warnings, "1 more that runs beside it, 50 % of the two");

    for (steps, words) in [
        (&[0.0][..], "above 0 %"),
        (&[100.0], "below 100 %"),
        (&[-5.0], "above 0 %"),
        (&[f64::NAN], "above 0 %"),
        (&[50.0, 10.0], "steps grow"),
        (&[10.0, 10.0], "steps grow"),
    ] {
        refused(&World::with(4, 1), &canary(steps), ErrorCode::InvalidArgument, words);
    }
}

#[test]
fn a_canary_goes_on_by_itself_only_where_that_is_said() {
    // The seed's "deploy new-model at 2am with 5% canary, promote after 1 hour if healthy".
    let hour = Span::secs(3600);
    let healthy = Condition {
        metric: Signal::Healthy,
        operator: Comparison::AtLeast,
        threshold: 1.0,
        window: None,
    };
    let night: Timestamp = "2026-02-17T02:00:00Z".parse().unwrap();
    let seed = Intent {
        canary_steps: vec![5.0],
        promote_after: Some(hour),
        promote_if: vec![healthy],
        when: Some(When::At {
            time: night,
            zone: "UTC".to_owned(),
        }),
        ..to_version("v2")
    };
    let mut world = World::with(20, 1);
    let plan = world.plan(&seed);
    let way = plan.canary.as_ref().unwrap();
    assert!(way.auto_promote);
    assert_eq!(
        (way.promote_after, way.effective_replicas, plan.strategy),
        (Some(hour), 1, Strategy::Canary)
    );
    assert_eq!(plan.schedule.as_ref().unwrap().at, Some(night));
    assert_eq!(plan.timeout, Some(DEFAULT_TIMEOUT));
    says(&plan.steps, "goes on by itself after 1h if healthy");
    says(&plan.steps, "waits until 2026-02-17 02:00:00 UTC");
    world.timeout = Some(Span::secs(60));
    assert_eq!(world.plan(&seed).timeout, Some(Span::secs(60)));
    let said = Intent {
        timeout: Some(Span::secs(90)),
        ..seed.clone()
    };
    assert_eq!(world.plan(&said).timeout, Some(Span::secs(90)));

    let by_hand = Intent {
        promote_by_hand: true,
        ..seed.clone()
    };
    assert!(!World::with(20, 1).plan(&by_hand).canary.unwrap().auto_promote);
    let past = Intent {
        when: Some(When::At {
            time: "2026-02-16T02:00:00Z".parse().unwrap(),
            zone: "UTC".to_owned(),
        }),
        ..seed
    };
    refused(&World::with(20, 1), &past, ErrorCode::InvalidArgument, "past");
}

#[test]
fn blue_green_in_numbers() {
    let healthy = Condition {
        metric: Signal::Healthy,
        operator: Comparison::AtLeast,
        threshold: 1.0,
        window: None,
    };
    let seed = Intent {
        strategy: Some(Strategy::BlueGreen),
        promote_if: vec![healthy],
        ..to_version("v3.0")
    };
    let mut world = World::with(4, 1);
    let plan = world.plan(&seed);
    let way = plan.blue_green.as_ref().unwrap();
    assert_eq!(
        (way.check_for, way.auto_switch, way.keep_old_for),
        (Span::secs(10), true, Span::secs(600))
    );
    assert_eq!(plan::surge(&plan), 4);
    let said = Intent {
        promote_after: Some(Span::secs(300)),
        keep_old_for: Some(Span::secs(60)),
        promote_by_hand: true,
        ..seed.clone()
    };
    let way = world.plan(&said).blue_green.unwrap();
    assert_eq!(
        (way.check_for, way.auto_switch, way.keep_old_for),
        (Span::secs(300), false, Span::secs(60))
    );
    let blind = Intent {
        promote_if: vec![errors(Comparison::Below, 0.01)],
        ..seed.clone()
    };
    refused(
        &world,
        &blind,
        ErrorCode::InvalidArgument,
        "only its health can be told",
    );
    // The second set's GPUs, in numbers.
    let mut spec = (*world.service().revisions[0].spec).clone();
    spec.gpus = GpuRequest {
        count: 2,
        model: None,
        memory: None,
    };
    world.service().revisions[0].spec = Arc::new(spec);
    says(
        &world.plan(&seed).steps,
        "needs up to 8 GPUs beyond the 8 of 4 replicas",
    );
    says(
        &world.plan(&to_version("v2")).steps,
        "needs up to 2 GPUs beyond the 8 of 4 replicas",
    );
}

#[test]
fn the_first_revision_has_nothing_to_be_compared_with() {
    for strategy in [Strategy::Canary, Strategy::BlueGreen] {
        let seed = Intent {
            image: Some("x:1".to_owned()),
            gpus: Some(Amount::To(4)),
            strategy: Some(strategy),
            replicas: Some(Amount::To(3)),
            rollback_if: vec![errors(Comparison::Above, 0.01)],
            port: Some(80),
            ..say(Verb::Deploy)
        };
        let plan = World::empty().plan(&seed);
        assert_eq!(plan.strategy, Strategy::Rolling);
        assert!(plan.canary.is_none() && plan.blue_green.is_none());
        says(&plan.warnings, &format!("it starts as rolling, not as {strategy}"));
        says(&plan.warnings, "no good revision to go back to");
        says(&plan.steps, "starts 3 replicas");
        says(&plan.steps, "stops if error rate > 1 %");
        // Neither has one whose only revision failed.
        let mut world = World::with(3, 1);
        world.service().stable = None;
        world.service().revisions[0].standing = Standing::Bad;
        assert_eq!(world.plan(&seed).strategy, Strategy::Rolling);
    }
}

#[test]
fn rolling_in_numbers() {
    // replicas, batch -> surge, unavailable
    let table: [(u32, Option<Batch>, u32, u32); 16] = [
        (1, None, 1, 0),
        (2, None, 1, 0),
        (3, None, 1, 0),
        (4, None, 1, 1),
        (5, None, 2, 1),
        (8, None, 2, 2),
        (10, None, 3, 2),
        (10, Some(Batch::Count(1)), 1, 0),
        (10, Some(Batch::Count(20)), 10, 0),
        (10, Some(Batch::Percent(20.0)), 2, 0),
        (10, Some(Batch::Percent(25.0)), 3, 0),
        (3, Some(Batch::Percent(1.0)), 1, 0),
        (3, Some(Batch::Fewer(2)), 0, 2),
        (2, Some(Batch::FewerPercent(10.0)), 0, 1),
        (10, Some(Batch::FewerPercent(25.0)), 0, 2),
        (10, Some(Batch::FewerPercent(99.0)), 0, 9),
    ];
    for (replicas, batch, surge, unavailable) in table {
        let plan = World::with(replicas, 1).plan(&Intent {
            batch,
            ..to_version("v2")
        });
        assert_eq!(
            (plan.rolling.max_surge, plan.rolling.max_unavailable),
            (surge, unavailable),
            "{replicas} replicas, {batch:?}"
        );
        assert_eq!(plan::surge(&plan), surge);
    }
    for batch in [
        Batch::Count(0),
        Batch::Percent(0.0),
        Batch::Percent(101.0),
        Batch::Percent(f64::NAN),
        Batch::Fewer(0),
        Batch::Fewer(4),
        Batch::FewerPercent(0.0),
        Batch::FewerPercent(100.0),
        Batch::FewerPercent(f64::NAN),
    ] {
        let intent = Intent {
            batch: Some(batch),
            ..to_version("v2")
        };
        assert_eq!(World::with(4, 1).refusal(&intent).0, ErrorCode::InvalidArgument);
    }
    let rests = Intent {
        pause_between: Some(Span::secs(60)),
        batch: Some(Batch::Count(1)),
        ..to_version("v2")
    };
    let plan = World::with(10, 1).plan(&rests);
    says(&plan.steps, "1 at a time, never fewer than 10 ready, with rests of 1m");
    let immediate = Intent {
        strategy: Some(Strategy::Immediate),
        ..to_version("v2")
    };
    let plan = World::with(4, 1).plan(&immediate);
    assert_eq!((plan.strategy, plan::surge(&plan)), (Strategy::Immediate, 0));
    says(&plan.steps, "nothing answers meanwhile");
}

#[test]
fn everyday_words_have_numbers() {
    let care = |care| Intent {
        care: Some(care),
        ..to_version("v2")
    };
    let plan = World::with(4, 1).plan(&care(Care::Safely));
    let way = plan.canary.as_ref().unwrap();
    assert_eq!(
        (plan.strategy, way.percentage, way.auto_promote),
        (Strategy::Canary, 10.0, true)
    );
    assert_eq!(way.promote_after, Some(Span::secs(900)));
    assert_eq!(way.promote_conditions, [errors(Comparison::Below, 0.01)]);
    assert_eq!(plan.rollback_conditions, [errors(Comparison::Above, 0.01)]);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    // Without a port no request is seen: health has to do.
    let plan = World::of(4, 1, None).plan(&care(Care::Safely));
    assert_eq!(plan.canary.unwrap().promote_conditions[0].metric, Signal::Healthy);
    assert!(plan.rollback_conditions.is_empty());
    // What is said in numbers stays.
    let said = Intent {
        promote_by_hand: true,
        rollback_if: vec![errors(Comparison::Above, 0.05)],
        ..care(Care::Safely)
    };
    let plan = World::with(4, 1).plan(&said);
    assert!(!plan.canary.unwrap().auto_promote);
    assert_eq!(plan.rollback_conditions, [errors(Comparison::Above, 0.05)]);
    let rolling = Intent {
        strategy: Some(Strategy::Rolling),
        ..care(Care::Safely)
    };
    assert_eq!(World::with(4, 1).plan(&rolling).strategy, Strategy::Rolling);

    let plan = World::with(4, 1).plan(&care(Care::Slowly));
    assert_eq!(
        (
            plan.rolling.max_surge,
            plan.rolling.max_unavailable,
            plan.rolling.pause_between
        ),
        (1, 0, Span::secs(30))
    );
    let plan = World::with(4, 1).plan(&care(Care::Quickly));
    assert_eq!(
        (plan.rolling.max_surge, plan.rolling.max_unavailable, plan.priority),
        (4, 0, Priority::Normal)
    );
    says(&plan.steps, "all at once, beside the old ones");
    let plan = World::with(4, 1).plan(&care(Care::Emergency));
    assert_eq!((plan.rolling.max_surge, plan.priority), (4, Priority::High));
}

#[test]
fn what_a_strategy_does_not_have_is_refused() {
    let with = |strategy, change: fn(&mut Intent)| {
        let mut intent = Intent {
            strategy: Some(strategy),
            ..to_version("v2")
        };
        change(&mut intent);
        intent
    };
    for (intent, words) in [
        (with(Strategy::Rolling, |i| i.canary_steps = vec![10.0]), "canary steps"),
        (
            with(Strategy::Rolling, |i| i.promote_after = Some(Span::secs(1))),
            "promotion",
        ),
        (with(Strategy::Immediate, |i| i.promote_by_hand = true), "promotion"),
        (
            with(Strategy::Canary, |i| i.keep_old_for = Some(Span::secs(1))),
            "old set",
        ),
        (
            with(Strategy::BlueGreen, |i| i.batch = Some(Batch::Count(1))),
            "batches",
        ),
        (
            with(Strategy::Immediate, |i| i.pause_between = Some(Span::secs(1))),
            "batches",
        ),
        (
            with(Strategy::Rolling, |i| {
                i.rollback_if = vec![errors(Comparison::Above, 5.0)]
            }),
            "0 % to 100 %",
        ),
        (
            with(Strategy::Rolling, |i| {
                i.rollback_if = vec![errors(Comparison::Above, f64::NAN)]
            }),
            "must be a number",
        ),
    ] {
        refused(&World::with(4, 1), &intent, ErrorCode::InvalidArgument, words);
    }
    let blind = Intent {
        rollback_if: vec![errors(Comparison::Above, 0.01)],
        ..to_version("v2")
    };
    says(&World::of(4, 1, None).plan(&blind).warnings, "its requests aren't seen");
    for (promql, warned) in [("sum(errors)", true), ("sum(errors{revision=\"$revision\"})", false)] {
        let asked = Intent {
            rollback_if: vec![Condition {
                metric: Signal::Query {
                    promql: promql.to_owned(),
                },
                operator: Comparison::Above,
                threshold: 5.0,
                window: None,
            }],
            ..blind.clone()
        };
        let warnings = World::of(4, 1, Some(80)).plan(&asked).warnings;
        assert_eq!(
            warnings
                .iter()
                .any(|warning| warning.contains("all revisions together")),
            warned,
            "{promql}: {warnings:?}"
        );
    }
}

// ---- deployments under way, and the way back

#[test]
fn another_deployment_is_superseded_and_said_so() {
    let mut world = World::with(4, 1);
    let coming = world.plan(&to_version("v2"));
    world.begin(coming, Phase::Canary);
    let plan = world.plan(&to_version("v3"));
    says(&plan.warnings, "supersedes dep-x (v2), which is canary");
    assert_eq!(
        change(&plan, "image"),
        Some((Some("reg:5000/x/y:v2"), "reg:5000/x/y:v3"))
    );
    says(&plan.steps, "makes revision 3 (v3)");
    let after = Intent {
        when: Some(When::After(DeploymentId::new("dep-x"))),
        ..to_version("v3")
    };
    let plan = world.plan(&after);
    assert!(plan.warnings.is_empty());
    says(&plan.steps, "waits until dep-x is complete");
    // Numbers wait for it.
    let scale = Intent {
        replicas: Some(Amount::To(8)),
        ..say(Verb::Scale)
    };
    refused(&world, &scale, ErrorCode::Conflict, "deploy promote dep-x");
    let after = Intent {
        when: Some(When::After(DeploymentId::new("dep-x"))),
        ..scale.clone()
    };
    assert_eq!(world.plan(&after).action, Action::Scale);
    // One number follows another.
    let mut world = World::with(4, 1);
    let coming = world.plan(&scale);
    world.begin(coming, Phase::Rolling);
    let more = Intent {
        replicas: Some(Amount::To(9)),
        ..say(Verb::Scale)
    };
    says(&world.plan(&more).warnings, "supersedes dep-x");
}

#[test]
fn the_way_back() {
    let back = |to: Option<&str>| Intent {
        back_to: to.map(str::to_owned),
        ..say(Verb::Rollback)
    };
    let mut world = World::with(4, 4);
    let bad = world.plan(&to_version("v5"));
    world.service().revisions[2].standing = Standing::Bad;
    let plan = world.plan(&back(None));
    assert_eq!(
        (plan.action, plan.to_revision, plan.version.as_deref()),
        (Action::Rollback, Some(2), Some("v2"))
    );
    assert_eq!((plan.image.as_str(), plan.replicas), ("reg:5000/x/y:v2", 4));
    assert_eq!(change(&plan, "revision"), Some((Some("4"), "2")));
    says(&plan.steps, "goes back to revision 2 (v2)");
    for word in ["v1", "1", "revision 1", "#1", "r1"] {
        assert_eq!(world.plan(&back(Some(word))).to_revision, Some(1), "{word}");
    }
    refused(
        &world,
        &back(Some("v4")),
        ErrorCode::Conflict,
        "runs revision 4 (v4) already",
    );
    refused(
        &world,
        &back(Some("v9")),
        ErrorCode::NotFound,
        "revision 1 (v1), revision 2 (v2)",
    );
    refused(&world, &back(Some("v3")), ErrorCode::Conflict, "--force");
    world.force = true;
    let plan = world.plan(&back(Some("v3")));
    assert_eq!(plan.to_revision, Some(3));
    says(&plan.warnings, "was rolled back itself");
    world.force = false;

    let canary = Intent {
        strategy: Some(Strategy::Canary),
        ..back(None)
    };
    refused(&world, &canary, ErrorCode::InvalidArgument, "never canary");
    let memory = Intent {
        memory: Some(Amount::To(Size::gib(9))),
        ..back(None)
    };
    refused(&world, &memory, ErrorCode::InvalidArgument, "as it was");
    let safely = Intent {
        care: Some(Care::Safely),
        ..back(None)
    };
    assert_eq!(world.plan(&safely).strategy, Strategy::Rolling);
    refused(&world, &say(Verb::Abort), ErrorCode::Conflict, "no deployment");

    // Having gone back once, back is further back, not forth again; and who says no more than "back" may have said it before.
    let mut gone = World::with(4, 4);
    gone.service().stable = Some(2);
    assert_eq!(gone.plan(&back(None)).to_revision, Some(1));
    gone.service().revisions[3].standing = Standing::Bad;
    refused(
        &gone,
        &back(None),
        ErrorCode::Conflict,
        "is back already: revision 4 (v4) was rolled back",
    );
    refused(&gone, &back(None), ErrorCode::Conflict, "--to VERSION");
    assert_eq!(gone.plan(&back(Some("v1"))).to_revision, Some(1));
    let mut going = World::with(4, 4);
    let plan = going.plan(&back(None));
    going.begin(plan, Phase::Rolling);
    refused(&going, &back(None), ErrorCode::Conflict, "on its way back already");

    let mut unproven = World::with(4, 1);
    unproven.service().stable = None;
    let scale = Intent {
        replicas: Some(Amount::To(8)),
        ..say(Verb::Scale)
    };
    refused(&unproven, &scale, ErrorCode::Conflict, "nothing to scale");

    // From what is under way, to what was stable.
    world.begin(bad, Phase::Canary);
    for verb in [Verb::Rollback, Verb::Abort] {
        let plan = world.plan(&say(verb));
        assert_eq!(plan.to_revision, Some(4), "{verb:?}");
        says(&plan.warnings, "supersedes dep-x");
    }
    world.under_way.as_mut().unwrap().course = Course::Back {
        why: String::new(),
        by: String::new(),
        immediate: false,
    };
    refused(&world, &back(None), ErrorCode::Conflict, "on its way back already");
    refused(&World::with(4, 1), &back(None), ErrorCode::Conflict, "no good revision");
}

#[test]
fn a_plan_says_what_it_stands_on() {
    let basis = |world: &World, intent: &Intent| world.plan(intent).basis.unwrap();
    let on = |revision, replicas, bounds| Basis {
        revision,
        replicas,
        bounds,
    };
    use Numbers::{ChangeOf, Kept, Said};
    let mut world = World::with(4, 2);
    assert_eq!(basis(&world, &to_version("v3")), on(Some(2), Kept, Kept));
    let counted = |replicas| Intent {
        replicas: Some(replicas),
        ..to_version("v3")
    };
    assert_eq!(basis(&world, &counted(Amount::To(6))), on(Some(2), Said, Kept));
    assert_eq!(
        basis(&world, &counted(Amount::Times(2.0))),
        on(Some(2), ChangeOf(4), Kept)
    );
    assert_eq!(basis(&world, &counted(Amount::More(1))), on(Some(2), ChangeOf(4), Kept));
    let bounded = Intent {
        max_replicas: Some(9),
        ..to_version("v3")
    };
    assert_eq!(basis(&world, &bounded), on(Some(2), Kept, Said));
    let coming = world.plan(&to_version("v3"));
    world.begin(coming, Phase::Canary);
    assert_eq!(basis(&world, &to_version("v4")).revision, Some(3));
    let first = Intent {
        image: Some("reg:5000/x/y:v1".to_owned()),
        ..say(Verb::Deploy)
    };
    assert_eq!(basis(&World::empty(), &first), on(None, Kept, Kept));
}

// ---- the seal

#[test]
fn a_seal_stands_for_the_plan_and_the_state() {
    let mut world = World::with(4, 2);
    let intent = to_version("v3");
    let first = world.plan(&intent);
    assert_eq!(first.digest.len(), 64);
    assert_eq!(world.plan(&intent).digest, first.digest);
    // What the fleet and measurements say changes nothing.
    let mut placed = first.clone();
    placed.placement.push(api::deploy::PlannedReplica {
        node: None,
        why: Some("full".to_owned()),
    });
    placed.warnings.push("mind".to_owned());
    placed.missing.push("a secret".to_owned());
    plan::seal(&mut placed, &world.facts());
    assert_eq!(placed.digest, first.digest);
    // Nor does being sent.
    let mut sent: Plan = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    plan::seal(&mut sent, &world.facts());
    assert_eq!(sent, first);
    // What will be done does, and so does what it is done to.
    let other = world.plan(&Intent {
        timeout: Some(Span::secs(60)),
        ..intent.clone()
    });
    assert_ne!(other.digest, first.digest);
    let reseal = |world: &World| {
        let mut plan = first.clone();
        plan::seal(&mut plan, &world.facts());
        plan.digest
    };
    world.service().replicas = 5;
    assert_ne!(reseal(&world), first.digest);
    world.service().replicas = 4;
    assert_eq!(reseal(&world), first.digest);
    world.service().revisions[1].standing = Standing::Bad;
    assert_ne!(reseal(&world), first.digest);
    world.service().revisions[1].standing = Standing::Good;
    world.service().stable = Some(1);
    assert_ne!(reseal(&world), first.digest);
    world.service().stable = Some(2);
    world.service().deployment = Some(DeploymentId::new("dep-y"));
    assert_ne!(reseal(&world), first.digest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_can_move(replicas in 1u32..=200, percent in 1u32..=100, steps in prop::collection::btree_set(1u32..100, 0..4)) {
        let world = World::with(replicas, 1);
        for batch in [None, Some(Batch::Percent(f64::from(percent))), Some(Batch::Count(percent))] {
            let plan = world.plan(&Intent { batch, ..to_version("v2") });
            let rolling = &plan.rolling;
            prop_assert!(rolling.max_surge + rolling.max_unavailable > 0);
            prop_assert!(rolling.max_surge <= replicas && rolling.max_unavailable < replicas.max(1));
            if batch.is_none() {
                // Kubernetes' rounding, in whole numbers.
                prop_assert_eq!(rolling.max_surge, replicas.div_ceil(4));
                prop_assert_eq!(rolling.max_unavailable, replicas / 4);
            }
        }
        let canary_steps: Vec<f64> = steps.into_iter().map(f64::from).collect();
        let canary = Intent { strategy: Some(Strategy::Canary), canary_steps, ..to_version("v2") };
        let plan = world.plan(&canary);
        let way = plan.canary.unwrap();
        prop_assert!(!way.steps.is_empty());
        prop_assert_eq!(way.effective_replicas, way.steps[0].replicas);
        prop_assert_eq!(way.percentage, way.steps[0].percentage);
        for pair in way.steps.windows(2) {
            prop_assert!(pair[0].percentage < pair[1].percentage && pair[0].replicas <= pair[1].replicas);
        }
        for step in &way.steps {
            prop_assert!(step.replicas >= 1 && (replicas == 1 || step.replicas < replicas));
            prop_assert!(step.effective_percentage > 0.0 && step.effective_percentage < 100.0);
        }
    }
}
