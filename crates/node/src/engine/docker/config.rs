//! From an assignment to the container that carries it out: pure, so that it can be read and tested without Docker.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::PathBuf,
};

use api::{
    Size,
    secret::SecretValue,
    wire::Assignment,
    workload::{HeldGpu, JobKey, Port, Volume, VolumeSource},
};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountTmpfsOptions,
    MountType, PortBinding, PortMap, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::engine::published;

/// Whose container it is: the agent adopts only its own.
pub(super) const LABEL_NODE: &str = "io.clawbernetes.node";
/// The job's key.
pub(super) const LABEL_JOB: &str = "io.clawbernetes.job";
/// The workload's id.
pub(super) const LABEL_WORKLOAD: &str = "io.clawbernetes.workload";
/// The workload's name.
pub(super) const LABEL_NAME: &str = "io.clawbernetes.name";
/// The workload's namespace.
pub(super) const LABEL_NAMESPACE: &str = "io.clawbernetes.namespace";
/// What the container is to its job: see [`Role`].
pub(super) const LABEL_ROLE: &str = "io.clawbernetes.role";
/// The hook before the command, as a JSON array; only on a job's main container.
pub(super) const LABEL_PRE_START: &str = "io.clawbernetes.pre-start";
/// The hook after the command, as a JSON array; only on a job's main container.
pub(super) const LABEL_POST_STOP: &str = "io.clawbernetes.post-stop";
/// There where the job uses secrets: its output isn't read before it is known what must not be readable in it.
pub(super) const LABEL_SECRETS: &str = "io.clawbernetes.secrets";
/// Milliseconds between SIGTERM and SIGKILL, which also bound the hook after the command.
pub(super) const LABEL_GRACE: &str = "io.clawbernetes.grace-ms";

/// Holds the job's key in its environment.
const JOB_VARIABLE: &str = "CLAWBERNETES_JOB";

/// GPUs with this prefix are made up: a job gets only the environment that names them.
const SIMULATED: &str = "SIM-";

/// Log files that Docker keeps of one container: output is read as it comes, so this only has to outlast the time
/// in which no agent runs.
const LOG_FILE_BYTES: &str = "256m";
const LOG_FILES: &str = "2";

/// What a container is to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It runs the command.
    Main,
    /// It runs the hook before the command.
    PreStart,
    /// It runs the hook after the command.
    PostStop,
}

impl Role {
    /// The value of [`LABEL_ROLE`].
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::PreStart => "pre-start",
            Self::PostStop => "post-stop",
        }
    }

    /// The role of that name.
    #[must_use]
    pub(super) fn read(name: &str) -> Option<Self> {
        [Self::Main, Self::PreStart, Self::PostStop]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// The name of the container that has this role for a job.
    #[must_use]
    pub(super) fn container(self, job: &JobKey) -> String {
        match self {
            Self::Main => format!("clawbernetes-{job}"),
            Self::PreStart => format!("clawbernetes-{job}-pre"),
            Self::PostStop => format!("clawbernetes-{job}-post"),
        }
    }
}

/// How containers are given GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuAccess {
    /// By NVIDIA's container runtime: a device request with driver `nvidia`.
    Nvidia,
    /// By the Container Device Interface: a device request for `nvidia.com/gpu=<uuid>`.
    Cdi,
    /// By the Container Device Interface, as Podman's API takes it: a device of that name.
    CdiDevice,
}

/// What a container's configuration depends on beside the assignment.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// The node's name.
    pub(super) node: String,
    /// How containers are given GPUs.
    pub(super) gpus: GpuAccess,
    /// Device files of GPUs that are given by file (AMD), by uuid.
    pub(super) device_files: BTreeMap<String, Vec<String>>,
    /// Docker's network mode: `host`, `bridge`, `none` or a network's name.
    pub(super) network: String,
    /// The same where ports are published.
    pub(super) publish_network: String,
    /// Where they are published.
    pub(super) publish_at: IpAddr,
    /// Docker's log driver; must be one that keeps lines with their times and can be read back.
    pub(super) log_driver: &'static str,
    /// Whether the daemon may lift the limit on locked memory for a container.
    pub(super) lock_memory: bool,
    /// Memory of the machine. `None`: unknown.
    pub(super) memory_total: Option<Size>,
    /// The cgroup under which the container's own is made. `None`: the daemon's choice.
    pub(super) cgroup_parent: Option<String>,
}

