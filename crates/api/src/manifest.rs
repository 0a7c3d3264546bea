//! The file form of a workload: what people write in `workload.yaml`, and how it becomes a [`Submission`].
//!
//! The types accept the short and the long form of a field where there are two (`gpus: 4` or a mapping, a command
//! as text or as a list, the environment as a mapping or as a list). Unknown keys are refused at every level. Reading
//! the text itself (YAML, of which JSON is a part) is the caller's.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    str::FromStr,
};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    ApiError, Cpu, NodeName, Size, Span,
    id::check_name,
    node::TaintEffect,
    op::Submission,
    secret::{SecretTarget, SecretUse, check_secret_name},
    workload::{
        Checkpointing, Distributed, EnvVar, GpuRequest, HealthCheck, Hooks, Port, Priority, Probe, RestartPolicy,
        Toleration, TolerationOperator, Volume, VolumeSource, WorkloadSpec,
    },
};

/// The version that manifests name.
pub const API_VERSION: &str = "clawbernetes/v1";

/// The kind that a workload's manifest names.
pub const KIND: &str = "Workload";

/// The port of rank 0 where a manifest names none.
pub const DEFAULT_MASTER_PORT: u16 = 29_500;

/// Time between tries of a health check that names none.
pub const DEFAULT_HEALTH_INTERVAL: Span = Span::secs(30);

/// A health check's try that takes longer has failed, where the check names no limit.
pub const DEFAULT_HEALTH_TIMEOUT: Span = Span::secs(5);

/// Time between tries of a readiness check that names none: how long it may take until a workload that has become able
/// to serve is known to be.
pub const DEFAULT_READINESS_INTERVAL: Span = Span::secs(5);

/// Failed tries in a row after which a workload counts as unhealthy, where the check names no number.
pub const DEFAULT_HEALTH_FAILURES: u32 = 3;

/// Every key of a manifest with the path under which it belongs: for pointing out where a misplaced one goes.
pub const PATHS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "spec",
    "spec.image",
    "spec.command",
    "spec.gpus",
    "spec.gpus.count",
    "spec.gpus.type",
    "spec.gpus.memory",
    "spec.resources",
    "spec.resources.cpu",
    "spec.resources.memory",
    "spec.env",
    "spec.volumes",
    "spec.volumes.source",
    "spec.volumes.secret",
    "spec.volumes.key",
    "spec.volumes.mountPath",
    "spec.volumes.readOnly",
    "spec.volumes.sizeLimit",
    "spec.scheduling",
    "spec.scheduling.priority",
    "spec.scheduling.nodeSelector",
    "spec.scheduling.tolerations",
    "spec.scheduling.nodes",
    "spec.scheduling.node",
    "spec.scheduling.maxWait",
    "spec.constraints",
    "spec.constraints.timeout",
    "spec.constraints.retries",
    "spec.constraints.retryDelay",
    "spec.constraints.restartPolicy",
    "spec.constraints.grace",
    "spec.constraints.checkpointing",
    "spec.networking",
    "spec.networking.ports",
    "spec.networking.dynamicPorts",
    "spec.networking.distributed",
    "spec.networking.distributed.worldSize",
    "spec.networking.distributed.masterPort",
    "spec.healthCheck",
    "spec.readinessCheck",
    "spec.metricsPort",
    "spec.hooks",
    "spec.hooks.preStart",
    "spec.hooks.postStop",
];

/// A workload's manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Must be [`API_VERSION`].
    pub api_version: String,
    /// Must be [`KIND`].
    pub kind: String,
    /// What it is called.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is asked for.
    pub spec: Spec,
}

/// What a workload is called.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metadata {
    /// Its name. `None`: made from the image.
    pub name: Option<String>,
    /// Its namespace. `None`: the caller's.
    pub namespace: Option<String>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
}

