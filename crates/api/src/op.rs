//! The operation table: everything that can be asked of a gateway, declared once.
//!
//! Each operation has a name, a scope, a reach, a sentence of help, a typed request and a typed answer. HTTP, WebSocket, the
//! OpenAPI document and the command line's client are made from this table, so that what exists in one exists in all.
//!
//! `workload.list` is served at `/api/v1/workload/list`: POST with the request as JSON; operations that only read
//! answer GET with the request in the query as well. A [`Streaming`] operation answers many items: one JSON text frame
//! each over WebSocket ([`Frame`]), or one line each over plain HTTP.

mod about;
mod alerts;
mod audit;
mod certs;
mod deploy;
mod health;
mod metrics;
mod oidc;
mod secrets;

use std::collections::BTreeMap;

pub use about::About;
pub use alerts::*;
pub use audit::*;
pub use certs::*;
pub use deploy::*;
pub use health::*;
pub use metrics::*;
pub use oidc::*;
use schemars::{JsonSchema, Schema, SchemaGenerator};
pub use secrets::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    ApiError, NodeName, Size, Span, Timestamp, WorkloadId,
    auth::{Identity, Role, Scope, TokenInfo},
    event::Event,
    node::{NodeDetail, NodeStatus, NodeView, Taint},
    wire::PullProgress,
    workload::{GpuOnNode, LogLevel, LogSource, Phase, Priority, Workload, WorkloadSpec, WorkloadSummary},
};

/// Whether an operation changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It only reads; GET is allowed.
    Reads,
    /// It changes something.
    Writes,
    /// It creates something: an `Idempotency-Key` header makes a repetition answer what the first call answered. Not
    /// where the answer is a secret, which isn't kept: such operations are [`Effect::Writes`], and refuse the header.
    Creates,
}

/// What an operation is about: says what a token that is bound to one namespace may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The caller, or what belongs to nobody in particular: bound tokens may use it as all others.
    Open,
    /// Things of namespaces: bound tokens see and change those of their own, as if there were no others.
    Namespace,
    /// The fleet: bound tokens may not use it.
    Fleet,
}

/// An operation with one answer.
pub trait Operation: 'static {
    /// Dotted name.
    const NAME: &'static str;
    /// What it asks of its caller.
    const SCOPE: Scope;
    /// What it is about.
    const REACH: Reach;
    /// Whether it changes anything.
    const EFFECT: Effect;
    /// One sentence.
    const HELP: &'static str;
    /// What is asked.
    type Request: About + Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// What is answered.
    type Response: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// An operation that answers many items over time.
pub trait Streaming: 'static {
    /// Dotted name.
    const NAME: &'static str;
    /// What it asks of its caller.
    const SCOPE: Scope;
    /// What it is about.
    const REACH: Reach;
    /// One sentence.
    const HELP: &'static str;
    /// What is asked.
    type Request: About + Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// One of the items.
    type Item: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// A message of a streaming operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Frame<T> {
    /// The next item.
    Item(T),
    /// The stream failed; nothing follows.
    Error(ApiError),
    /// The stream is complete; nothing follows.
    End,
}

/// A row of the table.
pub struct Described {
    /// Dotted name.
    pub name: &'static str,
    /// What it asks of its caller.
    pub scope: Scope,
    /// What it is about.
    pub reach: Reach,
    /// Whether it changes anything.
    pub effect: Effect,
    /// One sentence.
    pub help: &'static str,
    /// Whether it answers many items.
    pub streaming: bool,
    /// JSON schema of the request.
    pub request: fn(&mut SchemaGenerator) -> Schema,
    /// JSON schema of the answer, or of one item.
    pub response: fn(&mut SchemaGenerator) -> Schema,
}

impl Described {
    /// The path under which it is served: `/api/v1/workload/list`.
    #[must_use]
    pub fn path(&self) -> String {
        path(self.name)
    }
}

/// The path under which the operation of this name is served.
#[must_use]
pub fn path(name: &str) -> String {
    format!("/api/v1/{}", name.replace('.', "/"))
}

