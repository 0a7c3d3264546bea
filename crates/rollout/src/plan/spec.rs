//! What a replica runs.

use api::{
    ApiError, Cpu, Size, Span,
    workload::{EnvVar, HOST_IMAGE, HealthCheck, Port, Priority, Probe, RestartPolicy, WorkloadSpec},
};

use super::{
    Facts, MEMORY_MIN, Notes,
    amount::{self, Wrong},
    image,
};
use crate::intent::{Amount, Care, Intent};

/// What tells a workload which version of itself it is, where its image can't.
const VERSION: &str = "VERSION";

/// What a replica, or a batch job, will run, and what that is called.
#[derive(Debug)]
pub(super) struct Built {
    pub spec: WorkloadSpec,
    pub version: Option<String>,
}

/// What the sentence is said on top of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Base<'a> {
    /// The revision's before, or the ended workload's. `None`: nothing.
    pub spec: Option<&'a WorkloadSpec>,
    /// What that is called.
    pub version: Option<&'a str>,
}

/// The specification: the template (`--file`), otherwise that of `base`, with what the sentence says.
///
/// The variable `VERSION` is set to the version where the image is [`HOST_IMAGE`], and wherever the base already has that
/// variable: what asks for it is told the truth, and nothing else gets a variable that it might take for another.
pub(super) fn build(intent: &Intent, facts: &Facts<'_>, base: Base<'_>, notes: &mut Notes) -> Result<Built, ApiError> {
    let mut spec = facts.template.or(base.spec).cloned().unwrap_or_default();
    let base_image = match facts.template {
        Some(template) if !template.image.is_empty() => (template.image.as_str(), None),
        _ => base.spec.map_or(("", None), |spec| (spec.image.as_str(), base.version)),
    };
    let named = intent.image.as_deref().or(facts.image);
    let said = intent.version.as_deref();
    let resolved = image::resolve(named, said, base_image.0, base_image.1, notes)?;
    spec.image = resolved.image;

    if !intent.command.is_empty() {
        spec.command.clone_from(&intent.command);
    }
    if spec.image == HOST_IMAGE && spec.command.is_empty() {
        notes
            .missing
            .push("a command: the image 'host' has none of its own (--file with a command)".to_owned());
    }
    set_gpus(&mut spec, intent)?;
    set_memory(&mut spec, intent.memory, facts.memory_used, notes)?;
    if let Some(amount) = intent.cpu {
        spec.cpu = Some(cpu(spec.cpu, amount)?);
    }
    if let Some(priority) = intent.priority {
        spec.priority = priority;
    }
    if let Some(version) = said
        && (spec.image == HOST_IMAGE || spec.env.iter().any(|var| var.name == VERSION))
    {
        set_env(&mut spec.env, VERSION, version);
    }
    for var in &intent.env {
        set_env(&mut spec.env, &var.name, &var.value);
    }
    if let Some(port) = intent.port {
        set_port(&mut spec, port)?;
    }
    Ok(Built {
        spec,
        version: resolved.version,
    })
}

/// What makes a specification one of a service's replicas.
///
/// - it is started again whenever it ends
/// - its ports are names for ports that the node picks, so that two replicas fit on one node
/// - it is ready when its first TCP port accepts connections, where it doesn't say itself how that is told
pub(super) fn as_replica(spec: &mut WorkloadSpec, notes: &mut Notes) {
    spec.restart = RestartPolicy::Always;
    spec.dynamic_ports = !spec.ports.is_empty();
    if spec.readiness.is_none() {
        spec.readiness = first_tcp(spec).map(accepts_connections);
    }
    if let Some(timeout) = spec.timeout {
        notes.warn(format!(
            "each replica is stopped and started anew {timeout} after its start"
        ));
    }
}

/// "emergency" also means the head of the queue, where the replicas are started anew anyway.
pub(super) fn hurry(spec: &mut WorkloadSpec, intent: &Intent) {
    if intent.care == Some(Care::Emergency) && intent.priority.is_none() {
        spec.priority = Priority::High;
    }
}

/// Ready when the port accepts a connection: tried every second, 3 times in vain means no.
fn accepts_connections(port: u16) -> HealthCheck {
    HealthCheck {
        probe: Probe::Tcp(port),
        interval: Span::secs(1),
        timeout: Span::secs(1),
        failures: 3,
    }
}

fn first_tcp(spec: &WorkloadSpec) -> Option<u16> {
    spec.ports
        .iter()
        .find(|port| port.protocol == "TCP")
        .map(|port| port.port)
}