/// What is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Spec {
    /// Container image. `None`: must come from elsewhere (a flag).
    pub image: Option<String>,
    /// The command. `None`: the image's own.
    pub command: Option<Command>,
    /// GPUs per node.
    pub gpus: Option<Gpus>,
    /// CPU and memory per node.
    pub resources: Option<Resources>,
    /// Environment.
    pub env: Option<Env>,
    /// Mounts.
    pub volumes: Option<Vec<VolumeEntry>>,
    /// Where it runs, and when.
    pub scheduling: Option<Scheduling>,
    /// How long, and how often.
    pub constraints: Option<Constraints>,
    /// Ports, and how a gang finds itself.
    pub networking: Option<Networking>,
    /// How it is told that it works.
    pub health_check: Option<HealthCheckEntry>,
    /// How it is told that it can serve.
    pub readiness_check: Option<HealthCheckEntry>,
    /// The port on which it serves its own metrics.
    pub metrics_port: Option<u16>,
    /// Commands around its own.
    pub hooks: Option<HooksEntry>,
}

/// A command as text, split into words as a shell would, or as a list of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `"python train.py"`.
    Text(String),
    /// `[python, train.py]`.
    Words(Vec<String>),
}

impl Command {
    fn words(self, field: &str) -> Result<Vec<String>, ApiError> {
        match self {
            Self::Words(words) => Ok(words),
            Self::Text(text) => split_command(field, &text),
        }
    }
}

fn hooks(entry: HooksEntry) -> Result<Hooks, ApiError> {
    Ok(Hooks {
        pre_start: hook("spec.hooks.preStart", entry.pre_start)?,
        post_stop: hook("spec.hooks.postStop", entry.post_stop)?,
    })
}

/// A hook is one command, written as text.
fn hook(field: &str, entry: Option<OneOrMore>) -> Result<Vec<String>, ApiError> {
    match entry.map(|list| list.0).unwrap_or_default().as_slice() {
        [] => Ok(Vec::new()),
        [command] => split_command(field, command),
        several => Err(
            ApiError::invalid(field, format!("{} commands are given, a hook is one", several.len()))
                .hint(format!("[\"sh -c '{}'\"]", several.join(" && "))),
        ),
    }
}

/// Splits a command into words as a POSIX shell would; nothing is expanded.
///
/// # Errors
/// `INVALID_ARGUMENT` on `field` where a quote isn't closed.
pub fn split_command(field: &str, text: &str) -> Result<Vec<String>, ApiError> {
    shlex::split(text).ok_or_else(|| {
        ApiError::invalid(
            field,
            format!("the command can't be split into words: a quote isn't closed in: {text}"),
        )
        .hint("close the quote, or name a shell: sh -c '…'")
    })
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Command;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command: text such as \"python train.py\", or a list of words")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Command, E> {
                Ok(Command::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Command, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(Command::Words(words))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// GPUs: a number, or number, model and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus(pub GpuRequest);

impl<'de> Deserialize<'de> for Gpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            count: u32,
            #[serde(default, rename = "type")]
            model: Option<String>,
            #[serde(default)]
            memory: Option<Size>,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Gpus;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of GPUs, or a mapping of count, type and memory")
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Gpus, E> {
                let count =
                    u32::try_from(count).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))?;
                Ok(Gpus(GpuRequest {
                    count,
                    ..GpuRequest::default()
                }))
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Gpus, E> {
                match u64::try_from(count) {
                    Ok(count) => self.visit_u64(count),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(count), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Gpus, A::Error> {
                let long = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Gpus(GpuRequest {
                    count: long.count,
                    model: long.model,
                    memory: long.memory,
                }))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// CPU and memory per node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resources {
    /// CPU cores. `None`: no reservation, no limit.
    pub cpu: Option<Cpu>,
    /// Memory, a limit and a reservation. `None`: neither.
    pub memory: Option<Size>,
}

/// The environment, in the order in which it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Env(pub Vec<EnvEntry>);

/// An environment variable: a value, or where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvEntry {
    /// Its name.
    pub name: String,
    /// Its value. `None`: it must come from elsewhere.
    #[serde(default)]
    pub value: Option<String>,
    /// Where its value comes from.
    #[serde(default)]
    pub value_from: Option<ValueFrom>,
}

/// Where the value of an environment variable comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueFrom {
    /// A secret: its name, or name and key.
    pub secret_ref: SecretRef,
}

