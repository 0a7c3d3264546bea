//! `clawbernetes run`

use std::{process::ExitCode, time::Duration};

use api::{
    ApiError, Cpu, ErrorCode, NodeName, Size, Span,
    manifest::{check_env_name, check_mount_path, check_mount_source, split_command},
    op::{
        LogsRequest, Submission, SubmitRequest, Submitted, WorkloadDetail, WorkloadRef, WorkloadSubmit, WorkloadWatch,
    },
    secret::{SecretTarget, SecretUse, check_secret_name},
    workload::{EnvVar, GpuRequest, Phase, Priority, RestartPolicy, Volume, VolumeSource, Workload, WorkloadSpec},
};
use clap::ValueEnum;

use super::{
    node::pair,
    workload::{
        stream_logs,
        watch::{interruptible, report_end, until_ended},
    },
};
use crate::{
    cli::App,
    client::Client,
    config::{Settings, Source},
    failure::Outcome,
    manifest_file::{self, Document},
    output::{Format, Page, ago, preview},
};

/// How long the answer on whether it runs or waits is waited for, after a submission.
const NOTICE_PATIENCE: Duration = Duration::from_millis(500);

/// Submit a workload; prints its id
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    clawbernetes run --image pytorch/pytorch:2.1-cuda12.1-runtime --gpus 4 --memory 64Gi --timeout 48h \\\n    \
        --name gpt-finetune --command \"python train.py --epochs 100\"\n  \
    clawbernetes run --file workload.yaml --gpus 8 --name scaled-run\n  \
    clawbernetes run --image host --gpus 0 --timeout 5m --follow -- sh -c 'hostname; nproc'\n  \
    clawbernetes run --image trainer --gpus 1 --secret wandb-key=WANDB_API_KEY --secret tls-key=/run/secrets/tls.key\n  \
    clawbernetes run --file workload.yaml --dry-run")]
pub(crate) struct Args {
    /// Container image, or `host` for the node's own file system
    #[arg(long, value_name = "IMAGE", required_unless_present = "file")]
    image: Option<String>,
    /// Number of GPUs, per node; 0 is a CPU workload
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "file",
        allow_negative_numbers = true
    )]
    gpus: Option<u32>,
    /// Command to execute; split into words as a shell would, but no shell runs
    #[arg(long, value_name = "COMMAND", conflicts_with = "words")]
    command: Option<String>,
    /// Name for tracking [default: made from the image]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Memory per node (32Gi): a limit and a reservation
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Place in the queue [default: normal]
    #[arg(long, value_enum, value_name = "LEVEL")]
    priority: Option<PriorityName>,
    /// Longest run (24h); 0 means none
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// Environment variable; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Mount a path of the node; may be given several times
    #[arg(long, value_name = "SRC:DST[:ro]")]
    mount: Vec<String>,
    /// GPU model, matched by whole words (A100, H100)
    #[arg(long, value_name = "TYPE")]
    gpu_type: Option<String>,
    /// Least memory of each GPU (40Gi)
    #[arg(long, value_name = "SIZE")]
    gpu_memory: Option<Size>,
    /// CPU cores per node (4, 0.5, 500m)
    #[arg(long, value_name = "CORES")]
    cpus: Option<Cpu>,
    /// Number of nodes; all start or none (a gang) [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: Option<u32>,
    /// Label; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The one node it may run on
    #[arg(long, value_name = "NODE", add = crate::complete::nodes())]
    node: Option<NodeName>,
    /// Secret to give to it when it starts: in an environment variable (NAME alone: the name in capitals, as in
    /// DB_PASSWORD for db-password), or in a file in memory; may be given several times
    #[arg(long, value_name = "NAME[=ENV|=/PATH]", add = crate::complete::secrets())]
    secret: Vec<String>,
    /// New attempts after a failure [default: 0]
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// When it is started again [default: never]
    #[arg(long, value_enum, value_name = "POLICY")]
    restart: Option<RestartName>,
    /// Longest stay in the queue
    #[arg(long, value_name = "DURATION")]
    max_wait: Option<Span>,
    /// Time between SIGTERM and SIGKILL when it is stopped [default: 10s]
    #[arg(long, value_name = "DURATION")]
    grace: Option<Span>,
    /// Fail with NO_GPUS_AVAILABLE instead of queueing
    #[arg(long)]
    no_queue: bool,
    /// Wait for its end, and exit with its code
    #[arg(long)]
    wait: bool,
    /// Show its output until its end, and exit with its code
    #[arg(long)]
    follow: bool,
    /// Show where it would go, and why, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "follow"])]
    dry_run: bool,
    /// Manifest (YAML or JSON; - for standard input); flags override what it says
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<String>,
    /// The command, word by word
    #[arg(last = true, value_name = "WORDS")]
    words: Vec<String>,
}