/// What a container gets of secrets. Its variables stand in Docker's own files; labels say nothing of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given<'a> {
    /// Variables.
    pub(super) env: &'a [(String, SecretValue)],
    /// Files of this machine, and where they are mounted.
    pub(super) files: &'a [(PathBuf, String)],
}

/// The container that runs an assignment's command.
///
/// The command takes the place of the image's entry point and command both, so that what is asked for is what runs.
#[must_use]
pub(super) fn main_container(job: &Assignment, around: &Surroundings, secrets: Given<'_>) -> ContainerCreateBody {
    let mut labels = labels(&job.job, Role::Main, around);
    labels.insert(LABEL_NAME.to_owned(), job.name.clone());
    labels.insert(LABEL_NAMESPACE.to_owned(), job.namespace.clone());
    labels.insert(LABEL_GRACE.to_owned(), job.grace.millis().to_string());
    if !job.secrets.is_empty() {
        labels.insert(LABEL_SECRETS.to_owned(), "true".to_owned());
    }
    if let Some(hooks) = &job.hooks {
        for (label, command) in [(LABEL_PRE_START, &hooks.pre_start), (LABEL_POST_STOP, &hooks.post_stop)] {
            if !command.is_empty() {
                labels.insert(label.to_owned(), serde_json::Value::from(command.clone()).to_string());
            }
        }
    }
    let real: Vec<&HeldGpu> = job.gpus.iter().filter(|gpu| !gpu.uuid.starts_with(SIMULATED)).collect();
    let has_gpus = !real.is_empty();
    let (by_file, by_name): (Vec<&HeldGpu>, Vec<&HeldGpu>) = real
        .into_iter()
        .partition(|gpu| around.device_files.contains_key(&gpu.uuid));
    let (device_requests, mut devices) = name_devices(&by_name, around.gpus);
    let mut files: Vec<&String> = by_file.iter().flat_map(|gpu| &around.device_files[&gpu.uuid]).collect();
    files.sort();
    files.dedup();
    devices.extend(files.into_iter().map(|path| DeviceMapping {
        path_on_host: Some(path.clone()),
        path_in_container: Some(path.clone()),
        cgroup_permissions: Some("rw".to_owned()),
    }));
    let memory = job.memory.map(bytes);
    let bindings = published(job).then(|| port_bindings(job, around));
    let files = secrets.files.iter().map(|(from, at)| Mount {
        target: Some(at.clone()),
        source: Some(from.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Default::default()
    });
    ContainerCreateBody {
        image: Some(with_tag(&job.image)),
        entrypoint: (!job.command.is_empty()).then(|| job.command.clone()),
        env: Some(environment(job, around, secrets.env)),
        labels: Some(labels),
        exposed_ports: bindings.as_ref().map(|bindings| bindings.keys().cloned().collect()),
        attach_stdin: Some(false),
        open_stdin: Some(false),
        tty: Some(false),
        host_config: Some(HostConfig {
            memory,
            // The same as memory: no swap on top of the limit.
            memory_swap: memory,
            nano_cpus: job.cpu.map(|cpu| i64::from(cpu.0) * 1_000_000),
            mounts: Some(job.volumes.iter().map(mount).chain(files).collect()),
            device_requests: (!device_requests.is_empty()).then_some(device_requests),
            devices: (!devices.is_empty()).then_some(devices),
            // Docker's own 64 MiB break data loaders; what is used of it counts against the memory limit.
            shm_size: memory.or(around.memory_total.map(|total| bytes(total) / 2)),
            // Pinned memory, without which NCCL and RDMA can't register buffers.
            ulimits: (around.lock_memory && has_gpus).then(|| {
                vec![ResourcesUlimits {
                    name: Some("memlock".to_owned()),
                    soft: Some(-1),
                    hard: Some(-1),
                }]
            }),
            network_mode: Some(match bindings {
                Some(_) => around.publish_network.clone(),
                None => around.network.clone(),
            }),
            port_bindings: bindings,
            ..host_config(around)
        }),
        ..Default::default()
    }
}

/// Which port of the node stands for which of the container.
fn port_bindings(job: &Assignment, around: &Surroundings) -> PortMap {
    let binding = |(port, host_port): (&Port, &u16)| {
        let inside = format!("{}/{}", port.port, port.protocol.to_lowercase());
        let outside = PortBinding {
            host_ip: Some(around.publish_at.to_string()),
            host_port: Some(host_port.to_string()),
        };
        (inside, Some(vec![outside]))
    };
    job.ports.iter().zip(&job.host_ports).map(binding).collect()
}

/// The container that runs one of a job's hooks, made after the job's main container: the same image, environment,
/// folders, limits and GPUs, another command. Folders in memory are its own.
#[must_use]
pub(super) fn hook_container(
    main: &ContainerCreateBody,
    job: &JobKey,
    role: Role,
    command: Vec<String>,
) -> ContainerCreateBody {
    let mut body = main.clone();
    body.entrypoint = Some(command);
    body.cmd = None;
    if let Some(labels) = &mut body.labels {
        labels.insert(LABEL_ROLE.to_owned(), role.name().to_owned());
        for label in [LABEL_PRE_START, LABEL_POST_STOP] {
            labels.remove(label);
        }
    }
    if let Some(host) = &mut body.host_config {
        host.volumes_from = Some(vec![Role::Main.container(job)]);
        if let Some(mounts) = &mut host.mounts {
            mounts.retain(|mount| mount.typ == Some(MountType::TMPFS));
        }
    }
    body
}

fn host_config(around: &Surroundings) -> HostConfig {
    HostConfig {
        cgroup_parent: around.cgroup_parent.clone(),
        // A reaper as process 1: hands signals on, and the command dies of a signal that it doesn't handle.
        init: Some(true),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some(around.log_driver.to_owned()),
            config: Some(match around.log_driver {
                "json-file" => HashMap::from([
                    ("max-size".to_owned(), LOG_FILE_BYTES.to_owned()),
                    ("max-file".to_owned(), LOG_FILES.to_owned()),
                ]),
                _ => HashMap::new(),
            }),
        }),
        ..Default::default()
    }
}