/// A secret's name, or its name and one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    /// Its name.
    pub name: String,
    /// One of its keys. `None`: the whole of it.
    pub key: Option<String>,
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            name: String,
            #[serde(default)]
            key: Option<String>,
        }
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = SecretRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret's name, or a mapping of name and key")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<SecretRef, E> {
                Ok(SecretRef {
                    name: name.to_owned(),
                    key: None,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretRef, A::Error> {
                let Long { name, key } = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(SecretRef { name, key })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Env;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of names to values, or a list of {name, value}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
                let mut env = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
                    env.push(EnvEntry {
                        name,
                        value: Some(value.unwrap_or_default()),
                        value_from: None,
                    });
                }
                Ok(Env(env))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Env, A::Error> {
                let mut env = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    env.push(entry);
                }
                Ok(Env(env))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// A mount: a path of the node, an empty folder, or a file with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeEntry {
    /// Its name; may be left out.
    #[serde(default)]
    pub name: Option<String>,
    /// `hostPath` (the default), `emptyDir` or `secret`.
    #[serde(default, rename = "type")]
    pub kind: VolumeKind,
    /// Path on the node.
    #[serde(default)]
    pub source: Option<String>,
    /// The secret that is the file's content.
    #[serde(default)]
    pub secret: Option<String>,
    /// One of the secret's keys. `None`: the whole of it.
    #[serde(default)]
    pub key: Option<String>,
    /// Where it appears.
    pub mount_path: String,
    /// Can't be written.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// `Memory`: an empty folder kept in memory.
    #[serde(default)]
    pub medium: Option<Medium>,
    /// Upper bound of an empty folder.
    #[serde(default)]
    pub size_limit: Option<Size>,
}

/// What a volume is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum VolumeKind {
    /// A folder or file of the node.
    #[default]
    HostPath,
    /// An empty folder.
    EmptyDir,
    /// A file in memory that holds a secret.
    Secret,
}

/// What keeps an empty folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Medium {
    /// The node's memory.
    Memory,
    /// The node's disk.
    Disk,
}

/// Where a workload runs, and when.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Scheduling {
    /// Place in the queue.
    pub priority: Option<Priority>,
    /// Labels that the node must carry.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Taints it puts up with.
    pub tolerations: Option<Vec<TolerationEntry>>,
    /// Number of nodes, all or none.
    pub nodes: Option<u32>,
    /// The one node it may run on.
    pub node: Option<String>,
    /// Longest stay in the queue.
    pub max_wait: Option<Span>,
}

/// A taint that a workload puts up with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TolerationEntry {
    /// The taint's key. `None`: every key.
    pub key: Option<String>,
    /// How the value is compared.
    pub operator: Option<TolerationOperator>,
    /// The value, for `Equal`.
    pub value: Option<String>,
    /// Which effect. `None`: every one.
    pub effect: Option<TaintEffect>,
}

/// How long, and how often.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Constraints {
    /// Longest run of one attempt; 0 means none.
    pub timeout: Option<Span>,
    /// New attempts after a failure.
    pub retries: Option<u32>,
    /// Time before a new attempt.
    pub retry_delay: Option<Span>,
    /// When it is started again.
    pub restart_policy: Option<RestartEntry>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Option<Span>,
    /// Checkpoints.
    pub checkpointing: Option<CheckpointingEntry>,
}

/// When a workload is started again, as manifests spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum RestartEntry {
    /// Only `retries` count.
    #[serde(alias = "never")]
    Never,
    /// After each failure.
    #[serde(alias = "on-failure")]
    OnFailure,
    /// After each end.
    #[serde(alias = "always")]
    Always,
}

impl From<RestartEntry> for RestartPolicy {
    fn from(entry: RestartEntry) -> Self {
        match entry {
            RestartEntry::Never => Self::Never,
            RestartEntry::OnFailure => Self::OnFailure,
            RestartEntry::Always => Self::Always,
        }
    }
}

/// A promise to write checkpoints.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointingEntry {
    /// `None`: yes.
    pub enabled: Option<bool>,
    /// How often.
    pub interval: Option<Span>,
    /// Where; needed where it is enabled.
    pub path: Option<String>,
}

