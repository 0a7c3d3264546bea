//! A fleet of replicas, the records, and an executor that carries steps out and checks each of them.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    DeploymentId, ErrorCode, Span, Timestamp, WorkloadId,
    deploy::{
        Action, BlueGreen, Canary, CanaryStep, Comparison, Condition, Course, Deployment, Evidence, Marks, Outcome,
        Phase, Plan, Purpose, Resources, Rolling, Sample, Service, Signal, Standing, Strategy, Verdict,
    },
    time::{after, between},
    workload::{Priority, WorkloadSpec},
};
use rollout::drive::{self, MIN_READY, Question, Request, Seen, SeenReplica, State, Step};

/// A replica's workload, as the node would tell of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) revision: u32,
    pub(crate) state: State,
    pub(crate) in_flight: u64,
    /// It was told to end.
    pub(crate) stopping: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) service: Service,
    /// By the order in which they were asked for.
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) pods: BTreeMap<WorkloadId, Pod>,
    pub(crate) verdicts: Vec<Verdict>,
    /// When the executor is to look again.
    pub(crate) due: Option<Timestamp>,
    /// What conditions for going on, and for going back, are found to be. `None`: nobody judges.
    pub(crate) found: Option<(Outcome, Outcome)>,
    made: u64,
}

pub(crate) fn start() -> Timestamp {
    "2026-02-16T02:00:00Z".parse().unwrap()
}

pub(crate) fn plan(strategy: Strategy, replicas: u32) -> Plan {
    Plan {
        action: Action::Update,
        workload: "web".into(),
        namespace: "default".into(),
        batch: false,
        version: None,
        image: "web".into(),
        replicas,
        resources: Resources::default(),
        priority: Priority::Normal,
        timeout: Some(Span::secs(600)),
        strategy,
        canary: None,
        blue_green: None,
        rolling: Rolling {
            max_unavailable: 0,
            max_surge: 1,
            pause_between: Span(0),
        },
        rollback_conditions: Vec::new(),
        autoscale: None,
        schedule: None,
        spec: Arc::new(WorkloadSpec::default()),
        marks: Marks::default(),
        to_revision: None,
        basis: None,
        changes: Vec::new(),
        steps: Vec::new(),
        placement: Vec::new(),
        warnings: Vec::new(),
        missing: Vec::new(),
        digest: String::new(),
    }
}

pub(crate) fn errors(threshold: f64, operator: Comparison) -> Condition {
    Condition {
        metric: Signal::ErrorRate,
        operator,
        threshold,
        window: None,
    }
}

/// A canary of these steps: percent and replicas.
pub(crate) fn canary(replicas: u32, steps: &[(f64, u32)], auto_promote: bool) -> Plan {
    let steps: Vec<CanaryStep> = steps
        .iter()
        .map(|&(percentage, n)| CanaryStep {
            percentage,
            replicas: n,
            effective_percentage: f64::from(n) * 100.0 / f64::from(replicas + n),
        })
        .collect();
    let rollback_conditions = vec![errors(0.01, Comparison::Above)];
    Plan {
        canary: Some(Canary {
            percentage: steps[0].percentage,
            effective_replicas: steps[0].replicas,
            steps,
            auto_promote,
            promote_after: Some(Span::secs(120)),
            promote_conditions: vec![errors(0.005, Comparison::Below)],
            rollback_conditions: rollback_conditions.clone(),
        }),
        rollback_conditions,
        ..plan(Strategy::Canary, replicas)
    }
}

pub(crate) fn blue_green(replicas: u32, auto_switch: bool) -> Plan {
    Plan {
        blue_green: Some(BlueGreen {
            check_for: Span::secs(10),
            auto_switch,
            keep_old_for: Span::secs(300),
        }),
        ..plan(Strategy::BlueGreen, replicas)
    }
}

impl World {
    /// A service without revisions.
    pub(crate) fn empty(replicas: u32) -> Self {
        Self {
            now: start(),
            service: drive::service(&plan(Strategy::Rolling, replicas), "ada", None, start()),
            deployments: Vec::new(),
            pods: BTreeMap::new(),
            verdicts: Vec::new(),
            due: None,
            found: Some((Outcome::Pass, Outcome::Pass)),
            made: 0,
        }
    }