macro_rules! operations {
    (
        $( $(#[doc = $help:literal])+ $op:ident = $name:literal, $scope:ident, $reach:ident, $effect:ident, $request:ty => $response:ty; )*
        streaming:
        $( $(#[doc = $shelp:literal])+ $sop:ident = $sname:literal, $sscope:ident, $sreach:ident, $srequest:ty => $item:ty; )*
    ) => {
        $(
            $(#[doc = $help])+
            pub enum $op {}
            impl Operation for $op {
                const NAME: &'static str = $name;
                const SCOPE: Scope = Scope::$scope;
                const REACH: Reach = Reach::$reach;
                const EFFECT: Effect = Effect::$effect;
                const HELP: &'static str = concat!($($help),+);
                type Request = $request;
                type Response = $response;
            }
        )*
        $(
            $(#[doc = $shelp])+
            pub enum $sop {}
            impl Streaming for $sop {
                const NAME: &'static str = $sname;
                const SCOPE: Scope = Scope::$sscope;
                const REACH: Reach = Reach::$sreach;
                const HELP: &'static str = concat!($($shelp),+);
                type Request = $srequest;
                type Item = $item;
            }
        )*
        /// The whole table.
        pub const OPERATIONS: &[Described] = &[
            $( Described {
                name: $name,
                scope: Scope::$scope,
                reach: Reach::$reach,
                effect: Effect::$effect,
                help: concat!($($help),+),
                streaming: false,
                request: |g| g.subschema_for::<$request>(),
                response: |g| g.subschema_for::<$response>(),
            }, )*
            $( Described {
                name: $sname,
                scope: Scope::$sscope,
                reach: Reach::$sreach,
                effect: Effect::Reads,
                help: concat!($($shelp),+),
                streaming: true,
                request: |g| g.subschema_for::<$srequest>(),
                response: |g| g.subschema_for::<$item>(),
            }, )*
        ];
    };
}

operations! {
    /// Answers at once with the gateway's version, role and health.
    GatewayPing = "gateway.ping", Anyone, Open, Reads, Empty => Ping;
    /// Tells how the fleet does: a score, what it costs, and what was found.
    FleetHealthGet = "fleet.health", Read, Fleet, Reads, Empty => FleetHealth;
    /// Shows the fleet: nodes, GPUs, and the workloads that haven't ended.
    FleetStatus = "fleet.status", Read, Namespace, Reads, StatusRequest => Fleet;

    /// Says who the caller is.
    WhoAmI = "auth.whoami", Anyone, Open, Reads, Empty => Identity;
    /// Makes a token for a person or a program.
    TokenCreate = "auth.token.create", Administer, Fleet, Writes, TokenRequest => NewToken;
    /// Lists tokens, without the tokens themselves.
    TokenList = "auth.token.list", Administer, Fleet, Reads, Empty => Vec<TokenInfo>;
    /// Ends a token's life at once.
    TokenRevoke = "auth.token.revoke", Administer, Fleet, Writes, TokenRef => TokenInfo;
    /// Makes a token with which nodes can join.
    JoinTokenCreate = "auth.join-token", Administer, Fleet, Writes, JoinTokenRequest => NewJoinToken;
    /// Tells at which identity provider people log in.
    OidcGet = "auth.oidc", NoToken, Open, Reads, Empty => OidcIssuer;
    /// Makes a token for whoever the identity provider vouches for.
    OidcExchange = "auth.oidc.exchange", NoToken, Open, Writes, OidcExchangeRequest => NewToken;

    /// Keeps a value as a secret's newest version, and makes the secret where there is none.
    SecretSet = "secret.set", WriteSecrets, Namespace, Writes, SecretSetRequest => SecretInfo;
    /// Shows a secret's value.
    SecretGet = "secret.get", ReadSecrets, Namespace, Writes, SecretGetRequest => SecretContent;
    /// Lists secrets, without their values.
    SecretList = "secret.list", Read, Namespace, Reads, SecretFilter => Vec<SecretInfo>;
    /// Lists a secret's versions, without their values.
    SecretVersions = "secret.versions", Read, Namespace, Reads, SecretRef => Vec<SecretVersionInfo>;
    /// Makes a new version of a secret; the one before stays readable for a while.
    SecretRotate = "secret.rotate", WriteSecrets, Namespace, Writes, SecretRotateRequest => SecretInfo;
    /// Destroys a secret's latest version, or all of it.
    SecretDelete = "secret.delete", WriteSecrets, Namespace, Writes, SecretDeleteRequest => SecretInfo;
    /// Tells which master key seals the secrets.
    VaultGet = "vault.status", Administer, Fleet, Reads, Empty => VaultStatus;
    /// Seals all keys under a new master key; values aren't touched.
    VaultRekey = "vault.rekey", Administer, Fleet, Writes, Empty => VaultStatus;

    /// Issues a certificate of the fleet's own authority, with a new key.
    CertIssue = "cert.issue", Certify, Fleet, Writes, CertIssueRequest => IssuedCert;
    /// Lists certificates.
    CertList = "cert.list", Read, Fleet, Reads, CertFilter => Vec<CertInfo>;
    /// Issues a certificate in an older one's place.
    CertRotate = "cert.rotate", Certify, Fleet, Writes, CertRotateRequest => IssuedCert;
    /// Takes a certificate back.
    CertRevoke = "cert.revoke", Certify, Fleet, Writes, CertRevokeRequest => CertInfo;
    /// Shows the authority's certificate.
    CertCa = "cert.ca", Anyone, Open, Reads, Empty => CertAuthority;
    /// Shows the signed list of revoked certificates.
    CertCrl = "cert.crl", Anyone, Open, Reads, Empty => CertRevocations;

    /// Lists who did what, and what was refused.
    AuditList = "audit.list", ReadAudit, Fleet, Reads, AuditFilter => Vec<AuditRecord>;
    /// Checks that the audit log is whole.
    AuditVerify = "audit.verify", ReadAudit, Fleet, Reads, Empty => AuditVerdict;

    /// Makes a node known, with a join token, and gives it its own credential.
    NodeJoin = "node.join", Join, Open, Writes, JoinRequest => Joined;
    /// Gives a node its next certificate.
    NodeCertify = "node.certify", NodeSession, Open, Writes, NodeCertRequest => NodeCert;
    /// Lists the nodes with their GPUs.
    NodeList = "node.list", Read, Open, Reads, NodeFilter => Vec<NodeView>;
    /// Shows all that is known of a node.
    NodeGet = "node.get", Read, Open, Reads, NodeRef => NodeDetail;
    /// Looks closely at a node: heat, memory, errors, trends.
    NodeDiagnose = "node.diagnose", Read, Fleet, Reads, DiagnoseNodeRequest => NodeDiagnosis;
    /// Keeps new work off a node, and empties it.
    NodeDrain = "node.drain", OperateNodes, Fleet, Writes, DrainRequest => NodeDetail;
    /// Lets a drained node take work again.
    NodeUndrain = "node.undrain", OperateNodes, Fleet, Writes, NodeRef => NodeDetail;
    /// Sets and removes labels of a node.
    NodeLabel = "node.label", OperateNodes, Fleet, Writes, LabelRequest => NodeDetail;
    /// Sets and removes taints of a node.
    NodeTaint = "node.taint", OperateNodes, Fleet, Writes, TaintRequest => NodeDetail;
    /// Removes a node; its credential stops working.
    NodeRemove = "node.remove", OperateNodes, Fleet, Writes, RemoveRequest => NodeDetail;

    /// Submits workloads, all or none, or shows where they would go.
    WorkloadSubmit = "workload.submit", Run, Namespace, Creates, SubmitRequest => Vec<Submitted>;
    /// Lists workloads.
    WorkloadList = "workload.list", Read, Namespace, Reads, WorkloadFilter => Vec<WorkloadSummary>;
    /// Shows all that is known of a workload.
    WorkloadGet = "workload.get", Read, Namespace, Reads, WorkloadRef => WorkloadDetail;
    /// Cancels workloads: waiting ones at once, running ones with their grace period.
    WorkloadCancel = "workload.cancel", Run, Namespace, Writes, CancelRequest => Vec<WorkloadSummary>;
    /// Changes a workload's memory, timeout or priority.
    WorkloadUpdate = "workload.update", Run, Namespace, Writes, UpdateRequest => WorkloadSummary;
    /// Stops a workload with its grace period and starts it on another node.
    WorkloadMigrate = "workload.migrate", Run, Namespace, Writes, MigrateRequest => WorkloadSummary;
    /// Explains why a workload is where it is, or why it isn't placed.
    WorkloadExplain = "workload.explain", Read, Namespace, Reads, WorkloadRef => Explanation;
    /// Looks closely at a workload: what it uses, its errors, its speed, and what holds it up.
    WorkloadDiagnose = "workload.diagnose", Read, Namespace, Reads, DiagnoseWorkloadRequest => WorkloadDiagnosis;
    /// Sums up GPU-hours.
    WorkloadUsage = "workload.usage", Read, Namespace, Reads, UsageRequest => Vec<UsageRow>;

    /// Reads a sentence and shows what it would do; does nothing.
    DeployPlan = "deploy.plan", Read, Namespace, Reads, PlanRequest => Planned;
    /// Does what a sentence says.
    DeployApply = "deploy.apply", Run, Namespace, Creates, ApplyRequest => DeploymentStatus;
    /// Shows how a deployment stands.
    DeployGet = "deploy.get", Read, Namespace, Reads, DeployRef => DeploymentStatus;
    /// Lists deployments, newest first.
    DeployList = "deploy.list", Read, Namespace, Reads, DeployFilter => Vec<DeploymentSummary>;
    /// Lets a deployment go on, all the way or up to a share.
    DeployPromote = "deploy.promote", Run, Namespace, Writes, PromoteRequest => DeploymentStatus;
    /// Brings an earlier revision back.
    DeployRollback = "deploy.rollback", Run, Namespace, Creates, RollbackRequest => DeploymentStatus;
    /// Holds a deployment where it is.
    DeployPause = "deploy.pause", Run, Namespace, Writes, PauseRequest => DeploymentStatus;
    /// Lets a held deployment go on.
    DeployResume = "deploy.resume", Run, Namespace, Writes, DeployRef => DeploymentStatus;
    /// Tries a deployment that failed or was rolled back once more.
    DeployRetry = "deploy.retry", Run, Namespace, Creates, RetryRequest => DeploymentStatus;
    /// Lists services with their replicas and addresses.
    ServiceList = "service.list", Read, Namespace, Reads, ServiceFilter => Vec<ServiceView>;
    /// Shows all that is known of a service.
    ServiceGet = "service.get", Read, Namespace, Reads, ServiceRef => ServiceView;
    /// Ends a service: its replicas, its address, its revisions.
    ServiceDelete = "service.delete", Run, Namespace, Writes, ServiceDeleteRequest => ServiceView;

    /// Shows a metric over time.
    MetricsQuery = "metrics.query", Read, Namespace, Reads, MetricsRequest => MetricsAnswer;
    /// Lists the metrics that there are.
    MetricsList = "metrics.list", Read, Open, Reads, Empty => Vec<MetricInfo>;
    /// Tells what metrics take on disk.
    MetricsUsed = "metrics.usage", Read, Fleet, Reads, Empty => MetricsUsage;

    /// Lists the alerts that fire, or all of them.
    AlertList = "alert.list", Read, Fleet, Reads, AlertFilter => Vec<AlertView>;
    /// Lists what is looked for, and what it sees.
    AlertRules = "alert.rules", Read, Fleet, Reads, Empty => Vec<AlertRuleView>;
    /// Lists who is told of alerts, and whether that works.
    AlertReceivers = "alert.receivers", Read, Fleet, Reads, Empty => Vec<AlertReceiverView>;
    /// Holds alerts back for a while; they are listed all the same.
    AlertSilence = "alert.silence", OperateNodes, Fleet, Creates, SilenceRequest => SilenceView;
    /// Lists silences.
    AlertSilenceList = "alert.silence.list", Read, Fleet, Reads, SilenceFilter => Vec<SilenceView>;
    /// Ends a silence before its time.
    AlertSilenceEnd = "alert.silence.end", OperateNodes, Fleet, Writes, SilenceRef => SilenceView;

    /// Lists events, oldest first.
    EventList = "event.list", Read, Namespace, Reads, EventFilter => Vec<Event>;

    streaming:
    /// Streams a workload's output.
    WorkloadLogs = "workload.logs", Read, Namespace, LogsRequest => LogEntry;
    /// Streams a workload at each change until it has ended.
    WorkloadWatch = "workload.watch", Read, Namespace, WorkloadRef => WorkloadDetail;
    /// Streams a deployment's standing at each change until it has ended.
    DeployWatch = "deploy.watch", Read, Namespace, DeployRef => DeploymentStatus;
    /// Streams events as they happen.
    EventWatch = "event.watch", Read, Namespace, EventFilter => Event;
}

/// Path of the WebSocket on which a node's session runs.
pub const NODE_SESSION_PATH: &str = "/api/v1/node/session";

/// Path of the WebSocket on which a command runs inside a workload: the first frame is an [`ExecStart`] as JSON;
/// then binary frames carry input one way and output the other way (first byte 1: standard output, 2: standard
/// error), and a last text frame holds an [`ExecEnd`]. An empty input frame is the end of input.
pub const EXEC_PATH: &str = "/api/v1/workload/exec";

/// The scope of [`EXEC_PATH`].
pub const EXEC_SCOPE: Scope = Scope::Run;

/// Header that makes a repeated call of an operation that [`Effect::Creates`] answer what the first one answered, for a
/// day.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// A request without content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// The gateway as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// Its version.
    pub version: String,
    /// Whether it runs the controllers.
    pub leader: bool,
    /// Whether its store takes writes, in words: `ok`, or what is the matter.
    pub store: String,
    /// The store's revision: the number of commits so far.
    pub revision: u64,
    /// Bytes of its store on disk.
    pub store_bytes: u64,
    /// When it started.
    pub started_at: Timestamp,
    /// Its wall clock.
    pub now: Timestamp,
}

/// What of the fleet is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusRequest {
    /// Most nodes and most workloads in the answer: nodes that need a look come first, and workloads that have a node
    /// before those that wait. `null`: all of them.
    pub rows: Option<u32>,
}

/// The fleet as `status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// The gateway.
    pub gateway: Ping,
    /// The sum of it.
    pub cluster: ClusterStatus,
    /// The nodes, all or as many as were asked for.
    pub nodes: Vec<NodeBrief>,
    /// The workloads that haven't ended, all or as many as were asked for.
    pub workloads: Vec<WorkloadBrief>,
    /// MOLT participation.
    pub molt: MoltBrief,
    /// Alerts that fire, the worst first: `critical: node gpu-7 is unreachable`. Silenced ones, and those that others
    /// explain, are left out.
    pub alerts: Vec<String>,
}

/// The sum of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// `healthy`, `degraded`, `critical`, or `empty` without nodes.
    pub status: String,
    /// 0–100: the share of nodes that are healthy or draining. `null` without nodes.
    pub score: Option<u8>,
    /// Nodes.
    pub total_nodes: u32,
    /// Nodes that are healthy.
    pub healthy_nodes: u32,
    /// GPUs.
    #[serde(rename = "totalGPUs")]
    pub total_gpus: u32,
    /// GPUs that a workload could be given now.
    #[serde(rename = "availableGPUs")]
    pub available_gpus: u32,
    /// Workloads that haven't ended, by phase.
    pub active_workloads: BTreeMap<Phase, u32>,
}

/// A node in [`Fleet`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeBrief {
    /// Its name.
    pub name: NodeName,
    /// The one word for its state.
    pub status: NodeStatus,
    /// Its GPUs.
    pub gpus: GpuCount,
    /// Mean GPU utilization, 0–100, by the last heartbeat. `null`: unknown, or no GPUs.
    pub utilization: Option<f32>,
}

/// GPUs of a node in [`Fleet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GpuCount {
    /// That a workload could be given now.
    pub available: u32,
    /// All.
    pub total: u32,
    /// The model; several are joined by commas. `null`: no GPUs.
    #[serde(rename = "type")]
    pub model: Option<String>,
    /// Whether any of them is simulated.
    pub simulated: bool,
}