/// Ports, and how a gang finds itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Networking {
    /// Ports it listens on.
    pub ports: Option<Vec<PortEntry>>,
    /// The ports' numbers are names, the node picks the real ones. `None`: no.
    pub dynamic_ports: Option<bool>,
    /// How a gang finds itself.
    pub distributed: Option<DistributedEntry>,
}

/// A port that a workload listens on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortEntry {
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// `TCP` (the default) or `UDP`.
    #[serde(default)]
    pub protocol: Option<Protocol>,
}

/// A port's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[serde(rename = "TCP", alias = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP", alias = "udp")]
    Udp,
}

/// How a gang finds itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DistributedEntry {
    /// `None`: yes.
    pub enabled: Option<bool>,
    /// Number of members. `None`: the number of nodes.
    pub world_size: Option<u32>,
    /// The port of rank 0. `None`: [`DEFAULT_MASTER_PORT`].
    pub master_port: Option<u16>,
}

/// How it is told that a workload works: exactly one of `http`, `tcp` and `command`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthCheckEntry {
    /// A URL, a path, or a port.
    pub http: Option<Target>,
    /// A port.
    pub tcp: Option<u16>,
    /// A command.
    pub command: Option<Command>,
    /// Time between tries.
    pub interval: Option<Span>,
    /// A try that takes longer has failed.
    pub timeout: Option<Span>,
    /// After this many failed tries in a row it is unhealthy.
    pub failures: Option<u32>,
}

/// A URL, path or port, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(pub String);

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl Visitor<'_> for Form {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, a path such as /healthz, or a port")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                Ok(Target(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, port: u64) -> Result<Target, E> {
                match u16::try_from(port) {
                    Ok(port) => Ok(Target(port.to_string())),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Unsigned(port), &self)),
                }
            }
            fn visit_i64<E: de::Error>(self, port: i64) -> Result<Target, E> {
                match u64::try_from(port) {
                    Ok(port) => self.visit_u64(port),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(port), &self)),
                }
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// Commands around the workload's own.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HooksEntry {
    /// Command to run before it.
    pub pre_start: Option<OneOrMore>,
    /// Command to run after it.
    pub post_stop: Option<OneOrMore>,
}

/// One text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMore(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = OneOrMore;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of commands, each one text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMore, A::Error> {
                let mut commands = Vec::new();
                while let Some(command) = seq.next_element()? {
                    commands.push(command);
                }
                Ok(OneOrMore(commands))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

impl TryFrom<Manifest> for Submission {
    type Error = ApiError;

    /// What the manifest says, checked as far as that needs no fleet; fields are named by their place in the manifest.
    fn try_from(manifest: Manifest) -> Result<Self, ApiError> {
        let Manifest {
            api_version,
            kind,
            metadata,
            spec,
        } = manifest;
        if api_version != API_VERSION {
            return Err(
                ApiError::invalid("apiVersion", format!("apiVersion '{api_version}' isn't known"))
                    .hint(format!("write apiVersion: {API_VERSION}")),
            );
        }
        if kind != KIND {
            return Err(
                ApiError::invalid("kind", format!("kind '{kind}' isn't known")).hint(format!("write kind: {KIND}"))
            );
        }
        named("metadata.name", metadata.name.as_deref())?;
        named("metadata.namespace", metadata.namespace.as_deref())?;
        Ok(Self {
            name: metadata.name,
            namespace: metadata.namespace,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec: spec.try_into()?,
        })
    }
}

/// Checks a name where there is one.
fn named(field: &str, name: Option<&str>) -> Result<(), ApiError> {
    match name.map(check_name) {
        Some(Err(error)) => {
            Err(ApiError::invalid(field, format!("'{}' is no name", name.unwrap_or_default())).cause(error.to_string()))
        }
        _ => Ok(()),
    }
}

impl TryFrom<Spec> for WorkloadSpec {
    type Error = ApiError;

