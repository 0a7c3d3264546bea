//! New workloads: checked field by field before anything changes.

use std::sync::Arc;

use api::{
    ApiError, ErrorCode, Size, Span, Timestamp, WorkloadId,
    id::check_name,
    manifest::{check_env_name, check_mount_path, check_mount_source},
    op::Submission,
    secret::{SecretTarget, SecretUse},
    workload::{HOST_IMAGE, HealthCheck, Phase, Probe, RestartPolicy, Volume, VolumeSource, Workload, WorkloadSpec},
};

/// Namespace of a workload that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most GPUs per node that can be asked for: no machine has more, and a typing error is caught.
const GPUS_MAX: u32 = 1024;
/// Largest gang.
const NODES_MAX: u32 = 10_000;
/// Largest specification, written as JSON: a node is told of it in one frame.
const SPEC_MAX_BYTES: usize = 768 << 10;
/// Most bytes of environment and command together; Linux refuses 2 MiB at exec.
const ARGS_MAX_BYTES: usize = 512 << 10;
/// Most ports of one workload that a node picks.
const DYNAMIC_PORTS_MAX: usize = 32;

/// A workload from a submission, waiting.
///
/// # Errors
/// `INVALID_ARGUMENT` with the offending field.
pub fn workload(submission: Submission, random: u64, owner: &str, now: Timestamp) -> Result<Workload, ApiError> {
    let Submission {
        name,
        namespace,
        labels,
        annotations,
        spec,
    } = submission;
    let id = WorkloadId::from_random(random);
    check_spec(&spec)?;
    SecretUse::check_all("spec.secrets", &spec.secrets)?;
    if let Some(var) = spec.env.iter().find(|var| {
        let gets = |used: &SecretUse| matches!(&used.to, SecretTarget::Env(name) if *name == var.name);
        spec.secrets.iter().any(gets)
    }) {
        return Err(ApiError::invalid(
            "spec.secrets",
            format!("{} has a value, and one that comes from a secret", var.name),
        ));
    }
    let name = match name {
        Some(name) => {
            check_name(&name).map_err(|e| ApiError::invalid("metadata.name", format!("'{name}' is no name: {e}")))?;
            name
        }
        None => name_for(&spec.image, &id),
    };
    let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    check_name(&namespace)
        .map_err(|e| ApiError::invalid("metadata.namespace", format!("'{namespace}' is no namespace: {e}")))?;
    let mut warnings = Vec::new();
    if spec.timeout.is_none() && spec.restart != RestartPolicy::Always {
        warnings.push("no timeout was given: a job that hangs keeps its GPUs until somebody cancels it".to_owned());
    }
    Ok(Workload {
        id,
        name,
        namespace,
        owner: owner.to_owned(),
        labels,
        annotations,
        spec: Arc::new(spec),
        phase: Phase::Pending,
        reason: None,
        message: None,
        attempt: 0,
        members: Vec::new(),
        submitted_at: now,
        started_at: None,
        finished_at: None,
        exit_code: None,
        restarts: 0,
        failures: 0,
        relapses: 0,
        not_before: None,
        stop: None,
        target: None,
        avoid: Vec::new(),
        lapsed_at: None,
        timeline: vec![api::workload::Transition {
            at: now,
            phase: Phase::Pending,
            attempt: 0,
            reason: None,
            message: Some("submitted".to_owned()),
            actor: format!("user:{owner}"),
        }],
        past: Vec::new(),
        warnings,
    })
}

/// A name made from the image: `pytorch-3f9a`.
fn name_for(image: &str, id: &WorkloadId) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let stem: String = last
        .split([':', '@'])
        .next()
        .unwrap_or(last)
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .take(40)
        .collect();
    let stem = stem.trim_matches('-');
    let suffix = &id.as_str()[id.as_str().len() - 5..];
    if stem.is_empty() {
        format!("job-{suffix}")
    } else {
        format!("{stem}-{suffix}")
    }
}