/// A workload in [`Fleet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadBrief {
    /// Its id.
    pub id: WorkloadId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: Phase,
    /// GPUs that it asks for.
    pub gpus: u32,
    /// Seconds since it began to run. `null`: not running.
    pub runtime: Option<u64>,
    /// The node of its first member. `null`: not placed.
    pub node: Option<NodeName>,
}

/// MOLT in [`Fleet`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MoltBrief {
    /// Whether GPUs are offered to other fleets.
    pub active: bool,
    /// How eagerly. `null`: not at all.
    pub mode: Option<String>,
    /// GPUs lent now.
    #[serde(rename = "sharedGPUs")]
    pub shared_gpus: u32,
    /// Earned in the last 24 hours. `null`: nothing is recorded.
    pub earnings24h: Option<f64>,
}

/// A new token's properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRequest {
    /// The identity that it stands for: what owned workloads and events will carry.
    pub name: String,
    /// What it lets its bearer do.
    pub role: Role,
    /// With the role `custom`: what exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// The only namespace that it is for. `null`: all, and the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How long it works. `null`: for ever.
    #[serde(default)]
    pub expires: Option<Span>,
}

/// A new token; shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// The token.
    pub token: String,
    /// What is kept of it.
    #[serde(flatten)]
    pub info: TokenInfo,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

