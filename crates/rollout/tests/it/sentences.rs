//! From the sentence to the plan, as far as both are read from outside.

use api::{
    DeploymentId, ErrorCode, Size, Span,
    deploy::{Action, Plan, Revision, Service, Standing, Strategy},
};
use rollout::{
    intent::{read, read_about},
    plan::{self, DEFAULT_TIMEOUT, Facts},
};
use serde_json::json;

use crate::corpus::{entries, now};

/// What is there of a name, and what the command line says beside the sentence.
fn plan(sentence: &str, service: Option<&Service>, image: Option<&str>) -> Result<Plan, api::ApiError> {
    let intent = read(sentence, &now()).unwrap().intent;
    let namespace = intent.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let facts = Facts {
        namespace: &namespace,
        ..facts(service, image)
    };
    plan::make(&intent, &facts)
}

/// What is there, and nothing else.
pub fn facts<'a>(service: Option<&'a Service>, image: Option<&'a str>) -> Facts<'a> {
    Facts {
        namespace: "default",
        now: now().timestamp(),
        service,
        under_way: None,
        workload: None,
        known: &["model-server", "inference"],
        image,
        template: None,
        marks: None,
        timeout: None,
        default_timeout: DEFAULT_TIMEOUT,
        memory_used: None,
        force: false,
    }
}

/// A service with a port, 4 replicas, and the revisions v1 and v2, both good.
pub fn service(name: &str) -> Service {
    let mut service: Service = serde_json::from_value(json!({
        "name": name, "namespace": "default", "owner": "ada", "createdAt": now().timestamp(), "revisions": [],
        "replicas": 4, "members": [], "weights": {},
    }))
    .unwrap();
    for number in 1..=2 {
        let said = format!("deploy {name} v{number} with 4 replicas and 8Gi memory on port 8080");
        let base = (number > 1).then_some(&service);
        let made = plan(&said, base, Some(&format!("reg/{name}"))).unwrap();
        service.revisions.push(Revision {
            number,
            version: made.version,
            spec: made.spec,
            marks: made.marks,
            created_at: now().timestamp(),
            created_by: "ada".to_owned(),
            deployment: DeploymentId::new(format!("dep-{number}")),
            standing: Standing::Good,
        });
        service.stable = Some(number);
    }
    service
}

fn on(name: &str, sentence: &str) -> Plan {
    plan(sentence, Some(&service(name)), None).unwrap()
}

#[test]
fn a_sentence_that_names_nothing_is_about_what_its_manifest_names() {
    let target = |sentence: &str, about: Option<&str>| read_about(sentence, &now(), about).map(|r| r.intent.target);
    for sentence in [
        "deploy",
        "deploy with 3 replicas, canary 10%",
        "deploy v2 at 2am",
        "deploy image reg/other:v1",
    ] {
        assert_eq!(
            target(sentence, Some("model-server")).unwrap(),
            "model-server",
            "{sentence}"
        );
    }
    assert_eq!(
        target("deploy inference v2", Some("model-server")).unwrap(),
        "inference"
    );
    assert_eq!(target("deploy image reg/other:v1", None).unwrap(), "other");
    for sentence in ["deploy", "deploy with 3 replicas"] {
        assert!(target(sentence, None).is_err(), "{sentence}");
    }
    // Nothing else is let through for it.
    assert!(target("deploy frobnicate nothing", Some("model-server")).is_err());
}