    fn try_from(spec: Spec) -> Result<Self, ApiError> {
        let scheduling = spec.scheduling.unwrap_or_default();
        let constraints = spec.constraints.unwrap_or_default();
        let networking = spec.networking.unwrap_or_default();
        let resources = spec.resources.unwrap_or_default();
        let node = scheduling
            .node
            .map(|node| {
                NodeName::from_str(&node).map_err(|error| {
                    ApiError::invalid("spec.scheduling.node", format!("'{node}' is no node's name"))
                        .cause(error.to_string())
                })
            })
            .transpose()?;
        let (env, mut secrets) = environment(spec.env.unwrap_or_default())?;
        let mut volumes = Vec::new();
        for (i, entry) in spec.volumes.unwrap_or_default().into_iter().enumerate() {
            match volume(&format!("spec.volumes[{i}]"), entry)? {
                Mounted::Volume(volume) => volumes.push(volume),
                Mounted::Secret(entry) => secrets.push(entry),
            }
        }
        SecretUse::check_all("spec.secrets", &secrets)?;
        Ok(Self {
            image: spec.image.unwrap_or_default(),
            command: spec
                .command
                .map(|command| command.words("spec.command"))
                .transpose()?
                .unwrap_or_default(),
            gpus: spec.gpus.map(|gpus| gpus.0).unwrap_or_default(),
            cpu: resources.cpu,
            memory: resources.memory,
            env,
            secrets,
            volumes,
            priority: scheduling.priority.unwrap_or_default(),
            node_selector: scheduling.node_selector.unwrap_or_default(),
            node,
            tolerations: scheduling
                .tolerations
                .unwrap_or_default()
                .into_iter()
                .enumerate()
                .map(|(i, entry)| toleration(&format!("spec.scheduling.tolerations[{i}]"), entry))
                .collect::<Result<_, _>>()?,
            nodes: scheduling.nodes.unwrap_or(1),
            timeout: constraints.timeout.filter(|timeout| !timeout.is_zero()),
            retries: constraints.retries.unwrap_or_default(),
            retry_delay: constraints.retry_delay,
            restart: constraints.restart_policy.map(Into::into).unwrap_or_default(),
            max_wait: scheduling.max_wait,
            grace: constraints.grace,
            checkpointing: constraints.checkpointing.map(checkpointing).transpose()?.flatten(),
            ports: networking
                .ports
                .unwrap_or_default()
                .into_iter()
                .map(Into::into)
                .collect(),
            distributed: networking.distributed.and_then(distributed),
            dynamic_ports: networking.dynamic_ports.unwrap_or_default(),
            health_check: spec
                .health_check
                .map(|entry| health_check("spec.healthCheck", DEFAULT_HEALTH_INTERVAL, entry))
                .transpose()?,
            readiness: spec
                .readiness_check
                .map(|entry| health_check("spec.readinessCheck", DEFAULT_READINESS_INTERVAL, entry))
                .transpose()?,
            hooks: spec.hooks.map(hooks).transpose()?,
            metrics_port: spec.metrics_port,
        })
    }
}

/// Values, and those that come from secrets.
fn environment(env: Env) -> Result<(Vec<EnvVar>, Vec<SecretUse>), ApiError> {
    let mut seen = HashSet::new();
    let (mut variables, mut secrets) = (Vec::with_capacity(env.0.len()), Vec::new());
    for (
        i,
        EnvEntry {
            name,
            value,
            value_from,
        },
    ) in env.0.into_iter().enumerate()
    {
        let field = format!("spec.env[{i}]");
        check_env_name(&format!("{field}.name"), &name)?;
        if !seen.insert(name.clone()) {
            return Err(ApiError::invalid(field, format!("{name} is set twice")));
        }
        match (value, value_from) {
            (Some(value), None) => variables.push(EnvVar { name, value }),
            (None, Some(ValueFrom { secret_ref })) => {
                check_secret_name(&format!("{field}.valueFrom.secretRef"), &secret_ref.name)?;
                secrets.push(SecretUse {
                    secret: secret_ref.name,
                    key: secret_ref.key,
                    to: SecretTarget::Env(name),
                });
            }
            (None, None) => {
                return Err(ApiError::invalid(
                    format!("{field}.value"),
                    format!("{name} has no value"),
                ));
            }
            (Some(_), Some(_)) => {
                let message = format!("{name} has a value, and one that comes from a secret");
                return Err(ApiError::invalid(format!("{field}.valueFrom"), message));
            }
        }
    }
    Ok((variables, secrets))
}