fn check_spec(spec: &WorkloadSpec) -> Result<(), ApiError> {
    let invalid = |field: &str, message: String| Err(ApiError::invalid(field, message));
    if spec.image.is_empty() {
        return Err(ApiError::invalid("spec.image", "an image is needed")
            .hint("--image pytorch/pytorch:2.1-cuda12.1-runtime, or --image host for a command of the node itself"));
    }
    if spec.image.len() > 512 || spec.image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return invalid(
            "spec.image",
            format!("'{}' is no image name", spec.image.escape_debug()),
        );
    }
    if spec.image == HOST_IMAGE && spec.command.is_empty() {
        return Err(
            ApiError::invalid("spec.command", "the image 'host' has no command of its own: name one")
                .hint("--command \"nvidia-smi\""),
        );
    }
    if spec.command.first().is_some_and(|c| c.is_empty()) {
        return invalid("spec.command", "the command's first word is empty".to_owned());
    }
    if spec.gpus.count > GPUS_MAX {
        return invalid(
            "spec.gpus",
            format!(
                "{} GPUs on one node: at most {GPUS_MAX} can be asked for",
                spec.gpus.count
            ),
        );
    }
    if spec.gpus.count == 0 && (spec.gpus.model.is_some() || spec.gpus.memory.is_some()) {
        return invalid(
            "spec.gpus",
            "a GPU type or GPU memory is asked for, but no GPUs".to_owned(),
        );
    }
    if spec.nodes > NODES_MAX {
        return invalid(
            "spec.scheduling.nodes",
            format!("{} nodes: at most {NODES_MAX} can be asked for", spec.nodes),
        );
    }
    if spec.memory.is_some_and(|m| m < Size::mib(4)) {
        return invalid(
            "spec.resources.memory",
            "nothing runs in less than 4Mi of memory".to_owned(),
        );
    }
    if spec.cpu.is_some_and(|c| c.millis() == 0) {
        return invalid("spec.resources.cpu", "the CPU share must be more than 0".to_owned());
    }
    if spec.timeout.is_some_and(Span::is_zero) {
        return invalid(
            "spec.constraints.timeout",
            "a timeout of 0 means none: leave it out".to_owned(),
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    for var in &spec.env {
        let field = format!("spec.env.{}", var.name);
        check_env_name(&field, &var.name)?;
        if var.value.contains('\0') {
            return invalid(&field, "a value can't hold a zero byte".to_owned());
        }
        if !seen.insert(&var.name) {
            return invalid(&field, format!("{} is given twice", var.name));
        }
    }
    if spec.command.iter().any(|word| word.contains('\0')) {
        return invalid("spec.command", "a command can't hold a zero byte".to_owned());
    }
    let bytes: usize = spec.command.iter().map(String::len).sum::<usize>()
        + spec.env.iter().map(|v| v.name.len() + v.value.len() + 2).sum::<usize>();
    if bytes > ARGS_MAX_BYTES {
        return invalid(
            "spec",
            format!("command and environment have {bytes} bytes: at most {ARGS_MAX_BYTES} are possible"),
        );
    }
    let size = serde_json::to_vec(spec).map_or(usize::MAX, |json| json.len());
    if size > SPEC_MAX_BYTES {
        return invalid(
            "spec",
            format!("the specification has {size} bytes: at most {SPEC_MAX_BYTES} are possible"),
        );
    }
    for volume in &spec.volumes {
        check_volume(volume)?;
    }
    let checks = [
        ("spec.healthCheck", &spec.health_check),
        ("spec.readinessCheck", &spec.readiness),
    ];
    for (field, check) in checks {
        let Some(check) = check else { continue };
        if check.interval.is_zero() || check.timeout.is_zero() || check.failures == 0 {
            return invalid(field, "interval, timeout and failures must be more than 0".to_owned());
        }
        if matches!(&check.probe, Probe::Command(words) if words.is_empty()) {
            return invalid(&format!("{field}.command"), "the command is empty".to_owned());
        }
    }
    if spec.dynamic_ports {
        check_dynamic_ports(spec)?;
    }
    if let Some(world) = spec.distributed.as_ref().and_then(|d| d.world_size)
        && world < spec.node_count()
    {
        return invalid(
            "spec.networking.distributed.worldSize",
            format!(
                "a world of {world} is smaller than the gang of {} nodes",
                spec.node_count()
            ),
        );
    }
    if spec.node.is_some() && spec.node_count() > 1 {
        return invalid("spec.scheduling.nodes", "a gang can't be pinned to one node".to_owned());
    }
    Ok(())
}

/// Checks ports whose numbers are names.
fn check_dynamic_ports(spec: &WorkloadSpec) -> Result<(), ApiError> {
    const FIELD: &str = "spec.networking.ports";
    let ports = &spec.ports;
    if ports.is_empty() {
        return Err(ApiError::invalid(
            "spec.networking.dynamicPorts",
            "no ports are declared for which the node could pick real ones",
        )
        .hint("networking: {dynamicPorts: true, ports: [{name: http, port: 8000}]}"));
    }
    if ports.len() > DYNAMIC_PORTS_MAX {
        let message = format!("{} ports: a node picks at most {DYNAMIC_PORTS_MAX}", ports.len());
        return Err(ApiError::invalid(FIELD, message));
    }
    let mut numbers = std::collections::BTreeSet::new();
    if let Some(twice) = ports.iter().find(|port| !numbers.insert(port.port)) {
        let message = format!("port {} is declared twice", twice.port);
        return Err(ApiError::invalid(FIELD, message));
    }
    if numbers.contains(&0) {
        return Err(ApiError::invalid(
            FIELD,
            "a port's number is 1 to 65535, also as a name",
        ));
    }
    // Only declared ports have a real one: replicas would meet on any other, and containers can't be reached there.
    let tried = |check: &Option<HealthCheck>| match check.as_ref().map(|check| &check.probe) {
        Some(Probe::Tcp(port)) => Some(*port),
        _ => None,
    };
    for (field, port) in [
        ("spec.metricsPort", spec.metrics_port),
        ("spec.healthCheck.tcp", tried(&spec.health_check)),
        ("spec.readinessCheck.tcp", tried(&spec.readiness)),
    ] {
        if let Some(port) = port.filter(|port| !numbers.contains(port)) {
            let message = format!("with dynamicPorts only declared ports can be reached, and {port} isn't declared");
            return Err(
                ApiError::invalid(field, message).hint(format!("networking: {{ports: [{{name: …, port: {port}}}]}}"))
            );
        }
    }
    Ok(())
}

fn check_volume(volume: &Volume) -> Result<(), ApiError> {
    let field = format!(
        "spec.volumes.{}",
        if volume.name.is_empty() {
            &volume.mount_path
        } else {
            &volume.name
        }
    );
    check_mount_path(&field, &volume.mount_path)?;
    if let VolumeSource::HostPath { source, .. } = &volume.source {
        check_mount_source(&field, source)?;
    }
    Ok(())
}

/// The refusal of a name that an active workload has.
#[must_use]
pub fn name_taken(name: &str, namespace: &str, holder: Option<&WorkloadId>) -> ApiError {
    let by = holder.map(|id| format!(" ({id})")).unwrap_or_default();
    ApiError {
        field: Some("metadata.name".to_owned()),
        ..ApiError::new(
            ErrorCode::AlreadyExists,
            format!("a workload named '{name}' that hasn't ended exists in namespace '{namespace}'{by}"),
        )
        .hint("choose another --name, or cancel that one")
    }
}

#[cfg(test)]
mod tests {
    use api::workload::{EnvVar, Port};

    use super::*;

    fn spec() -> WorkloadSpec {
        WorkloadSpec {
            image: "host".to_owned(),
            command: vec!["true".to_owned()],
            ..WorkloadSpec::default()
        }
    }

    fn refused(spec: WorkloadSpec) -> String {
        let submission = Submission {
            spec,
            ..Submission::default()
        };
        workload(submission, 1, "ada", Timestamp::UNIX_EPOCH)
            .unwrap_err()
            .field
            .unwrap_or_default()
    }

    #[test]
    fn names_are_made_from_images() {
        let id = WorkloadId::from_random(7);
        assert_eq!(
            name_for("registry:5000/pytorch/PyTorch:2.1@sha256:x", &id),
            "pytorch-00000"
        );
        assert_eq!(name_for("///", &id), "job-00000");
    }

    #[test]
    fn each_bad_field_is_named() {
        let var = |name: &str| EnvVar {
            name: name.to_owned(),
            value: String::new(),
        };
        let volume = |source: &str| Volume {
            name: String::new(),
            mount_path: "/data".to_owned(),
            source: VolumeSource::HostPath {
                source: source.to_owned(),
                read_only: false,
            },
        };
        assert_eq!(
            refused(WorkloadSpec {
                image: String::new(),
                ..spec()
            }),
            "spec.image"
        );
        assert_eq!(
            refused(WorkloadSpec {
                command: vec![],
                ..spec()
            }),
            "spec.command"
        );
        assert_eq!(
            refused(WorkloadSpec {
                env: vec![var("A"), var("A")],
                ..spec()
            }),
            "spec.env.A"
        );
        assert_eq!(
            refused(WorkloadSpec {
                env: vec![var("A=B")],
                ..spec()
            }),
            "spec.env.A=B"
        );
        assert_eq!(
            refused(WorkloadSpec {
                memory: Some(Size(1)),
                ..spec()
            }),
            "spec.resources.memory"
        );
        assert_eq!(
            refused(WorkloadSpec {
                volumes: vec![volume("s3://bucket")],
                ..spec()
            }),
            "spec.volumes./data"
        );
        assert_eq!(
            refused(WorkloadSpec {
                volumes: vec![volume("/a/../etc")],
                ..spec()
            }),
            "spec.volumes./data"
        );
        let dynamic = |numbers: &[u16]| WorkloadSpec {
            dynamic_ports: true,
            ports: numbers
                .iter()
                .map(|port| Port {
                    name: String::new(),
                    port: *port,
                    protocol: "TCP".to_owned(),
                })
                .collect(),
            ..spec()
        };
        assert_eq!(refused(dynamic(&[])), "spec.networking.dynamicPorts");
        assert_eq!(refused(dynamic(&[80, 443, 80])), "spec.networking.ports");
        let check = |probe, failures| HealthCheck {
            probe,
            interval: Span::secs(1),
            timeout: Span::secs(1),
            failures,
        };
        assert_eq!(refused(dynamic(&[0])), "spec.networking.ports");
        let metrics_port = Some(9400);
        assert_eq!(
            refused(WorkloadSpec {
                metrics_port,
                ..dynamic(&[80])
            }),
            "spec.metricsPort"
        );
        let readiness = Some(check(Probe::Tcp(81), 1));
        assert_eq!(
            refused(WorkloadSpec {
                readiness,
                ..dynamic(&[80])
            }),
            "spec.readinessCheck.tcp"
        );
        for (probe, failures, field) in [
            (Probe::Tcp(80), 0, "spec.readinessCheck"),
            (Probe::Command(Vec::new()), 1, "spec.readinessCheck.command"),
        ] {
            let readiness = Some(check(probe, failures));
            assert_eq!(refused(WorkloadSpec { readiness, ..spec() }), field);
        }
        assert_eq!(
            refused(WorkloadSpec {
                timeout: Some(Span(0)),
                ..spec()
            }),
            "spec.constraints.timeout"
        );
    }

    #[test]
    fn a_missing_timeout_is_worth_a_warning() {
        let submission = Submission {
            spec: spec(),
            ..Submission::default()
        };
        let w = workload(submission, 1, "ada", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(w.warnings.len(), 1);
        let submission = Submission {
            spec: WorkloadSpec {
                timeout: Some(Span::secs(1)),
                ..spec()
            },
            ..Submission::default()
        };
        assert!(
            workload(submission, 1, "ada", Timestamp::UNIX_EPOCH)
                .unwrap()
                .warnings
                .is_empty()
        );
    }
}