#[test]
fn the_reference_s_examples_become_plans() {
    let made = plan(
        "deploy pytorch-train with 4 GPUs, canary 10% first",
        None,
        Some("reg/train:1"),
    )
    .unwrap();
    assert_eq!(
        (made.action, made.resources.gpus, made.replicas, made.batch),
        (Action::Deploy, 4, 1, false)
    );
    assert!(
        made.missing.is_empty() && made.warnings.len() == 1,
        "{:?}",
        made.warnings
    );

    let made = on("model-server", "update model-server to v2.1, rollback if errors > 1%");
    assert_eq!(
        (made.action, made.image.as_str()),
        (Action::Update, "reg/model-server:v2.1")
    );
    assert_eq!((made.strategy, made.rollback_conditions.len()), (Strategy::Rolling, 1));
    assert_eq!(
        made.steps.last().unwrap(),
        "goes back to revision 2 (v2) if error rate > 1 %"
    );

    let made = on("inference", "scale inference to 8 replicas");
    assert_eq!((made.action, made.replicas, made.steps.len()), (Action::Scale, 8, 1));

    let made = on(
        "api-server",
        "blue-green deploy api-server v3.0, switch after health check",
    );
    assert!(made.blue_green.unwrap().auto_switch);
    assert_eq!(made.strategy, Strategy::BlueGreen);

    let made = on("data-processor", "increase memory for data-processor to 64Gi");
    assert_eq!(
        (made.action, made.resources.memory),
        (Action::Update, Some(Size::gib(64)))
    );

    let night = "deploy new-model at 2am with 5% canary, promote after 1 hour if healthy";
    let there = service("new-model");
    let made = plan(night, Some(&there), Some("reg/new-model:v3")).unwrap();
    assert_eq!(made.schedule.unwrap().timezone.as_deref(), Some("Europe/Berlin"));
    let same = plan(night, Some(&there), None).unwrap_err();
    assert_eq!(same.code, ErrorCode::Conflict);
    assert!(same.hint.unwrap().contains("--image"));
    let canary = made.canary.unwrap();
    assert_eq!(
        (canary.percentage, canary.effective_replicas, canary.auto_promote),
        (5.0, 1, true)
    );
    assert_eq!(canary.promote_after, Some(Span::secs(3600)));

    let made = on(
        "model-server",
        "canary 10% model-server v2.5, promote after 15m if error_rate < 0.5%",
    );
    let canary = made.canary.unwrap();
    assert_eq!(
        (canary.promote_conditions[0].threshold, canary.auto_promote),
        (0.005, true)
    );

    let job = "deploy pytorch-trainer with 8 A100 GPUs, priority high, timeout 48h";
    let made = plan(job, None, Some("reg/train:1")).unwrap();
    assert!(made.batch);
    assert_eq!(
        (made.resources.gpus, made.resources.gpu_type.as_deref()),
        (8, Some("A100"))
    );

    let made = on("model-server", "something's wrong, roll back model-server");
    assert_eq!((made.action, made.to_revision), (Action::Rollback, Some(1)));
}

/// Whatever can be read is planned or refused with a reason, whatever is there; nothing falls over.
#[test]
fn every_sentence_is_planned_or_refused_with_a_reason() {
    let mut planned = 0;
    for entry in entries() {
        let Ok(reading) = read(&entry.sentence, &now()) else {
            continue;
        };
        let there = service("placeholder");
        let there = Service {
            name: reading.intent.target.clone(),
            ..there
        };
        for (service, image) in [
            (None, None),
            (None, Some("reg/x:1")),
            (Some(&there), None),
            (Some(&there), Some("host")),
        ] {
            match plan(&entry.sentence, service, image) {
                Ok(made) => {
                    planned += 1;
                    let place = &entry.place;
                    assert!(made.replicas >= 1 && made.digest.len() == 64, "{place}");
                    assert!(!made.steps.is_empty(), "{place}");
                    assert_eq!(
                        made.image.is_empty(),
                        made.image.is_empty() && !made.missing.is_empty(),
                        "{place}"
                    );
                    assert_eq!(made.strategy == Strategy::Canary, made.canary.is_some(), "{place}");
                    assert_eq!(
                        made.strategy == Strategy::BlueGreen,
                        made.blue_green.is_some(),
                        "{place}"
                    );
                    assert!(!made.changes.is_empty() || made.batch, "{place}: {}", entry.sentence);
                    let sent: Plan = serde_json::from_str(&serde_json::to_string(&made).unwrap()).unwrap();
                    assert_eq!(sent, made, "{place}");
                }
                Err(error) => {
                    let code = error.code;
                    let known = [ErrorCode::InvalidArgument, ErrorCode::NotFound, ErrorCode::Conflict];
                    assert!(known.contains(&code), "{}: {error:?}", entry.place);
                    assert!(!error.message.is_empty(), "{}", entry.place);
                }
            }
        }
    }
    assert!(planned > 0);
}