/// Names a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenRef {
    /// Its id, or the identity that it stands for where only one token does.
    pub id: String,
}

/// A new join token's properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    /// How long it works.
    pub expires: Span,
    /// How many nodes may join with it. `null`: any number.
    #[serde(default)]
    pub uses: Option<u32>,
}

/// A new join token; shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewJoinToken {
    /// The token.
    pub token: String,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// How many nodes may join with it. `null`: any number.
    pub uses: Option<u32>,
}

impl std::fmt::Debug for NewJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewJoinToken")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A node asks to be let in.
///
/// With a `secret`, asking again does no harm: the same secret gets the same name, and uses the join token up once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRequest {
    /// The name that it wants.
    pub name: NodeName,
    /// Whether it insists on that name, or takes a longer one if it is taken.
    pub exact: bool,
    /// The secret part of the credential that it wants: 64 hex digits of its own making, random and kept before it asks.
    /// `null`: the gateway makes one, and each call makes another node known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A signing request (PKCS #10) in PEM, for a key of the node's own making: with it, the node gets a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_request: Option<String>,
}

impl std::fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinRequest")
            .field("name", &self.name)
            .field("exact", &self.exact)
            .finish_non_exhaustive()
    }
}

/// A node is let in; the credential is shown once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// Its name from now on.
    pub name: NodeName,
    /// Its own credential.
    pub credential: String,
    /// Its certificate. `null`: it asked for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<NodeCert>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Which nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NodeFilter {
    /// Only those with a GPU that a workload could be given now.
    pub available: bool,
    /// Only those with a GPU of this model, matched by whole words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
}