/// Checks an environment variable's name.
///
/// # Errors
/// `INVALID_ARGUMENT` on `field` where the name is empty or holds `=` or a zero byte.
pub fn check_env_name(field: &str, name: &str) -> Result<(), ApiError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(ApiError::invalid(
            field,
            format!("'{}' can't be the name of an environment variable", name.escape_debug()),
        ));
    }
    Ok(())
}

/// Checks a mount's source: an absolute path of the node.
///
/// # Errors
/// `INVALID_ARGUMENT` on `field` for addresses (`s3://…`), which no engine can mount, and for paths that are relative or
/// lead upwards.
pub fn check_mount_source(field: &str, source: &str) -> Result<(), ApiError> {
    if let Some((scheme, _)) = source.split_once("://") {
        return Err(ApiError::invalid(
            field,
            format!("'{source}' can't be mounted: no engine of this fleet mounts {scheme}://"),
        )
        .hint("mount a path of the node, or fetch the data in the workload's command"));
    }
    if !is_absolute(source) {
        return Err(ApiError::invalid(
            field,
            format!("'{source}' is no absolute path of the node"),
        ));
    }
    Ok(())
}

/// Checks a mount's place in the workload.
///
/// # Errors
/// `INVALID_ARGUMENT` on `field` where it isn't absolute, or leads upwards.
pub fn check_mount_path(field: &str, path: &str) -> Result<(), ApiError> {
    if is_absolute(path) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            field,
            format!("'{path}' is no absolute path in the workload"),
        ))
    }
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

/// What an entry of `volumes` is.
enum Mounted {
    Volume(Volume),
    Secret(SecretUse),
}

fn volume(field: &str, entry: VolumeEntry) -> Result<Mounted, ApiError> {
    let misplaced = |key: &str, kind: &str| {
        Err(ApiError::invalid(
            format!("{field}.{key}"),
            format!("{key} has no meaning for a volume of type {kind}"),
        ))
    };
    check_mount_path(&format!("{field}.mountPath"), &entry.mount_path)?;
    if entry.kind != VolumeKind::Secret {
        let kind = if entry.kind == VolumeKind::HostPath {
            "hostPath"
        } else {
            "emptyDir"
        };
        if entry.secret.is_some() {
            return misplaced("secret", kind);
        }
        if entry.key.is_some() {
            return misplaced("key", kind);
        }
    }
    let source = match entry.kind {
        VolumeKind::HostPath => {
            if entry.medium.is_some() {
                return misplaced("medium", "hostPath");
            }
            if entry.size_limit.is_some() {
                return misplaced("sizeLimit", "hostPath");
            }
            let source = entry.source.ok_or_else(|| {
                ApiError::invalid(format!("{field}.source"), "a volume needs a source")
                    .hint("give source: /path/on/the/node, or type: emptyDir for an empty folder")
            })?;
            check_mount_source(&format!("{field}.source"), &source)?;
            VolumeSource::HostPath {
                source,
                read_only: entry.read_only.unwrap_or_default(),
            }
        }
        VolumeKind::EmptyDir => {
            if entry.source.is_some() {
                return misplaced("source", "emptyDir");
            }
            if entry.read_only == Some(true) {
                return misplaced("readOnly", "emptyDir");
            }
            VolumeSource::EmptyDir {
                memory: entry.medium == Some(Medium::Memory),
                size_limit: entry.size_limit,
            }
        }
        VolumeKind::Secret => {
            let others = [
                ("source", entry.source.is_some()),
                ("medium", entry.medium.is_some()),
                ("sizeLimit", entry.size_limit.is_some()),
                ("readOnly", entry.read_only == Some(false)),
            ];
            if let Some((key, _)) = others.into_iter().find(|(_, there)| *there) {
                return misplaced(key, "secret");
            }
            let secret = entry
                .secret
                .ok_or_else(|| ApiError::invalid(format!("{field}.secret"), "which secret?"))?;
            check_secret_name(&format!("{field}.secret"), &secret)?;
            return Ok(Mounted::Secret(SecretUse {
                secret,
                key: entry.key,
                to: SecretTarget::File(entry.mount_path),
            }));
        }
    };
    Ok(Mounted::Volume(Volume {
        name: entry.name.unwrap_or_default(),
        mount_path: entry.mount_path,
        source,
    }))
}