/// The priorities by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PriorityName {
    /// May be preempted by high
    Low,
    /// Neither preempts nor is preempted
    Normal,
    /// May preempt low
    High,
}

impl From<PriorityName> for Priority {
    fn from(name: PriorityName) -> Self {
        match name {
            PriorityName::Low => Self::Low,
            PriorityName::Normal => Self::Normal,
            PriorityName::High => Self::High,
        }
    }
}

/// The restart policies by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RestartName {
    /// Only --retries count
    Never,
    /// After each failure, with growing delays
    OnFailure,
    /// After each end, success included
    Always,
}

impl From<RestartName> for RestartPolicy {
    fn from(name: RestartName) -> Self {
        match name {
            RestartName::Never => Self::Never,
            RestartName::OnFailure => Self::OnFailure,
            RestartName::Always => Self::Always,
        }
    }
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Outcome {
        let documents = self.submissions()?;
        let endless = self.timeout.is_some() || documents.iter().all(|document| document.endless);
        let mut workloads: Vec<Submission> = documents.into_iter().map(|document| document.workload).collect();
        let (client, settings) = app.session()?;
        for workload in &mut workloads {
            place_in_namespace(workload, &settings);
        }
        let request = SubmitRequest {
            workloads,
            dry_run: self.dry_run,
            no_queue: self.no_queue,
        };
        let submitted = client.call::<WorkloadSubmit>(&request).await?;
        warn(app, &submitted, endless);
        if self.dry_run {
            return show_preview(app, &submitted);
        }
        let ids: Vec<String> = submitted.iter().map(|s| s.workload.id.to_string()).collect();
        let later = self.follow || (self.wait && app.out.for_programs());
        if !later {
            match (app.out.format, submitted.as_slice()) {
                (Format::Json | Format::Yaml | Format::Jsonl, [one]) => app.out.data(one)?,
                _ => app.out.show(&submitted)?,
            }
        }
        let joined = ids.join(" ");
        if self.follow {
            app.out.note(&joined);
        }
        let going_on = async {
            if !self.no_queue {
                for one in &submitted {
                    notice(app, &client, &one.workload).await;
                }
            }
            if self.follow {
                for id in &ids {
                    let request = LogsRequest {
                        id: id.clone(),
                        follow: true,
                        ..LogsRequest::default()
                    };
                    stream_logs(app, &client, request, false).await?;
                }
            }
            if self.follow || self.wait {
                return wait(app, &client, &ids, self.wait && !self.follow).await;
            }
            Ok(ExitCode::SUCCESS)
        };
        interruptible(app, &joined, going_on).await
    }

    /// What is to be submitted: the manifest's workloads with the flags over them, or the flags alone.
    fn submissions(&self) -> Result<Vec<Document>, ApiError> {
        let mut workloads = match &self.file {
            Some(file) => manifest_file::read(file)?,
            None => vec![Document {
                workload: Submission::default(),
                endless: false,
            }],
        };
        let [single] = workloads.as_mut_slice() else {
            if let Some(flag) = self.overriding() {
                return Err(ApiError::invalid(
                    flag,
                    format!("{flag} can't override a file with {} workloads", workloads.len()),
                )
                .hint("put it into the file, or submit the workloads one by one"));
            }
            return Ok(workloads);
        };
        self.over(&mut single.workload)?;
        if single.workload.spec.image.is_empty() {
            return Err(ApiError::invalid("spec.image", "spec.image is missing")
                .hint("name an image in the manifest, or with --image"));
        }
        Ok(workloads)
    }

