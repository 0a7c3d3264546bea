//! A small fleet with services, on a real store: what tests of deployments stand on.

use std::sync::Arc;

use api::{
    DeploymentId, NodeName, Span, Timestamp, WorkloadId,
    deploy::{Deployment, Plan, Replica, Service},
    node::Reach,
    op::Submission,
    wire::Seen,
    workload::{HealthCheck, JobKey, Member, MemberState, Probe, Workload, WorkloadSpec},
};
use jiff::tz::TimeZone;
use rollout::{drive, intent, plan};
use store::{Change, Order, Range, Store, embedded::Options};

use crate::{
    decide::{nodes::joined, submit},
    draft::Draft,
    lifecycle::{self, Step},
    view::{Versioned, View},
};

/// A moment of the gateway's clock, in seconds.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// What a replica runs: it says when it is ready.
pub fn spec() -> WorkloadSpec {
    WorkloadSpec {
        image: "web:1".to_owned(),
        restart: api::workload::RestartPolicy::Always,
        readiness: Some(HealthCheck {
            probe: Probe::Tcp(80),
            interval: Span::secs(1),
            timeout: Span::secs(1),
            failures: 1,
        }),
        ..WorkloadSpec::default()
    }
}

/// A replica, waiting.
pub fn replica(number: u64) -> Workload {
    let submission = Submission {
        name: Some(format!("web-1-{number}")),
        spec: spec(),
        ..Submission::default()
    };
    submit::workload(submission, number, "ada", at(0)).unwrap()
}

/// Bound to a node.
pub fn bound(w: &Workload, node: &str, second: i64) -> Workload {
    let member = Member {
        rank: 0,
        node: NodeName::new(node),
        gpus: Vec::new(),
        state: MemberState::Assigned,
    };
    lifecycle::bind(w, vec![member], at(second)).unwrap().workload
}

/// Its node says something, which the gateway hears then.
pub fn told(w: &Workload, seen: &Seen, second: i64) -> Workload {
    observed(w, seen, second).workload
}

fn observed(w: &Workload, seen: &Seen, second: i64) -> Step {
    let job = JobKey {
        workload: w.id.clone(),
        attempt: w.attempt,
        rank: 0,
    };
    lifecycle::observe(w, &w.members[0].node, &job, seen, at(second)).unwrap()
}

/// It runs on a node, whose clock shows something else.
pub fn started(w: &Workload, node: &str, second: i64, by_node: i64) -> Workload {
    let begun = Seen::Started {
        at: at(by_node),
        endpoints: Vec::new(),
    };
    told(&bound(w, node, second), &begun, second)
}

/// It says that it is ready, or isn't.
pub fn readiness(w: &Workload, ready: bool, second: i64) -> Workload {
    let why = (!ready).then(|| "it answered 503".to_owned());
    told(w, &Seen::Readiness { ready, why }, second)
}

/// A service `web` of one revision, planned by a sentence, and its first deployment, under way.
pub fn service(members: &[&Workload]) -> (Service, Deployment) {
    let plan = planned("deploy web:1 as web with 2 replicas");
    let begun = drive::request(request("dep-1", &plan), at(0));
    let bare = drive::service(&plan, "ada", None, at(0));
    let step = drive::begin(&begun, &bare, None, None, at(0)).unwrap();
    let (mut service, deployment) = (step.service.unwrap(), step.deployment.unwrap());
    service.members = members.iter().map(|w| member(&w.id)).collect();
    (service, deployment)
}

fn member(workload: &WorkloadId) -> Replica {
    Replica {
        workload: workload.clone(),
        revision: 1,
        since: at(0),
        retiring: None,
        stopped: None,
    }
}

/// What is asked for, by this id.
pub fn request(id: &str, plan: &Plan) -> drive::Request {
    drive::Request {
        id: DeploymentId::new(id),
        intent: "a test".to_owned(),
        read_by: None,
        plan: Arc::new(plan.clone()),
        by: "user:ada".to_owned(),
        reason: None,
        immediate: false,
    }
}

/// A sentence's plan where nothing is yet.
pub fn planned(sentence: &str) -> Plan {
    let reading = intent::read(sentence, &at(0).to_zoned(TimeZone::UTC)).unwrap();
    let facts = plan::Facts {
        namespace: "default",
        now: at(0),
        service: None,
        under_way: None,
        workload: None,
        known: &[],
        image: Some("web:1"),
        template: None,
        marks: None,
        timeout: None,
        default_timeout: plan::DEFAULT_TIMEOUT,
        memory_used: None,
        force: false,
    };
    plan::make(&reading.intent, &facts).unwrap()
}

/// Records on a real store.
pub struct Stage {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Nodes, online.
    pub async fn of(nodes: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("state"), Options::default()).unwrap();
        let stage = Self { store, _folder: folder };
        let mut draft = Draft::new();
        for name in nodes {
            let (mut node, _) = joined(&NodeName::new(*name), String::new(), "test", at(0));
            node.reach = Reach::Online;
            draft.put_node(None, &node);
        }
        assert!(stage.commit(draft).await);
        stage
    }

    /// Whether it could be committed.
    pub async fn commit(&self, draft: Draft) -> bool {
        self.store.txn(draft.finish()).await.unwrap().committed().is_some()
    }

    /// All that is committed.
    pub async fn view(&self) -> View {
        let mut view = View::default();
        let all = self
            .store
            .range(Range::all(), usize::MAX, Order::Ascending)
            .await
            .unwrap();
        for record in all.records {
            view.apply(&Change::Put(record)).unwrap();
        }
        view.reached(all.revision);
        view
    }

    /// A node is heard of no more, or anew.
    pub async fn reach(&self, node: &str, reach: Reach, second: i64) {
        let view = self.view().await;
        let seen = view.node(&NodeName::new(node)).unwrap();
        let mut node = seen.value.as_ref().clone();
        (node.reach, node.reach_since) = (reach, at(second));
        let mut draft = Draft::new();
        draft.put_node(Some(seen.revision), &node);
        assert!(self.commit(draft).await);
    }

    /// Writes replicas, their service and its deployment.
    pub async fn put(&self, replicas: &[&Workload], service: &Service, deployment: &Deployment) {
        let mut draft = Draft::new();
        for replica in replicas {
            draft.create_workload(replica, Vec::new());
        }
        draft.put_service(None, service);
        draft.put_deployment(None, deployment);
        assert!(self.commit(draft).await);
    }

    /// A node says something of a replica.
    pub async fn hear(&self, id: &WorkloadId, seen: &Seen, second: i64) {
        let view = self.view().await;
        let before = view.workload(id).unwrap();
        let mut draft = Draft::new();
        draft.step(before, observed(before, seen, second));
        assert!(self.commit(draft).await);
    }
}

/// The service of a view.
pub fn web(view: &View) -> &Versioned<Service> {
    view.service(&("default".to_owned(), "web".to_owned())).unwrap()
}

/// Its first deployment.
pub fn first(view: &View) -> &Versioned<Deployment> {
    view.deployment(&DeploymentId::new("dep-1")).unwrap()
}