fn labels(job: &JobKey, role: Role, around: &Surroundings) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_NODE.to_owned(), around.node.clone()),
        (LABEL_JOB.to_owned(), job.to_string()),
        (LABEL_WORKLOAD.to_owned(), job.workload.to_string()),
        (LABEL_ROLE.to_owned(), role.name().to_owned()),
    ])
}

/// The job's own environment with its secrets, then what names its GPUs: nobody may widen that.
fn environment(job: &Assignment, around: &Surroundings, secrets: &[(String, SecretValue)]) -> Vec<String> {
    let named = visible(&job.gpus, around);
    let free = |var: &str| named.iter().all(|(name, _)| *name != var);
    let own = job
        .env
        .iter()
        .filter(|var| free(&var.name) && secrets.iter().all(|(name, _)| *name != var.name))
        .map(|var| format!("{}={}", var.name, var.value));
    let secret = secrets
        .iter()
        .filter(|(name, _)| free(name) && name != JOB_VARIABLE)
        .filter_map(|(name, value)| Some(format!("{name}={}", value.expose_text()?)));
    own.chain(secret)
        .chain([format!("{JOB_VARIABLE}={}", job.job)])
        .chain(named.iter().map(|(name, value)| format!("{name}={value}")))
        .collect()
}

/// Which GPUs a job may see. All of the variables are set: an empty one hides what a missing one would show.
fn visible(gpus: &[HeldGpu], around: &Surroundings) -> [(&'static str, String); 4] {
    let join = |names: Vec<String>| names.join(",");
    let simulated = gpus.iter().any(|gpu| gpu.uuid.starts_with(SIMULATED));
    let by_file = gpus.iter().any(|gpu| around.device_files.contains_key(&gpu.uuid));
    let uuids = join(gpus.iter().map(|gpu| gpu.uuid.clone()).collect());
    let (cuda, hip) = match (simulated, by_file) {
        (true, _) => {
            let indexes = join(gpus.iter().map(|gpu| gpu.index.to_string()).collect());
            (indexes.clone(), indexes)
        }
        // Only their own files are in the container, and are counted anew there.
        (false, true) => {
            let counted = join((0..gpus.len()).map(|index| index.to_string()).collect());
            (counted.clone(), counted)
        }
        (false, false) => (uuids.clone(), String::new()),
    };
    // `void` also keeps NVIDIA's runtime, where it is Docker's default, from handing over GPUs by itself.
    let by_runtime = !gpus.is_empty() && !simulated && !by_file && around.gpus == GpuAccess::Nvidia;
    [
        (
            "NVIDIA_VISIBLE_DEVICES",
            if by_runtime { uuids } else { "void".to_owned() },
        ),
        ("CUDA_VISIBLE_DEVICES", cuda),
        ("HIP_VISIBLE_DEVICES", hip.clone()),
        ("ROCR_VISIBLE_DEVICES", hip),
    ]
}

fn name_devices(gpus: &[&HeldGpu], access: GpuAccess) -> (Vec<DeviceRequest>, Vec<DeviceMapping>) {
    if gpus.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let cdi = |gpu: &&HeldGpu| format!("nvidia.com/gpu={}", gpu.uuid);
    match access {
        GpuAccess::Nvidia => {
            let request = DeviceRequest {
                driver: Some("nvidia".to_owned()),
                device_ids: Some(gpus.iter().map(|gpu| gpu.uuid.clone()).collect()),
                capabilities: Some(vec![vec!["gpu".to_owned(), "compute".to_owned(), "utility".to_owned()]]),
                ..Default::default()
            };
            (vec![request], Vec::new())
        }
        GpuAccess::Cdi => {
            let request = DeviceRequest {
                driver: Some("cdi".to_owned()),
                device_ids: Some(gpus.iter().map(cdi).collect()),
                ..Default::default()
            };
            (vec![request], Vec::new())
        }
        GpuAccess::CdiDevice => {
            let devices = gpus.iter().map(|gpu| DeviceMapping {
                path_on_host: Some(cdi(gpu)),
                ..Default::default()
            });
            (Vec::new(), devices.collect())
        }
    }
}

fn mount(volume: &Volume) -> Mount {
    let target = Some(volume.mount_path.clone());
    match &volume.source {
        VolumeSource::HostPath { source, read_only } => Mount {
            target,
            source: Some(source.clone()),
            typ: Some(MountType::BIND),
            read_only: Some(*read_only),
            ..Default::default()
        },
        VolumeSource::EmptyDir {
            memory: true,
            size_limit,
        } => Mount {
            target,
            typ: Some(MountType::TMPFS),
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: size_limit.map(bytes),
                mode: Some(0o1777),
                ..Default::default()
            }),
            ..Default::default()
        },
        // A volume without a name, removed with its container.
        VolumeSource::EmptyDir { memory: false, .. } => Mount {
            target,
            typ: Some(MountType::VOLUME),
            ..Default::default()
        },
    }
}