/// Names a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRef {
    /// Its name, or the beginning of it where only one fits.
    pub id: String,
}

/// A wish to empty a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DrainRequest {
    /// Which node.
    pub id: String,
    /// Stop what runs there now, with its grace period; it starts elsewhere where it may.
    #[serde(default)]
    pub force: bool,
    /// Stop what still runs there after this long. `null`: let it finish.
    #[serde(default)]
    pub timeout: Option<Span>,
}

/// Labels to set and to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequest {
    /// Which node.
    pub id: String,
    /// To set.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Keys to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Taints to set and to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaintRequest {
    /// Which node.
    pub id: String,
    /// To set; one of the same key and effect is replaced.
    #[serde(default)]
    pub set: Vec<Taint>,
    /// Keys to remove.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A node to remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoveRequest {
    /// Which node.
    pub id: String,
    /// Even though workloads run there: they are lost.
    #[serde(default)]
    pub force: bool,
}

/// A workload to submit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Submission {
    /// Its name. `null`: made from the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace. `null`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is asked for.
    pub spec: WorkloadSpec,
}

/// Workloads to submit, all or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubmitRequest {
    /// The workloads.
    pub workloads: Vec<Submission>,
    /// Show where they would go, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Fail with `NO_GPUS_AVAILABLE` instead of queueing.
    #[serde(default)]
    pub no_queue: bool,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The workload; with `dryRun` it exists only in this answer.
    #[serde(flatten)]
    pub workload: Workload,
    /// Where it would go now, and why, or why nowhere. Only with `dryRun`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Explanation>,
}