    /// A service whose first revision is there and good.
    pub(crate) fn new(replicas: u32) -> Self {
        let mut world = Self::empty(replicas);
        world.deploy(plan(Strategy::Rolling, replicas));
        world.settle();
        assert_eq!(world.last().phase, Phase::Complete, "{:#?}", world.last().timeline);
        assert_eq!(world.service.stable, Some(1));
        world
    }

    pub(crate) fn last(&self) -> &Deployment {
        self.deployments.last().unwrap()
    }

    /// Asks for a deployment, and begins it where it may begin now.
    pub(crate) fn deploy(&mut self, plan: Plan) {
        let asked = self.ask(plan);
        let under_way = self.under_way().cloned();
        let step = drive::begin(&asked, &self.service, under_way.as_ref(), None, self.now).unwrap();
        self.deployments.push(asked);
        self.apply(step);
        self.run();
    }

    /// Puts a deployment on record that `step` begins.
    pub(crate) fn begin(&mut self, asked: Deployment, step: Step) {
        self.deployments.push(asked);
        self.apply(step);
    }

    pub(crate) fn ask(&mut self, plan: Plan) -> Deployment {
        self.made += 1;
        let asked = Request {
            id: DeploymentId::new(format!("dep-{}", self.made)),
            intent: String::new(),
            read_by: None,
            plan: Arc::new(plan),
            by: "ada".into(),
            reason: None,
            immediate: false,
        };
        drive::request(asked, self.now)
    }

    pub(crate) fn under_way(&self) -> Option<&Deployment> {
        let id = self.service.deployment.as_ref()?;
        self.deployments.iter().find(|deployment| deployment.id == *id)
    }

    pub(crate) fn seen_replicas(&self) -> Vec<SeenReplica> {
        let seen = |(workload, pod): (&WorkloadId, &Pod)| SeenReplica {
            workload: workload.clone(),
            state: pod.state.clone(),
            in_flight: pod.in_flight,
        };
        self.pods.iter().map(seen).collect()
    }

    fn decide(&self) -> Step {
        let replicas = self.seen_replicas();
        // One that waits is looked at as well; here there is at most one.
        let mut waiting = self.deployments.iter().filter(|of| of.phase == Phase::Pending);
        let Some(deployment) = self.under_way().or_else(|| waiting.next()) else {
            return drive::steady(&self.service, &replicas, self.now);
        };
        drive::step(&self.seen(deployment, &replicas))
    }

