//! Deployments and services.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, DeploymentId, NodeName, Span, Timestamp, WorkloadId,
    deploy::{Action, Autoscale, Marks, Moment, Phase, Plan, ServiceProtocol, Standing, Strategy, Verdict},
    workload::WorkloadSpec,
};

/// A sentence, and what goes with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanRequest {
    /// What is asked for, in words.
    pub intent: String,
    /// Where it is asked. `null`: `default`; a namespace in the sentence wins.
    pub namespace: Option<String>,
    /// The zone in which times of day are meant, as `Europe/Berlin`. `null`: UTC.
    pub timezone: Option<String>,
    /// The image. `null`: the sentence's, or the one before with the version as its tag.
    pub image: Option<String>,
    /// What a replica runs, from a manifest; the sentence changes what it names. `null`: as before.
    pub template: Option<WorkloadSpec>,
    /// What replicas are marked with, from a manifest. `null`: as before.
    pub marks: Option<Marks>,
    /// The name that a manifest gives: what a sentence is about that names nothing. `null`: the sentence must name it.
    pub name: Option<String>,
    /// By when it must be done. `null`: 30 minutes.
    pub timeout: Option<Span>,
}

/// What a sentence was understood to mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The sentence as it was understood, in the grammar's own words.
    pub understood: String,
    /// The model that read it. `null`: the grammar did.
    pub read_by: Option<String>,
    /// What it would do.
    pub plan: Plan,
}

/// A sentence that is to be carried out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ApplyRequest {
    /// What is asked for. Words that only a model can read are refused: its reading is shown first, and then asked for.
    pub request: PlanRequest,
    /// The digest of the plan that was shown: refused where it would be another by now. `null`: whatever it is now.
    pub digest: Option<String>,
    /// The model that wrote the sentence, for the record. `null`: a person did.
    pub read_by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Also a revision that failed before.
    pub force: bool,
}

/// A deployment, by its id, the beginning of it, or its service's name (the latest one).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeployRef {
    /// Which.
    pub id: String,
    /// Where names are looked for. `null`: `default`.
    pub namespace: Option<String>,
}

/// Which deployments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeployFilter {
    /// Only of this namespace. `null`: of all that the caller may see.
    pub namespace: Option<String>,
    /// Only of this service.
    pub workload: Option<String>,
    /// Only those that haven't ended.
    pub running: bool,
    /// Without those that failed or were rolled back.
    pub successful: bool,
    /// At most so many. `null`: all that are kept.
    pub limit: Option<u32>,
}

/// Lets a deployment go on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PromoteRequest {
    /// Which deployment.
    pub id: String,
    /// Where names are looked for. `null`: `default`.
    pub namespace: Option<String>,
    /// Although an analysis fails or can't tell.
    pub force: bool,
    /// Up to this part of the requests, in percent. `null`: all the way.
    pub percentage: Option<f64>,
}

/// Brings an earlier revision back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollbackRequest {
    /// Which deployment, or which service.
    pub id: String,
    /// Where names are looked for. `null`: `default`.
    pub namespace: Option<String>,
    /// The version or the number of the revision. `null`: the last one known to be good.
    pub to: Option<String>,
    /// Without waiting for requests under way.
    pub immediate: bool,
    /// Why.
    pub reason: Option<String>,
    /// Also to what runs already, or to a revision that failed before.
    pub force: bool,
}

/// Holds a deployment where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PauseRequest {
    /// Which deployment.
    pub id: String,
    /// Where names are looked for. `null`: `default`.
    pub namespace: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Tries a deployment once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryRequest {
    /// Which deployment.
    pub id: String,
    /// Where names are looked for. `null`: `default`.
    pub namespace: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Which services.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceFilter {
    /// Only of this namespace. `null`: of all that the caller may see.
    pub namespace: Option<String>,
}

/// A service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceRef {
    /// Its name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    pub namespace: Option<String>,
}

/// Ends a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceDeleteRequest {
    /// Its name.
    pub name: String,
    /// Its namespace. `null`: `default`.
    pub namespace: Option<String>,
    /// Although a deployment is under way.
    pub force: bool,
}

/// The replicas of one revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionReplicas {
    /// The revision's number.
    pub revision: u32,
    /// As it is called.
    pub version: Option<String>,
    /// Whether it has proven itself.
    pub standing: Standing,
    /// Replicas that are ready for requests.
    pub ready: u32,
    /// Replicas that exist and aren't about to end.
    pub total: u32,
    /// Share of the requests, in percent. `null`: nothing is proxied.
    pub traffic_percent: Option<f64>,
}

/// One replica, and its health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaView {
    /// The workload that it is.
    pub workload: WorkloadId,
    /// Of which revision.
    pub revision: u32,
    /// `null`: not placed.
    pub node: Option<NodeName>,
    /// The workload's phase.
    pub phase: crate::workload::Phase,
    /// Whether it gets requests.
    pub ready: bool,
    /// Whether it is about to end.
    pub retiring: bool,
    /// Why it isn't ready.
    pub why: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// Where it listens. `null`: it doesn't, or not yet.
    pub address: Option<String>,
}