/// Which workloads. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadFilter {
    /// Only running ones.
    pub running: bool,
    /// Only waiting ones.
    pub pending: bool,
    /// Only the caller's own.
    pub mine: bool,
    /// Only those that were submitted at or after this time, or have run since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only those on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only those of this namespace. `null`: all namespaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// `submitted` (default), `name`, `phase`, `priority`, `gpus`, `node`, `owner`, `started` or `finished`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// At most this many. `null`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Names a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadRef {
    /// Its id, its name, or the beginning of either where only one fits.
    pub id: String,
    /// Where names are looked up. `null`: `default`. Ids fit everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// A workload as `workload status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadDetail {
    /// All that is kept.
    #[serde(flatten)]
    pub workload: Workload,
    /// For a waiting one: why it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// For one that fetches its image: how far that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullProgress>,
}

/// Workloads to cancel, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CancelRequest {
    /// Ids, names or their beginnings.
    pub ids: Vec<String>,
    /// Where names are looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Between SIGTERM and SIGKILL. `null`: the workload's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
}

/// What to change about a workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateRequest {
    /// Which.
    pub id: String,
    /// Where names are looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// New memory limit; a running workload's changes in place where its node has the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// New timeout, counted from the start of the attempt; `0s` means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// New priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// A workload to move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MigrateRequest {
    /// Which.
    pub id: String,
    /// Where names are looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where to. `null`: any node but the one that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Why a workload is, or would be, where it is, or nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The sentence: `0 of 12 nodes fit: 8 have fewer than 4 free GPUs, 4 are not H100`.
    pub summary: String,
    /// Where it is or would go, by member. Empty: nowhere.
    #[serde(default)]
    pub placement: Vec<ProposedMember>,
    /// Why there.
    #[serde(default)]
    pub because: Vec<String>,
    /// What keeps nodes from taking it, each node counted once.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// Its place in the queue, from 1. `null`: not waiting.
    #[serde(default)]
    pub queue_position: Option<u32>,
    /// Workloads whose end would make room.
    #[serde(default)]
    pub waiting_for: Vec<WorkloadId>,
    /// When there would be room, where timeouts allow an estimate. `null`: unknown.
    #[serde(default)]
    pub estimate: Option<Timestamp>,
    /// The smallest changes that would place it now.
    #[serde(default)]
    pub suggestions: Vec<String>,
    /// Whether today's fleet could run it if it were empty. `null`: not asked.
    #[serde(default)]
    pub fits_empty_fleet: Option<bool>,
    /// Workloads that would be preempted in its favour.
    #[serde(default)]
    pub preempts: Vec<WorkloadId>,
}