fn set_env(env: &mut Vec<EnvVar>, name: &str, value: &str) {
    match env.iter_mut().find(|var| var.name == name) {
        Some(var) => value.clone_into(&mut var.value),
        None => env.push(EnvVar {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
    }
}

/// The port on which it listens: the first of those declared is the one that the sentence is about.
fn set_port(spec: &mut WorkloadSpec, port: u16) -> Result<(), ApiError> {
    if port == 0 {
        return Err(ApiError::invalid("intent", "0 is no port: 1 to 65535"));
    }
    // What the port before was found ready by says nothing about this one.
    if first_tcp(spec).map(accepts_connections) == spec.readiness {
        spec.readiness = None;
    }
    match spec.ports.iter().position(|declared| declared.port == port) {
        Some(at) => spec.ports[..=at].rotate_right(1),
        None => match spec.ports.first_mut() {
            Some(first) => first.port = port,
            None => spec.ports.push(Port {
                name: String::new(),
                port,
                protocol: "TCP".to_owned(),
            }),
        },
    }
    Ok(())
}

fn set_gpus(spec: &mut WorkloadSpec, intent: &Intent) -> Result<(), ApiError> {
    if let Some(amount) = intent.gpus {
        let count = amount::applied(Some(u64::from(spec.gpus.count)), amount::map(amount, u64::from), 1)
            .map_err(|_| ApiError::invalid("intent", "GPUs can only be multiplied by a number above 0"))?;
        spec.gpus.count = u32::try_from(count).unwrap_or(u32::MAX);
        if spec.gpus.count == 0 {
            spec.gpus = api::workload::GpuRequest::default();
        }
    }
    if intent.gpu_model.is_some() || intent.gpu_memory.is_some() {
        if spec.gpus.count == 0 {
            if intent.gpus.is_some() {
                return Err(ApiError::invalid("intent", "a kind of GPU, and none of it"));
            }
            spec.gpus.count = 1;
        }
        if intent.gpu_model.is_some() {
            spec.gpus.model.clone_from(&intent.gpu_model);
        }
        spec.gpus.memory = intent.gpu_memory.or(spec.gpus.memory);
    }
    Ok(())
}

fn set_memory(
    spec: &mut WorkloadSpec,
    amount: Option<Amount<Size>>,
    used: Option<Size>,
    notes: &mut Notes,
) -> Result<(), ApiError> {
    if let Some(amount) = amount {
        let before = spec.memory.map(Size::bytes);
        // "half as much again" of whole mebibytes stays whole.
        let grain = match before {
            Some(bytes) if bytes % (1 << 20) == 0 => 1 << 20,
            _ => 1,
        };
        let bytes = amount::applied(before, amount::map(amount, Size::bytes), grain).map_err(|wrong| match wrong {
            Wrong::NothingToChange => ApiError::invalid("intent", "it has no memory limit to change")
                .hint("say how much it is to be: `memory to 64Gi`"),
            Wrong::Factor => ApiError::invalid("intent", "memory can only be multiplied by a number above 0"),
        })?;
        spec.memory = Some(Size(bytes));
        if let Some(used) = used
            && bytes < used.bytes()
        {
            notes.warn(format!(
                "a replica was measured to use {used} of memory: with {} it is likely to be killed for it",
                Size(bytes)
            ));
        }
    }
    match spec.memory {
        Some(memory) if memory < MEMORY_MIN => Err(ApiError::invalid(
            "intent",
            format!("{memory} of memory hold no process: {MEMORY_MIN} is the least"),
        )),
        _ => Ok(()),
    }
}

fn cpu(before: Option<Cpu>, amount: Amount<Cpu>) -> Result<Cpu, ApiError> {
    let before = before.map(|cpu| u64::from(cpu.millis()));
    let millis =
        amount::applied(before, amount::map(amount, |cpu| u64::from(cpu.millis())), 1).map_err(
            |wrong| match wrong {
                Wrong::NothingToChange => ApiError::invalid("intent", "it has no share of CPU to change")
                    .hint("say how much it is to be: `cpu to 4`"),
                Wrong::Factor => ApiError::invalid("intent", "CPU can only be multiplied by a number above 0"),
            },
        )?;
    match u32::try_from(millis) {
        Ok(0) => Err(ApiError::invalid("intent", "nothing runs on no CPU at all")),
        Ok(millis) => Ok(Cpu(millis)),
        Err(_) => Err(ApiError::invalid("intent", "so much CPU doesn't exist")),
    }
}