/// The step that a deployment is in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// From 1.
    pub number: u32,
    /// Of how many.
    pub of: u32,
    /// What it is about.
    pub what: String,
    /// Since when all that it needs is there. `null`: not yet.
    pub since: Option<Timestamp>,
    /// When it ends by itself, if nothing is found against it. `null`: not known, or it waits for a person.
    pub until: Option<Timestamp>,
}

/// How a deployment stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// In short.
    #[serde(flatten)]
    pub summary: DeploymentSummary,
    /// What was asked for, as it was said.
    pub intent: String,
    /// The model that read it. `null`: the grammar did.
    pub read_by: Option<String>,
    /// What it is about just now, or how it ended.
    pub message: Option<String>,
    /// What went wrong. `null`: nothing so far.
    pub error: Option<ApiError>,
    /// Why it waits for a person. `null`: it doesn't.
    pub waits_for: Option<String>,
    /// The replicas, by revision.
    pub revisions: Vec<RevisionReplicas>,
    /// Every replica, and its health.
    pub checks: Vec<ReplicaView>,
    /// The step under way. `null`: it hasn't begun, or has ended.
    pub step: Option<StepView>,
    /// The latest verdict of each condition, and those that decided something.
    pub verdicts: Vec<Verdict>,
    /// Time until it is done, if nothing is found against it. `null`: not known.
    pub remaining: Option<Span>,
    /// Where the service is reached: `http://127.0.0.1:10000`. `null`: nothing is proxied.
    pub address: Option<String>,
    /// The workload that a batch job is. `null`: a service's deployment, or not begun.
    pub job: Option<WorkloadId>,
    /// What happened, oldest first.
    pub timeline: Vec<Moment>,
    /// What it does.
    pub plan: Plan,
}

/// A deployment in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSummary {
    /// Its id.
    pub id: DeploymentId,
    /// The service or batch job.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// What it does.
    pub action: Action,
    /// The version that it brings. `null`: it has no name but its number.
    pub version: Option<String>,
    /// The revision that it brings. `null`: none.
    pub revision: Option<u32>,
    /// The revision before. `null`: there was none.
    pub from: Option<u32>,
    /// How. `null`: nothing is replaced.
    pub strategy: Option<Strategy>,
    /// Where it stands.
    pub phase: Phase,
    /// Ready replicas of the revision that it brings, or of the service. `null`: it hasn't begun, or it has
    /// ended and another has come since, or its job has ended.
    pub ready: Option<u32>,
    /// Replicas that it is to have at the end.
    pub replicas: u32,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began. `null`: it waits for its time.
    pub started_at: Option<Timestamp>,
    /// When it ended. `null`: not yet.
    pub finished_at: Option<Timestamp>,
    /// From its beginning to its end, or to now. `null`: not begun.
    pub duration: Option<Span>,
}

/// A node that carries a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CarriedBy {
    /// Which.
    pub node: NodeName,
    /// Where the service is reached there.
    pub address: String,
    /// Why it isn't: the node can't listen there, and goes on trying. `null`: it is.
    pub closed: Option<String>,
}

/// A service as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who made it.
    pub owner: String,
    /// When.
    pub created_at: Timestamp,
    /// The version known to be good. `null`: none yet, or it has no name but its number.
    pub version: Option<String>,
    /// The revision known to be good. `null`: none yet.
    pub revision: Option<u32>,
    /// The image of that revision, or of the newest one.
    pub image: String,
    /// What replicas of that revision are marked with.
    #[serde(default)]
    pub marks: Marks,
    /// Replicas that are ready for requests.
    pub ready: u32,
    /// Replicas that are wanted.
    pub replicas: u32,
    /// The replicas, by revision.
    pub revisions: Vec<RevisionReplicas>,
    /// Every replica, and its health.
    pub checks: Vec<ReplicaView>,
    /// Where it is reached. `null`: its replicas declare no port.
    pub address: Option<String>,
    /// Why the gateway can't listen there; it goes on trying. `null`: it does, or there is no address.
    pub closed: Option<String>,
    /// Nodes that carry it too: it is reached there as well.
    #[serde(default)]
    pub carried_by: Vec<CarriedBy>,
    /// What is spoken there.
    pub protocol: Option<ServiceProtocol>,
    /// Bounds of the number of replicas. `null`: it is fixed.
    pub autoscale: Option<Autoscale>,
    /// What the autoscaler decided last, and on what. `null`: nothing yet, or the number is fixed.
    pub scaling: Option<String>,
    /// The deployment under way. `null`: none.
    pub deployment: Option<DeploymentId>,
    /// Requests under way by revision. Empty: nothing is proxied.
    pub requests_under_way: BTreeMap<u32, u64>,
}