/// A member's place in an [`Explanation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProposedMember {
    /// From 0.
    pub rank: u32,
    /// Where.
    pub node: NodeName,
    /// The GPUs.
    pub gpus: Vec<GpuOnNode>,
}

/// A reason, and the number of nodes that it rules out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// In words: `8 have fewer than 4 free GPUs`.
    pub reason: String,
    /// How many nodes. One may be ruled out by several reasons.
    pub nodes: u32,
}

/// What to sum up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UsageRequest {
    /// `owner` (default), `node`, or a label's key as `label:KEY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// From when on. `null`: 30 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Span>,
}

/// A sum of usage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageRow {
    /// The owner, node or label value. Empty: workloads without that label.
    pub key: String,
    /// GPUs times hours held, clipped to the window.
    pub gpu_hours: f64,
    /// Workloads that held something in the window.
    pub workloads: u32,
    /// Attempts that did.
    pub attempts: u32,
    /// The oldest record that the sum could see; older ones are no longer kept.
    pub since: Timestamp,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EventFilter {
    /// Only of this kind of thing: `workload`, `node` or `alert`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only of this workload or node (id or name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only what happened on this node, or to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only since this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only after the event of this id: resumes a stream without loss or doubles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The newest so many. `null`: 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Which lines of a workload's output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogsRequest {
    /// The workload.
    pub id: String,
    /// Where names are looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Go on with lines as they come, until the workload has ended.
    pub follow: bool,
    /// Begin with the last so many lines, or matches where `level` or `search` is given. `null`: with the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only lines since this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only lines of this level or a graver one; lines without a level count as `info`. Gaps are always shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// Only lines in which this regular expression (syntax of Rust's `regex`) has a match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
    /// With `level` or `search`: lines before and after each match of the same member that are sent too, 1,000 at most.
    #[serde(skip_serializing_if = "is_zero")]
    pub context: u32,
    /// Only lines after this cursor: resumes a stream without loss or doubles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A line of output, or a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// When, by the node's clock.
    pub at: Timestamp,
    /// From where.
    pub source: LogSource,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Member of the gang, from 0.
    pub rank: u32,
    /// Position in its member's output, from 1.
    pub number: u64,
    /// The text. For a gap: which lines are missing.
    pub text: String,
    /// It goes on in the next entry.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// True where lines are missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// How grave it is. Absent: nothing tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<LogLevel>,
    /// It doesn't match itself: it is near a line that does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context: bool,
    /// With `level` or `search`: the line before it in its member's output isn't sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub apart: bool,
    /// Go on after this entry with it.
    pub cursor: String,
}