    pub(crate) fn seen<'a>(&'a self, deployment: &'a Deployment, replicas: &'a [SeenReplica]) -> Seen<'a> {
        let after = deployment
            .plan
            .schedule
            .as_ref()
            .and_then(|schedule| schedule.after.as_ref());
        Seen {
            now: self.now,
            deployment,
            service: &self.service,
            under_way: self.under_way().filter(|other| other.id != deployment.id),
            after: after.and_then(|id| Some(self.deployments.iter().find(|other| other.id == *id)?.phase)),
            replicas,
            verdicts: &self.verdicts,
        }
    }

    pub(crate) fn questions(&self) -> Vec<Question> {
        let replicas = self.seen_replicas();
        self.under_way().map_or(Vec::new(), |deployment| {
            drive::questions(&self.seen(deployment, &replicas))
        })
    }

    /// Answers what is asked: the conditions for going on with one, those for going back with the other.
    pub(crate) fn judge(&mut self, promote: Outcome, rollback: Outcome) {
        let answers: Vec<Verdict> = self
            .questions()
            .into_iter()
            .map(|question| answer(question, promote, rollback))
            .collect();
        self.verdicts = answers;
    }

    /// One step; false: there was nothing to do. What was decided is checked, and that it decides nothing more.
    pub(crate) fn run(&mut self) -> bool {
        let step = self.decide();
        self.due = step.look_again;
        let idle = step.is_idle();
        // What comes after the end is another's step.
        let over = step
            .deployment
            .as_ref()
            .is_some_and(|deployment| deployment.phase.ended());
        self.check(&step);
        self.apply(step);
        if !idle && !over {
            let again = self.decide();
            assert!(
                again.is_idle(),
                "it isn't done with a step: {}\n{}",
                tell(&again),
                self.tell()
            );
            self.due = again.look_again;
        }
        if over {
            self.verdicts.clear();
            self.run();
            return true;
        }
        self.verdicts.clear();
        !idle
    }

    /// In short.
    pub(crate) fn tell(&self) -> String {
        let of = self.last();
        let members: Vec<String> = self
            .service
            .members
            .iter()
            .map(|member| {
                let state = self.pods.get(&member.workload).map(|pod| &pod.state);
                format!(
                    "{} r{} {state:?} {:?} {:?}",
                    member.workload, member.revision, member.retiring, member.stopped
                )
            })
            .collect();
        format!(
            "at {}: {} {:?} step {} since {:?} hold {:?} promotion {:?} deadline {:?}: {:?}\n{members:#?}\nweights {:?} stable {:?} of {} setbacks {:?}",
            self.now,
            of.id,
            of.phase,
            of.step,
            of.step_since,
            of.hold,
            of.promotion,
            of.deadline,
            of.message,
            self.service.weights,
            self.service.stable,
            self.service.replicas,
            self.service.setbacks,
        )
    }

    fn apply(&mut self, mut step: Step) {
        let starts: Vec<u32> = step
            .start
            .iter()
            .flat_map(|&(revision, n)| (0..n).map(move |_| revision))
            .collect();
        for revision in starts {
            self.made += 1;
            let id = WorkloadId::new(format!("wl-{:06}", self.made));
            assert!(step.service.is_some(), "replicas without a record: {step:?}");
            step.enlist(id.clone(), revision, self.now);
            let pod = Pod {
                revision,
                state: State::Starting,
                in_flight: 0,
                stopping: false,
            };
            self.pods.insert(id, pod);
        }
        for stop in &step.stop {
            self.pods
                .get_mut(&stop.workload)
                .expect("a replica that is stopped is there")
                .stopping = true;
        }
        for changed in [step.superseded, step.deployment].into_iter().flatten() {
            let known = self
                .deployments
                .iter_mut()
                .find(|known| known.id == changed.id)
                .expect("it is known");
            assert!(!known.phase.ended(), "{} has ended and changes: {changed:#?}", known.id);
            *known = changed;
        }
        if let Some(service) = step.service {
            self.service = service;
        }
        self.forget();
        self.consistent();
    }

    /// Ended replicas that no record names any more.
    fn forget(&mut self) {
        let members = &self.service.members;
        self.pods.retain(|id, pod| {
            !matches!(pod.state, State::Ended { .. }) || members.iter().any(|member| member.workload == *id)
        });
    }

    /// A person's act on the deployment under way.
    pub(crate) fn act(
        &mut self,
        act: impl FnOnce(&Deployment, Timestamp) -> Result<Deployment, api::ApiError>,
    ) -> bool {
        let Some(deployment) = self.under_way() else {
            return false;
        };
        let Ok(changed) = act(deployment, self.now) else {
            return false;
        };
        assert_eq!(changed.id, deployment.id);
        let known = self
            .deployments
            .iter_mut()
            .find(|known| known.id == changed.id)
            .unwrap();
        *known = changed;
        true
    }

    /// Lets replicas come up and end as they should, judges, and lets time pass, until nothing is due.
    pub(crate) fn settle(&mut self) {
        for _ in 0..400 {
            if !self.breathe(|_| true) && self.due.is_none() {
                return;
            }
        }
        panic!("it never comes to rest: {:?}\n{:?}", self.last(), self.service.members);
    }

    /// One round of what should happen to replicas that `well` names; those told to end do. Then a step, and time to the next.
    pub(crate) fn breathe(&mut self, well: impl Fn(u32) -> bool) -> bool {
        let now = self.now;
        for pod in self.pods.values_mut() {
            pod.in_flight = 0;
            if pod.stopping {
                pod.state = ended("stopped");
            } else if well(pod.revision) && !matches!(pod.state, State::Ready { .. } | State::Ended { .. }) {
                pod.state = State::Ready { since: now };
            }
        }
        if let Some((promote, rollback)) = self.found {
            self.judge(promote, rollback);
        }
        let did = self.run();
        // Time passes where nothing else is about to happen.
        let moves = |pod: &Pod| match pod.state {
            State::Ended { .. } => false,
            State::Ready { .. } => pod.stopping,
            _ => pod.stopping || well(pod.revision),
        };
        if let Some(due) = self.due.filter(|_| !self.pods.values().any(moves)) {
            self.now = due;
        }
        did
    }

    /// Lets all go well until something is so.
    pub(crate) fn until(&mut self, so: impl Fn(&Self) -> bool) {
        for _ in 0..400 {
            if so(self) {
                return;
            }
            self.breathe(|_| true);
        }
        panic!("it never comes so: {:?}", self.last());
    }

    /// Lets time pass, with steps whenever one is due. Replicas come up and end as they should.
    pub(crate) fn pass(&mut self, span: Span) {
        let end = after(self.now, span);
        for _ in 0..10_000 {
            if self.now >= end {
                break;
            }
            let did = self.breathe(|_| true);
            self.now = match self.due {
                None if !did => end,
                _ => self.now.min(end),
            };
        }
        assert_eq!(self.now, end, "time stands still");
        self.run();
    }

    pub(crate) fn ready(&self, revision: u32) -> u32 {
        let members = self
            .service
            .members
            .iter()
            .filter(|member| member.revision == revision && member.retiring.is_none());
        members
            .filter(|member| matches!(self.pods[&member.workload].state, State::Ready { .. }))
            .count() as u32
    }

    fn settled(&self, service: &Service) -> u32 {
        let living = service.members.iter().filter(|member| member.retiring.is_none());
        let settled = living.filter(|member| match self.pods.get(&member.workload).map(|pod| &pod.state) {
            Some(State::Ready { since }) => between(*since, self.now) >= MIN_READY,
            _ => false,
        });
        settled.count() as u32
    }

    /// Whether a step keeps its promises.
    fn check(&self, step: &Step) {
        let Some(service) = &step.service else {
            assert!(
                step.start.is_empty() && step.retire.is_empty() && step.stop.is_empty(),
                "effects without a record"
            );
            return;
        };
        let deployment = step.deployment.as_ref().or(self.under_way());
        let n = service.replicas.max(1);
        let waits = service.members.iter().any(|member| {
            matches!(
                self.pods.get(&member.workload).map(|pod| &pod.state),
                Some(State::Waiting { .. })
            )
        });
        // How many settled replicas there are to be, as far as there were.
        let floor = match deployment {
            None if service.stable.is_none() => 0,
            None if waits => 1,
            None => n,
            Some(of) if of.plan.strategy == Strategy::Immediate && of.plan.action != Action::Scale => 0,
            Some(of) => match &of.course {
                Course::Back { .. } if of.from.is_none() => 0,
                Course::Back { .. } if waits => 1,
                Course::Back { .. } => n,
                Course::Forward => {
                    let least = of.plan.replicas.min(of.replicas_before.max(1)).min(n);
                    least
                        .saturating_sub(of.plan.rolling.max_unavailable)
                        .max(of.plan.rolling.max_surge.min(1))
                }
            },
        };
        let (was, is) = (self.settled(&self.service), self.settled(service));
        assert!(
            is >= floor.min(was),
            "{is} settled of {was}, and the floor is {floor}: {}\n{}",
            tell(step),
            self.tell()
        );
        // How many exist.
        let starts: u32 = step.start.iter().map(|(_, n)| n).sum();
        if let (Some(of), true) = (deployment, starts > 0) {
            let exist = service.members.len() as u32 + starts;
            let plan = &of.plan;
            let old = of.replicas_before.max(service.replicas).max(plan.replicas);
            let extra = match plan.strategy {
                Strategy::BlueGreen => plan.replicas.max(service.replicas),
                Strategy::Canary => of.canary_steps.iter().map(|step| step.replicas).max().unwrap_or(1),
                Strategy::Rolling => 1,
                Strategy::Immediate => 0,
            };
            let extra = extra.max(plan.rolling.max_surge);
            let hasty = plan.action == Action::Rollback || of.course != Course::Forward || plan.action == Action::Scale;
            if !hasty && of.plan.strategy != Strategy::Immediate {
                assert!(
                    exist <= old + extra,
                    "{exist} exist of {old} and {extra}: {}\n{}",
                    tell(step),
                    self.tell()
                );
            }
            for (revision, n) in &step.start {
                let living = service
                    .members
                    .iter()
                    .filter(|member| member.revision == *revision && member.retiring.is_none());
                assert!(
                    living.count() as u32 + n <= old,
                    "too many of {revision}: {}\n{}",
                    tell(step),
                    self.tell()
                );
            }
        }
        // Requests go where they are answered.
        let ready = |revision: u32| {
            let members = service.members.iter();
            let living = members.filter(|member| member.revision == revision && member.retiring.is_none());
            living
                .filter(|member| matches!(self.pods[&member.workload].state, State::Ready { .. }))
                .count()
        };
        let revisions = service.revisions.iter().map(|revision| revision.number);
        let serving: Vec<u32> = revisions.filter(|revision| ready(*revision) > 0).collect();
        if !serving.is_empty() && deployment.is_none_or(|of| !of.phase.ended() || of.phase == Phase::Complete) {
            assert!(
                !service.weights.is_empty(),
                "nobody gets requests: {}\n{}",
                tell(step),
                self.tell()
            );
            for revision in service.weights.keys() {
                assert!(
                    serving.contains(revision),
                    "requests go to {revision}, of which none is ready: {}\n{}",
                    tell(step),
                    self.tell()
                );
            }
        }
        if let Some(of) = deployment
            && let (Course::Back { .. }, Some(from)) = (&of.course, of.from)
            && ready(from) >= n.saturating_sub(of.plan.rolling.max_unavailable).max(1) as usize
        {
            assert_eq!(
                service.weights.keys().copied().collect::<Vec<_>>(),
                [from],
                "going back: {}\n{}",
                tell(step),
                self.tell()
            );
        }
    }

    /// Whether the records fit each other.
    fn consistent(&self) {
        let begun = |deployment: &&Deployment| !deployment.phase.ended() && deployment.started_at.is_some();
        let under_way: Vec<&DeploymentId> = self.deployments.iter().filter(begun).map(|of| &of.id).collect();
        assert_eq!(
            under_way,
            self.service.deployment.iter().collect::<Vec<_>>(),
            "deployments under way"
        );
        if let Some(stable) = self.service.stable {
            let revision = self.service.revision(stable).expect("the stable revision is kept");
            assert_ne!(revision.standing, Standing::New, "the stable revision");
        }
        for member in &self.service.members {
            assert!(
                self.service.revision(member.revision).is_some(),
                "a replica without its revision"
            );
        }
        for deployment in &self.deployments {
            assert_eq!(
                deployment.phase.ended(),
                deployment.finished_at.is_some(),
                "{deployment:#?}"
            );
            if deployment.phase == Phase::Complete
                && let Some(last) = self.deployments.last()
                && last.id == deployment.id
                && let Some(revision) = deployment.revision
            {
                assert_eq!(self.service.stable, Some(revision));
            }
        }
    }
}