fn toleration(field: &str, entry: TolerationEntry) -> Result<Toleration, ApiError> {
    let operator = entry.operator.unwrap_or_default();
    if entry.key.is_none() && operator == TolerationOperator::Equal {
        return Err(ApiError::invalid(
            format!("{field}.key"),
            "a toleration without a key needs operator: Exists",
        ));
    }
    Ok(Toleration {
        key: entry.key,
        operator,
        value: entry.value.unwrap_or_default(),
        effect: entry.effect,
    })
}

fn checkpointing(entry: CheckpointingEntry) -> Result<Option<Checkpointing>, ApiError> {
    if entry.enabled == Some(false) {
        return Ok(None);
    }
    let path = entry.path.ok_or_else(|| {
        ApiError::invalid(
            "spec.constraints.checkpointing.path",
            "checkpointing needs a path to write to",
        )
    })?;
    Ok(Some(Checkpointing {
        interval: entry.interval,
        path,
    }))
}

fn distributed(entry: DistributedEntry) -> Option<Distributed> {
    (entry.enabled != Some(false)).then_some(Distributed {
        world_size: entry.world_size,
        master_port: entry.master_port.unwrap_or(DEFAULT_MASTER_PORT),
    })
}

fn health_check(field: &str, interval: Span, entry: HealthCheckEntry) -> Result<HealthCheck, ApiError> {
    let probe = match (entry.http, entry.tcp, entry.command) {
        (Some(http), None, None) => Probe::Http(http.0),
        (None, Some(tcp), None) => Probe::Tcp(tcp),
        (None, None, Some(command)) => Probe::Command(command.words(&format!("{field}.command"))?),
        _ => {
            return Err(ApiError::invalid(
                field,
                "a check has exactly one of http, tcp and command",
            ));
        }
    };
    Ok(HealthCheck {
        probe,
        interval: entry.interval.unwrap_or(interval),
        timeout: entry.timeout.unwrap_or(DEFAULT_HEALTH_TIMEOUT),
        failures: entry.failures.unwrap_or(DEFAULT_HEALTH_FAILURES),
    })
}