fn bytes(size: Size) -> i64 {
    i64::try_from(size.bytes()).unwrap_or(i64::MAX)
}

/// `image`, or `image:latest` where it names neither tag nor digest (Docker would fetch every tag).
#[must_use]
pub(super) fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use api::{Cpu, Span, WorkloadId, workload::EnvVar, workload::Hooks};

    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            node: "gpu-7".to_owned(),
            gpus: GpuAccess::Nvidia,
            device_files: BTreeMap::new(),
            network: "host".to_owned(),
            publish_network: "bridge".to_owned(),
            publish_at: std::net::Ipv4Addr::LOCALHOST.into(),
            log_driver: "json-file",
            lock_memory: true,
            memory_total: Some(Size::gib(64)),
            cgroup_parent: None,
        }
    }

    fn job(gpus: &[&str]) -> Assignment {
        Assignment {
            job: JobKey {
                workload: WorkloadId::new("wl-a"),
                attempt: 2,
                rank: 1,
            },
            name: "train".to_owned(),
            namespace: "default".to_owned(),
            image: "registry:5000/torch".to_owned(),
            command: vec!["python".to_owned(), "train.py".to_owned()],
            env: vec![EnvVar {
                name: "CUDA_VISIBLE_DEVICES".to_owned(),
                value: "all".to_owned(),
            }],
            secrets: Vec::new(),
            volumes: Vec::new(),
            gpus: (0..)
                .zip(gpus)
                .map(|(index, uuid)| HeldGpu {
                    index,
                    uuid: (*uuid).to_owned(),
                })
                .collect(),
            cpu: Some(Cpu(1500)),
            memory: Some(Size::gib(2)),
            timeout: None,
            grace: Span::secs(7),
            checkpointing: None,
            gang: None,
            ports: Vec::new(),
            dynamic_ports: false,
            host_ports: Vec::new(),
            health_check: None,
            readiness: None,
            hooks: None,
            metrics_port: None,
            stop: None,
        }
    }

    fn host(body: &ContainerCreateBody) -> &HostConfig {
        body.host_config.as_ref().unwrap()
    }

    /// What the job sees of NVIDIA's, CUDA's and ROCm's GPUs.
    fn seen(body: &ContainerCreateBody) -> [&str; 4] {
        ["NVIDIA", "CUDA", "HIP", "ROCR"].map(|maker| {
            let start = format!("{maker}_VISIBLE_DEVICES=");
            let mut all = body
                .env
                .as_ref()
                .unwrap()
                .iter()
                .filter_map(|var| var.strip_prefix(&start));
            let value = all.next().unwrap();
            assert_eq!(all.next(), None);
            value
        })
    }

    #[test]
    fn gpus_are_requested_by_uuid() {
        let body = main_container(&job(&["GPU-1", "GPU-2"]), &around(), Given::default());
        let [request] = host(&body).device_requests.as_deref().unwrap() else {
            panic!("one request");
        };
        assert_eq!(request.driver.as_deref(), Some("nvidia"));
        assert_eq!(request.device_ids.as_deref().unwrap(), ["GPU-1", "GPU-2"]);
        assert_eq!(request.count, None);
        assert_eq!(seen(&body), ["GPU-1,GPU-2", "GPU-1,GPU-2", "", ""]);
        assert_eq!(host(&body).ulimits.as_ref().unwrap()[0].soft, Some(-1));
    }

    #[test]
    fn gpus_are_requested_by_device_interface_where_the_engine_has_it() {
        let cdi = Surroundings {
            gpus: GpuAccess::Cdi,
            ..around()
        };
        let body = main_container(&job(&["GPU-1"]), &cdi, Given::default());
        let request = &host(&body).device_requests.as_ref().unwrap()[0];
        assert_eq!(request.driver.as_deref(), Some("cdi"));
        assert_eq!(request.device_ids.as_deref().unwrap(), ["nvidia.com/gpu=GPU-1"]);
        assert_eq!(seen(&body), ["void", "GPU-1", "", ""]);

        let podman = Surroundings {
            gpus: GpuAccess::CdiDevice,
            ..around()
        };
        let body = main_container(&job(&["GPU-1"]), &podman, Given::default());
        assert_eq!(host(&body).device_requests, None);
        assert_eq!(
            host(&body).devices.as_ref().unwrap()[0].path_on_host.as_deref(),
            Some("nvidia.com/gpu=GPU-1")
        );
    }

    #[test]
    fn gpus_are_given_by_file_where_files_are_known() {
        let amd = Surroundings {
            device_files: BTreeMap::from([
                (
                    "amd-1".to_owned(),
                    vec!["/dev/kfd".to_owned(), "/dev/dri/renderD128".to_owned()],
                ),
                (
                    "amd-2".to_owned(),
                    vec!["/dev/kfd".to_owned(), "/dev/dri/renderD129".to_owned()],
                ),
            ]),
            ..around()
        };
        let body = main_container(&job(&["amd-1", "amd-2"]), &amd, Given::default());
        let paths: Vec<&str> = host(&body)
            .devices
            .as_ref()
            .unwrap()
            .iter()
            .map(|device| device.path_on_host.as_deref().unwrap())
            .collect();
        assert_eq!(paths, ["/dev/dri/renderD128", "/dev/dri/renderD129", "/dev/kfd"]);
        assert_eq!(seen(&body), ["void", "0,1", "0,1", "0,1"]);
        assert_eq!(host(&body).device_requests, None);
    }

    #[test]
    fn picked_ports_are_published_and_others_are_the_nodes() {
        let mut job = job(&[]);
        let port = |name: &str, port, protocol: &str| Port {
            name: name.to_owned(),
            port,
            protocol: protocol.to_owned(),
        };
        job.ports = vec![port("http", 8000, "TCP"), port("dns", 53, "UDP")];
        let body = main_container(&job, &around(), Given::default());
        assert_eq!(host(&body).network_mode.as_deref(), Some("host"));
        assert_eq!((&host(&body).port_bindings, &body.exposed_ports), (&None, &None));

        job.dynamic_ports = true;
        job.host_ports = vec![20_001, 20_002];
        let body = main_container(&job, &around(), Given::default());
        assert_eq!(host(&body).network_mode.as_deref(), Some("bridge"));
        let bindings = host(&body).port_bindings.clone().unwrap();
        let at = |port: &str| {
            let [binding] = bindings[port].as_deref().unwrap() else {
                panic!("one binding");
            };
            (binding.host_ip.clone().unwrap(), binding.host_port.clone().unwrap())
        };
        assert_eq!(at("8000/tcp"), ("127.0.0.1".to_owned(), "20001".to_owned()));
        assert_eq!(at("53/udp"), ("127.0.0.1".to_owned(), "20002".to_owned()));
        assert_eq!(body.exposed_ports.map(|ports| ports.len()), Some(2));

        // A gang finds itself by the nodes' addresses.
        job.gang = Some(api::wire::Gang {
            world_size: 2,
            master_address: "10.0.0.1".to_owned(),
            distributed: None,
        });
        let body = main_container(&job, &around(), Given::default());
        assert_eq!(host(&body).network_mode.as_deref(), Some("host"));
        assert_eq!(host(&body).port_bindings, None);
    }

    #[test]
    fn secrets_are_variables_and_files_and_no_labels() {
        let mut job = job(&[]);
        job.secrets = vec![api::secret::SecretUse {
            secret: "db".to_owned(),
            key: None,
            to: api::secret::SecretTarget::Env("TOKEN".to_owned()),
        }];
        job.env.push(EnvVar {
            name: "TOKEN".to_owned(),
            value: "plain".to_owned(),
        });
        let value = |name: &str| (name.to_owned(), SecretValue::from("hunter2".to_owned()));
        let env = [value("TOKEN"), value("HIP_VISIBLE_DEVICES"), value("CLAWBERNETES_JOB")];
        let files = [(PathBuf::from("/run/x/0"), "/etc/token".to_owned())];
        let given = Given {
            env: &env,
            files: &files,
        };
        let body = main_container(&job, &around(), given);
        let secret: Vec<&String> = body
            .env
            .as_ref()
            .unwrap()
            .iter()
            .filter(|var| var.contains("hunter2"))
            .collect();
        assert_eq!(secret, ["TOKEN=hunter2"]);
        assert!(!body.env.as_ref().unwrap().iter().any(|var| var == "TOKEN=plain"));
        let mount = &host(&body).mounts.as_ref().unwrap()[0];
        assert_eq!(
            (mount.source.as_deref(), mount.target.as_deref()),
            (Some("/run/x/0"), Some("/etc/token"))
        );
        assert_eq!((mount.typ, mount.read_only), (Some(MountType::BIND), Some(true)));
        let labels = body.labels.unwrap();
        assert_eq!(labels[LABEL_SECRETS], "true");
        assert!(!format!("{labels:?}").contains("hunter2"));
        let plain = main_container(&self::job(&[]), &around(), Given::default());
        assert!(!plain.labels.unwrap().contains_key(LABEL_SECRETS));
    }

    #[test]
    fn a_job_without_gpus_sees_none() {
        let body = main_container(&job(&[]), &around(), Given::default());
        assert_eq!(host(&body).device_requests, None);
        assert_eq!(host(&body).devices, None);
        assert_eq!(seen(&body), ["void", "", "", ""]);
    }

    #[test]
    fn simulated_gpus_are_only_named() {
        let body = main_container(&job(&["SIM-1"]), &around(), Given::default());
        assert_eq!(host(&body).device_requests, None);
        assert_eq!(seen(&body), ["void", "0", "0", "0"]);
    }

    #[test]
    fn limits_and_lifetime() {
        let body = main_container(&job(&[]), &around(), Given::default());
        let host = host(&body);
        assert_eq!((host.memory, host.memory_swap), (Some(2 << 30), Some(2 << 30)));
        assert_eq!(host.nano_cpus, Some(1_500_000_000));
        assert_eq!(host.shm_size, Some(2 << 30));
        assert_eq!((host.auto_remove, host.init), (Some(false), Some(true)));
        assert_eq!(body.image.as_deref(), Some("registry:5000/torch:latest"));
        assert_eq!(body.entrypoint.as_deref().unwrap(), ["python", "train.py"]);
        assert_eq!(body.labels.as_ref().unwrap()[LABEL_JOB], "wl-a.2.1");

        let mut unlimited = job(&[]);
        (unlimited.memory, unlimited.cpu) = (None, None);
        unlimited.command.clear();
        let body = main_container(&unlimited, &around(), Given::default());
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap, host.nano_cpus), (None, None, None));
        assert_eq!(host.shm_size, Some(32 << 30));
        assert_eq!(body.entrypoint, None);
    }

    #[test]
    fn hooks_share_all_but_the_command() {
        let mut job = job(&["GPU-1"]);
        let empty = |memory, path: &str| Volume {
            name: String::new(),
            mount_path: path.to_owned(),
            source: VolumeSource::EmptyDir {
                memory,
                size_limit: Some(Size::mib(1)),
            },
        };
        job.volumes = vec![empty(false, "/scratch"), empty(true, "/fast")];
        job.hooks = Some(Hooks {
            pre_start: vec!["prepare".to_owned(), "a b".to_owned()],
            post_stop: Vec::new(),
        });
        let main = main_container(&job, &around(), Given::default());
        assert_eq!(main.labels.as_ref().unwrap()[LABEL_PRE_START], r#"["prepare","a b"]"#);
        assert!(!main.labels.as_ref().unwrap().contains_key(LABEL_POST_STOP));
        let fast = &host(&main).mounts.as_ref().unwrap()[1];
        assert_eq!(fast.tmpfs_options.as_ref().unwrap().size_bytes, Some(1 << 20));

        let hook = hook_container(&main, &job.job, Role::PreStart, vec!["prepare".to_owned()]);
        assert_eq!(hook.entrypoint.as_deref().unwrap(), ["prepare"]);
        assert_eq!(hook.labels.as_ref().unwrap()[LABEL_ROLE], "pre-start");
        assert_eq!(host(&hook).device_requests, host(&main).device_requests);
        assert_eq!(host(&hook).volumes_from.as_deref().unwrap(), ["clawbernetes-wl-a.2.1"]);
        assert_eq!(host(&hook).mounts.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn images_get_a_tag() {
        for (image, wanted) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("host:5000/busybox", "host:5000/busybox:latest"),
            ("host:5000/busybox:1", "host:5000/busybox:1"),
            ("busybox@sha256:00", "busybox@sha256:00"),
        ] {
            assert_eq!(with_tag(image), wanted);
        }
    }
}