    /// The first flag that says something about the workload itself.
    fn overriding(&self) -> Option<&'static str> {
        let given = [
            ("--image", self.image.is_some()),
            ("--gpus", self.gpus.is_some()),
            ("--command", self.command.is_some() || !self.words.is_empty()),
            ("--name", self.name.is_some()),
            ("--memory", self.memory.is_some()),
            ("--priority", self.priority.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--env", !self.env.is_empty()),
            ("--mount", !self.mount.is_empty()),
            ("--gpu-type", self.gpu_type.is_some()),
            ("--gpu-memory", self.gpu_memory.is_some()),
            ("--cpus", self.cpus.is_some()),
            ("--nodes", self.nodes.is_some()),
            ("--label", !self.label.is_empty()),
            ("--node", self.node.is_some()),
            ("--secret", !self.secret.is_empty()),
            ("--retries", self.retries.is_some()),
            ("--restart", self.restart.is_some()),
            ("--max-wait", self.max_wait.is_some()),
            ("--grace", self.grace.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// Puts the flags over a workload.
    fn over(&self, workload: &mut Submission) -> Result<(), ApiError> {
        let spec = &mut workload.spec;
        if let Some(name) = &self.name {
            api::id::check_name(name).map_err(|error| {
                ApiError::invalid("--name", format!("'{name}' is no name for a workload")).cause(error.to_string())
            })?;
            workload.name = Some(name.clone());
        }
        if let Some(image) = &self.image {
            spec.image.clone_from(image);
        }
        if let Some(command) = &self.command {
            spec.command = split_command("--command", command)?;
        } else if !self.words.is_empty() {
            spec.command.clone_from(&self.words);
        }
        if let Some(count) = self.gpus {
            spec.gpus = GpuRequest {
                count,
                ..spec.gpus.clone()
            };
        }
        if self.gpu_type.is_some() {
            spec.gpus.model.clone_from(&self.gpu_type);
        }
        spec.gpus.memory = self.gpu_memory.or(spec.gpus.memory);
        spec.memory = self.memory.or(spec.memory);
        spec.cpu = self.cpus.or(spec.cpu);
        if let Some(priority) = self.priority {
            spec.priority = priority.into();
        }
        if let Some(timeout) = self.timeout {
            spec.timeout = (!timeout.is_zero()).then_some(timeout);
        }
        for (name, value) in &self.env {
            check_env_name("--env", name)?;
            spec.secrets.retain(|entry| entry.to != SecretTarget::Env(name.clone()));
            match spec.env.iter_mut().find(|variable| variable.name == *name) {
                Some(variable) => variable.value.clone_from(value),
                None => spec.env.push(EnvVar {
                    name: name.clone(),
                    value: value.clone(),
                }),
            }
        }
        for text in &self.mount {
            let volume = mount(text)?;
            spec.volumes.retain(|other| other.mount_path != volume.mount_path);
            spec.secrets
                .retain(|entry| entry.to != SecretTarget::File(volume.mount_path.clone()));
            spec.volumes.push(volume);
        }
        self.over_secrets(spec)?;
        workload.labels.extend(self.label.iter().cloned());
        spec.nodes = self.nodes.unwrap_or(spec.nodes.max(1));
        if self.node.is_some() {
            spec.node.clone_from(&self.node);
        }
        spec.retries = self.retries.unwrap_or(spec.retries);
        if let Some(restart) = self.restart {
            spec.restart = restart.into();
        }
        spec.max_wait = self.max_wait.or(spec.max_wait);
        spec.grace = self.grace.or(spec.grace);
        Ok(())
    }

    /// Puts the secrets of flags over those of a workload, and over what else it has in their places.
    fn over_secrets(&self, spec: &mut WorkloadSpec) -> Result<(), ApiError> {
        let given: Vec<SecretUse> = self.secret.iter().map(|text| secret(text)).collect::<Result<_, _>>()?;
        SecretUse::check_all("--secret", &given)?;
        for entry in given {
            spec.secrets.retain(|other| other.to != entry.to);
            match &entry.to {
                SecretTarget::Env(name) if self.env.iter().any(|(other, _)| other == name) => {
                    return Err(ApiError::invalid(
                        "--secret",
                        format!("{name} is given by --env and by --secret"),
                    ));
                }
                SecretTarget::Env(name) => spec.env.retain(|variable| variable.name != *name),
                SecretTarget::File(path) => spec.volumes.retain(|volume| volume.mount_path != *path),
            }
            spec.secrets.push(entry);
        }
        Ok(())
    }
}

/// `NAME`, `NAME=ENV` or `NAME=/path`.
fn secret(text: &str) -> Result<SecretUse, ApiError> {
    let (name, place) = match text.split_once('=') {
        Some((name, place)) => (name, Some(place)),
        None => (text, None),
    };
    check_secret_name("--secret", name).map_err(|error| error.hint("as in --secret db-password=DB_PASSWORD"))?;
    let to = match place {
        Some(path) if path.starts_with('/') => {
            check_mount_path("--secret", path)?;
            SecretTarget::File(path.to_owned())
        }
        Some(variable) => SecretTarget::Env(variable.to_owned()),
        None => SecretTarget::Env(name.to_uppercase().replace(['-', '.'], "_")),
    };
    match &to {
        SecretTarget::Env(variable) if !is_variable(variable) => {
            // Somebody may have given the value here: it isn't shown.
            let message =
                format!("the secret {name} needs a variable's name (letters, digits and '_') or an absolute path");
            Err(ApiError::invalid("--secret", message).hint(format!("as in --secret {name}=DB_PASSWORD")))
        }
        _ => Ok(SecretUse {
            secret: name.to_owned(),
            key: None,
            to,
        }),
    }
}

/// Whether a shell could read a variable of this name.
fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// `src:dst`, `src:dst:ro` or `src:dst:rw`.
fn mount(text: &str) -> Result<Volume, ApiError> {
    let refuse = || {
        ApiError::invalid("--mount", format!("--mount '{text}' isn't of the form SRC:DST[:ro]"))
            .hint("as in --mount /data/imagenet:/data:ro")
    };
    let (paths, read_only) = match (text.strip_suffix(":ro"), text.strip_suffix(":rw")) {
        (Some(paths), _) => (paths, true),
        (_, Some(paths)) => (paths, false),
        _ => (text, false),
    };
    let (source, target) = paths.rsplit_once(':').ok_or_else(refuse)?;
    if source.is_empty() || target.is_empty() {
        return Err(refuse());
    }
    // `s3://bucket` alone: the colon is the scheme's.
    if target.starts_with("//") {
        check_mount_source("--mount", paths)?;
    }
    check_mount_source("--mount", source)?;
    check_mount_path("--mount", target)?;
    Ok(Volume {
        name: String::new(),
        mount_path: target.to_owned(),
        source: VolumeSource::HostPath {
            source: source.to_owned(),
            read_only,
        },
    })
}

/// The flag's namespace, else the manifest's, else that of environment or context.
fn place_in_namespace(workload: &mut Submission, settings: &Settings) {
    if workload.namespace.is_none() || matches!(settings.namespace.source, Source::Flag(_)) {
        workload.namespace = Some(settings.namespace.value.clone());
    }
}

/// The gateway's warnings; that a workload has no timeout is no news to somebody who said so.
fn warn(app: &App, submitted: &[Submitted], endless: bool) {
    for warning in submitted.iter().flat_map(|one| &one.workload.warnings) {
        if !(endless && warning.starts_with("no timeout")) {
            app.out.note(&format!("warning: {warning}"));
        }
    }
}

fn show_preview(app: &App, submitted: &[Submitted]) -> Outcome {
    if app.out.format != Format::Table {
        match submitted {
            [one] => app.out.data(one)?,
            several => app.out.data(several)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Page::new(app.out.view());
    for one in submitted {
        if let Some(explanation) = &one.preview {
            preview(&mut page, &one.workload, explanation);
        }
    }
    app.out.print(&page.text)?;
    Ok(ExitCode::SUCCESS)
}

/// Says on standard error that a workload waits, and why; silent when it doesn't, or when that isn't known in time.
async fn notice(app: &App, client: &Client, workload: &Workload) {
    let known = async {
        let request = WorkloadRef {
            id: workload.id.to_string(),
            namespace: None,
        };
        let mut stream = client.stream::<WorkloadWatch>(request).await.ok()?;
        while let Ok(Some(detail)) = stream.next().await {
            let decided = detail.workload.phase != Phase::Pending
                || detail.workload.reason.is_some()
                || detail.explanation.as_ref().is_some_and(|e| e.queue_position.is_some());
            if decided {
                return Some(detail);
            }
        }
        None
    };
    if let Ok(Some(detail)) = tokio::time::timeout(NOTICE_PATIENCE, known).await
        && detail.workload.phase == Phase::Pending
    {
        app.out.note(&queued(&detail, app));
    }
}

/// That it waits, with place, reason, what would free it, and when.
fn queued(detail: &WorkloadDetail, app: &App) -> String {
    let workload = &detail.workload;
    let reason = workload
        .reason
        .as_deref()
        .unwrap_or(ErrorCode::NoGpusAvailable.as_str());
    let mut text = format!("queued[{reason}]: {} ({}) waits", workload.id, workload.name);
    let Some(explanation) = &detail.explanation else {
        return text;
    };
    if let Some(position) = explanation.queue_position {
        text.push_str(&format!(", place {position} in the queue"));
    }
    text.push_str(&format!("\ncause: {}", explanation.summary));
    if !explanation.waiting_for.is_empty() {
        let ids: Vec<&str> = explanation.waiting_for.iter().map(api::WorkloadId::as_str).collect();
        text.push_str(&format!("\nfreed by the end of: {}", ids.join(", ")));
    }
    if let Some(at) = explanation.estimate {
        text.push_str(&format!("\nestimated start: {}", ago(Some(at), app.out.view().now)));
    }
    for suggestion in &explanation.suggestions {
        text.push_str(&format!("\ntry: {suggestion}"));
    }
    text
}

/// Waits for the workloads to end. The exit status is the first that isn't 0.
async fn wait(app: &App, client: &Client, ids: &[String], print: bool) -> Outcome {
    let mut ended = Vec::with_capacity(ids.len());
    for id in ids {
        let request = WorkloadRef {
            id: id.clone(),
            namespace: None,
        };
        ended.push(until_ended(client, &request).await?);
    }
    let mut status = None;
    for detail in &ended {
        let own = report_end(app, &detail.workload)?;
        if detail.workload.phase != Phase::Succeeded {
            status.get_or_insert(own);
        }
    }
    if print && app.out.for_programs() {
        match ended.as_slice() {
            [one] => app.out.data(one)?,
            several => app.out.data(several)?,
        }
    }
    Ok(status.unwrap_or(ExitCode::SUCCESS))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn submissions(words: &[&str]) -> Result<Vec<Submission>, ApiError> {
        let line = Line::try_parse_from(std::iter::once(&"run").chain(words))
            .map_err(|error| ApiError::new(ErrorCode::InvalidArgument, error.to_string()))?;
        let documents = line.args.submissions()?;
        Ok(documents.into_iter().map(|document| document.workload).collect())
    }

    #[test]
    fn flags_become_a_workload() {
        let words = [
            "--image",
            "host",
            "--gpus",
            "2",
            "--gpu-type",
            "H100",
            "--command",
            "python 'a b'",
            "--memory",
            "32Gi",
            "--cpus",
            "1.5",
            "--env",
            "A=1=2",
            "--mount",
            "/a:/b:ro",
            "--priority",
            "high",
            "--timeout",
            "24h",
            "--nodes",
            "2",
            "--label",
            "team=nlp",
            "--retries",
            "3",
            "--restart",
            "on-failure",
            "--name",
            "x",
        ];
        insta::assert_json_snapshot!(submissions(&words).unwrap()[0]);
    }

    #[test]
    fn an_image_and_a_number_of_gpus_are_needed_without_a_file() {
        let error = submissions(&["--image", "host"]).unwrap_err();
        assert!(error.message.contains("--gpus"), "{}", error.message);
        assert!(submissions(&["--gpus", "0", "--image", "host"]).is_ok());
    }

    #[test]
    fn flags_go_over_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.yaml");
        let one = "apiVersion: clawbernetes/v1\nkind: Workload\nmetadata: {name: a}\n\
                   spec: {image: host, gpus: {count: 1, type: A100}, env: {A: x, B: y}}\n";
        std::fs::write(&file, one).unwrap();
        let file = file.to_str().unwrap();
        let read = submissions(&["--file", file, "--gpus", "8", "--name", "b", "--env", "A=z"]).unwrap();
        assert_eq!(read[0].name.as_deref(), Some("b"));
        assert_eq!(
            (read[0].spec.gpus.count, read[0].spec.gpus.model.as_deref()),
            (8, Some("A100"))
        );
        assert_eq!(read[0].spec.env[0].value, "z");

        std::fs::write(file, format!("{one}---\n{one}")).unwrap();
        assert_eq!(submissions(&["--file", file]).unwrap().len(), 2);
        let error = submissions(&["--file", file, "--gpus", "8"]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some("--gpus"));
    }

    #[test]
    fn secrets_go_where_the_flag_says_and_over_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("w.yaml");
        let one = "apiVersion: clawbernetes/v1\nkind: Workload\n\
                   spec:\n  image: host\n  env: [{name: A, value: x}, {name: B, valueFrom: {secretRef: old}}, {name: C, value: y}]\n  \
                   volumes: [{type: secret, secret: old, mountPath: /run/old}, {source: /data, mountPath: /run/key}]\n";
        std::fs::write(&file, one).unwrap();
        let file = file.to_str().unwrap();
        let words = [
            "--file",
            file,
            "--secret",
            "api.wandb-key",
            "--secret",
            "new=A",
            "--secret",
            "key=/run/key",
            "--env",
            "B=z",
        ];
        let spec = submissions(&words).unwrap().remove(0).spec;
        let given: Vec<(&str, &SecretTarget)> = spec.secrets.iter().map(|s| (s.secret.as_str(), &s.to)).collect();
        assert_eq!(
            given,
            [
                ("old", &SecretTarget::File("/run/old".to_owned())),
                ("api.wandb-key", &SecretTarget::Env("API_WANDB_KEY".to_owned())),
                ("new", &SecretTarget::Env("A".to_owned())),
                ("key", &SecretTarget::File("/run/key".to_owned())),
            ]
        );
        let env: Vec<(&str, &str)> = spec.env.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(env, [("C", "y"), ("B", "z")]);
        assert!(spec.volumes.is_empty());

        let twice = submissions(&["--image", "host", "--gpus", "0", "--secret", "a=X", "--secret", "b=X"]);
        assert!(twice.unwrap_err().message.contains("two secrets"));
        let both = submissions(&["--image", "host", "--gpus", "0", "--secret", "a=X", "--env", "X=1"]);
        assert!(both.unwrap_err().message.contains("--env and by --secret"));
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_sent() {
        for (flag, value, part) in [
            ("--secret", "Wandb", "lower-case"),
            ("--secret", "wandb=a b", "variable's name"),
            ("--secret", "wandb=", "variable's name"),
            ("--secret", "wandb=/../etc", "absolute"),
            ("--secret", "4chan", "variable's name"),
            ("--mount", "s3://bucket/data:/data", "s3://"),
            ("--mount", "s3://bucket", "s3://"),
            ("--mount", "/data", "SRC:DST"),
            ("--mount", "data:/data", "absolute"),
            ("--mount", "/data:data", "absolute"),
            ("--command", "echo 'x", "quote"),
            ("--timeout", "5", "accepted: 90s"),
            ("--memory", "32Qi", "accepted: 512Mi"),
            ("--env", "A", "KEY=VALUE"),
            ("--name", "Bad Name", "no name"),
            ("--priority", "hihg", "high"),
            ("--nodes", "0", "0"),
            ("--gpus", "-1", "--gpus"),
        ] {
            let mut words = vec!["--image", "host", flag, value];
            if flag != "--gpus" {
                words.extend(["--gpus", "0"]);
            }
            let error = submissions(&words).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains(part), "{flag} {value}: {}", error.message);
        }
    }
}