/// The first frame on [`EXEC_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecStart {
    /// The workload.
    pub id: String,
    /// Where names are looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The member of the gang, from 0.
    #[serde(default)]
    pub rank: u32,
    /// The command.
    pub command: Vec<String>,
}

/// The last frame on [`EXEC_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExecEnd {
    /// The command's exit code, 128 + signal for signals.
    Exit(i32),
    /// It couldn't run.
    Error(ApiError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_paths_follow_from_them() {
        let mut names: Vec<_> = OPERATIONS.iter().map(|o| o.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), OPERATIONS.len());
        assert_eq!(path(WorkloadList::NAME), "/api/v1/workload/list");
    }

    #[test]
    fn every_operation_says_what_it_does() {
        for op in OPERATIONS {
            assert!(op.help.trim_end().ends_with('.') && op.help.len() > 10, "{}", op.name);
        }
    }

    #[test]
    fn frames_are_told_apart() {
        assert_eq!(serde_json::to_string(&Frame::Item(1)).unwrap(), r#"{"item":1}"#);
        assert_eq!(serde_json::to_string(&Frame::<u8>::End).unwrap(), r#""end""#);
    }

    /// The reference in the documentation, made from the table.
    fn reference() -> String {
        let mut text = String::from(
            "# Operations of the API\n\nMade from the table in `crates/api/src/op.rs`; `UPDATE_DOCS=1 cargo test -p \
             clawbernetes-api` writes it anew. A running\ngateway serves the schemas of requests and answers at \
             `/openapi.json`.\n\nPOST the request as JSON with `authorization: Bearer TOKEN`; operations that read answer \
             GET with the request in the\nquery too. Streams answer one JSON frame an item over WebSocket, or one line an \
             item over plain HTTP.\n\n| operation | path | scope | kind | |\n| --- | --- | --- | --- | --- |\n",
        );
        for op in OPERATIONS {
            let kind = match (op.streaming, op.effect) {
                (true, _) => "stream",
                (_, Effect::Reads) => "reads",
                (_, Effect::Writes) => "writes",
                (_, Effect::Creates) => "creates",
            };
            let scope = serde_json::to_string(&op.scope).unwrap();
            let (name, path, help) = (op.name, op.path(), op.help.trim());
            text.push_str(&format!(
                "| `{name}` | `{path}` | {} | {kind} | {help} |\n",
                scope.trim_matches('"')
            ));
        }
        text
    }

    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/operations.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            reference(),
            "UPDATE_DOCS=1 writes it anew"
        );
    }
}