/// A step in short.
fn tell(step: &Step) -> String {
    let deployment = step.deployment.as_ref().map(|of| {
        (
            of.phase,
            of.step,
            of.step_since,
            of.message.clone(),
            of.promotion.clone(),
        )
    });
    let service = step
        .service
        .as_ref()
        .map(|of| (&of.weights, of.members.len(), of.stable, of.replicas, &of.setbacks));
    format!(
        "{deployment:?} {service:?} start {:?} retire {:?} stop {:?}",
        step.start, step.retire, step.stop
    )
}

pub(crate) fn ended(why: &str) -> State {
    State::Ended {
        why: why.into(),
        code: None,
        hopeless: false,
    }
}

pub(crate) fn hopeless() -> State {
    State::Ended {
        why: "no such image: web:v2".into(),
        code: Some(ErrorCode::ImageNotFound),
        hopeless: true,
    }
}

pub(crate) fn answer(question: Question, promote: Outcome, rollback: Outcome) -> Verdict {
    let outcome = match question.purpose {
        Purpose::Promote => promote,
        Purpose::Rollback => rollback,
    };
    Verdict {
        at: question.to,
        outcome,
        message: format!("errors: {outcome:?}"),
        method: "as the test says".into(),
        evidence: Evidence {
            condition: question.condition,
            purpose: question.purpose,
            from: question.from,
            to: question.to,
            query: String::new(),
            subject: Sample {
                count: 100,
                failed: Some(0),
                value: Some(0.0),
            },
            baseline: None,
            error: None,
        },
    }
}