impl From<PortEntry> for Port {
    fn from(entry: PortEntry) -> Self {
        Self {
            name: entry.name.unwrap_or_default(),
            port: entry.port,
            protocol: match entry.protocol {
                None | Some(Protocol::Tcp) => "TCP".to_owned(),
                Some(Protocol::Udp) => "UDP".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn submit(spec: serde_json::Value) -> Result<Submission, ApiError> {
        let manifest = json!({"apiVersion": API_VERSION, "kind": KIND, "spec": spec});
        let manifest: Manifest = serde_json::from_value(manifest).map_err(|e| ApiError::internal(e.to_string()))?;
        manifest.try_into()
    }

    #[test]
    fn short_and_long_forms_mean_the_same() {
        let short = submit(json!({
            "image": "host", "command": "python train.py 'a b'", "gpus": 4, "env": {"A": "1", "B": "x"}
        }));
        let long = submit(json!({
            "image": "host", "command": ["python", "train.py", "a b"], "gpus": {"count": 4},
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "x"}]
        }));
        assert_eq!(short.unwrap(), long.unwrap());
    }

    #[test]
    fn a_timeout_of_zero_is_none() {
        let spec = |timeout| {
            submit(json!({"image": "host", "constraints": {"timeout": timeout}}))
                .unwrap()
                .spec
        };
        assert_eq!(spec(json!(0)).timeout, None);
        assert_eq!(spec(json!("0s")).timeout, None);
        assert_eq!(spec(json!("24h")).timeout, Some(Span::secs(86_400)));
    }

    #[test]
    fn a_health_check_tries_one_thing_with_defaults() {
        let check = submit(json!({"image": "host", "healthCheck": {"http": 8080}}))
            .unwrap()
            .spec
            .health_check;
        assert_eq!(
            check,
            Some(HealthCheck {
                probe: Probe::Http("8080".to_owned()),
                interval: Span::secs(30),
                timeout: Span::secs(5),
                failures: 3
            })
        );
        let readiness = submit(json!({"image": "host", "readinessCheck": {"http": "/ready", "failures": 1}}))
            .unwrap()
            .spec
            .readiness;
        assert_eq!(
            readiness,
            Some(HealthCheck {
                probe: Probe::Http("/ready".to_owned()),
                interval: Span::secs(5),
                timeout: Span::secs(5),
                failures: 1
            })
        );
        for key in ["healthCheck", "readinessCheck"] {
            let none = submit(json!({"image": "host", key: {"interval": "5s"}})).unwrap_err();
            assert_eq!(none.field, Some(format!("spec.{key}")));
        }
    }

    #[test]
    fn ports_may_be_names() {
        let spec = |networking| submit(json!({"image": "host", "networking": networking})).unwrap().spec;
        let named = spec(json!({"dynamicPorts": true, "ports": [{"name": "http", "port": 8000}]}));
        assert!(named.dynamic_ports && named.ports[0].port == 8000);
        assert!(!spec(json!({"ports": [{"port": 8000}]})).dynamic_ports);
    }

    #[test]
    fn secrets_come_from_env_and_volumes() {
        let spec = submit(json!({
            "image": "host",
            "env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": {"secretRef": {"name": "db", "key": "user"}}}],
            "volumes": [{"type": "secret", "secret": "tls", "mountPath": "/run/secrets/tls"}],
        }))
        .unwrap()
        .spec;
        assert_eq!(spec.env.len(), 1);
        assert!(spec.volumes.is_empty());
        let secret = |secret: &str, key: Option<&str>, to| SecretUse {
            secret: secret.to_owned(),
            key: key.map(str::to_owned),
            to,
        };
        assert_eq!(
            spec.secrets,
            [
                secret("db", Some("user"), SecretTarget::Env("B".to_owned())),
                secret("tls", None, SecretTarget::File("/run/secrets/tls".to_owned())),
            ]
        );
    }

    #[test]
    fn what_cannot_work_names_its_field() {
        for (spec, field) in [
            (
                json!({"env": [{"name": "K", "valueFrom": {"secretRef": "S!"}}]}),
                "spec.env[0].valueFrom.secretRef",
            ),
            (
                json!({"env": [{"name": "K", "value": "x", "valueFrom": {"secretRef": "s"}}]}),
                "spec.env[0].valueFrom",
            ),
            (
                json!({"volumes": [{"mountPath": "/x", "type": "secret"}]}),
                "spec.volumes[0].secret",
            ),
            (
                json!({"volumes": [{"mountPath": "/x", "type": "secret", "secret": "s", "source": "/a"}]}),
                "spec.volumes[0].source",
            ),
            (
                json!({"volumes": [{"mountPath": "/x", "source": "/a", "secret": "s"}]}),
                "spec.volumes[0].secret",
            ),
            (json!({"env": [{"name": "K"}]}), "spec.env[0].value"),
            (json!({"env": {"A=B": "x"}}), "spec.env[0].name"),
            (json!({"command": "echo 'x"}), "spec.command"),
            (
                json!({"volumes": [{"mountPath": "/x", "source": "s3://b/k"}]}),
                "spec.volumes[0].source",
            ),
            (
                json!({"volumes": [{"mountPath": "x", "source": "/a"}]}),
                "spec.volumes[0].mountPath",
            ),
            (
                json!({"volumes": [{"mountPath": "/x", "type": "emptyDir", "source": "/a"}]}),
                "spec.volumes[0].source",
            ),
            (json!({"volumes": [{"mountPath": "/x"}]}), "spec.volumes[0].source"),
            (
                json!({"scheduling": {"tolerations": [{"value": "x"}]}}),
                "spec.scheduling.tolerations[0].key",
            ),
            (json!({"scheduling": {"node": "Gpu 7"}}), "spec.scheduling.node"),
            (
                json!({"constraints": {"checkpointing": {"enabled": true}}}),
                "spec.constraints.checkpointing.path",
            ),
        ] {
            let error = submit(spec.clone()).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{spec}: {error:?}");
        }
    }
}
