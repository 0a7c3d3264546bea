//! `clawbernetes gateway serve`

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    process::ExitCode,
};

use api::{ApiError, ErrorCode, Size, Span};
use gateway::{
    AlertsFile, Gateway, Options, StartError, deploy,
    oidc::{self, NameClaim, RoleRule},
    remote_write::Target,
    trust::{self, AuthorityFiles, KeySource},
};

use crate::{cli::App, failure::Outcome, local, serving};

/// Run the control plane: keeps the fleet's state, decides what runs where, serves every client
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  clawbernetes gateway serve\n  \
    clawbernetes gateway serve --listen 127.0.0.1:9100 --data /var/lib/clawbernetes\n  \
    clawbernetes gateway serve --listen 0.0.0.0:9000 --tls-name gpu-head.lab\n\n\
    Callers from elsewhere are served by TLS alone; the first start makes the certificate authority for it.\n\
    The first start makes an admin token; this user's command line finds it by itself on this machine.\n\
    No later start makes another one, unless it is told --reset-admin-token.\n\
    CLAWBERNETES_LOG=debug shows more.")]
pub(crate) struct Args {
    /// The address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// The folder to keep everything in [default: $XDG_DATA_HOME/clawbernetes/gateway]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A name or address by which the gateway is called, for its certificate, beside those that it finds out itself
    #[arg(long = "tls-name", value_name = "NAME")]
    tls_names: Vec<String>,
    /// Where others reach this gateway to learn what is revoked, written into certificates: http://gpu-head.lab:9000
    #[arg(long, value_name = "URL")]
    pki_url: Option<String>,
    /// The file with the master key that secrets are sealed by [default: vault.key in the data folder, made at first]
    #[arg(long, value_name = "FILE", group = "key")]
    vault_key: Option<PathBuf>,
    /// A file with a passphrase that the master key is derived from
    #[arg(long, value_name = "FILE", group = "key")]
    vault_passphrase_file: Option<PathBuf>,
    /// A command that prints the master key; it is split into words as a shell would
    #[arg(long, value_name = "COMMAND", group = "key")]
    vault_key_command: Option<String>,
    /// Take over this certificate authority at the first start: its certificate, and those above it, PEM
    #[arg(long, value_name = "FILE", requires = "authority_key")]
    authority: Option<PathBuf>,
    /// The authority's key, PEM; it is sealed, and the file isn't needed any more
    #[arg(long, value_name = "FILE", requires = "authority")]
    authority_key: Option<PathBuf>,
    /// How often nodes give a sign of life
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    heartbeat: Span,
    /// A node that is silent for this long is unreachable
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    unreachable_after: Span,
    /// A node that is silent for this long is lost: it is fenced, and its work starts elsewhere where it may
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    lost_after: Span,
    /// A workload runs at least this long before another may preempt it
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    min_run: Span,
    /// How long ended workloads, their logs, and events are kept
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    keep: Span,
    /// How many ended workloads are kept
    #[arg(long, value_name = "NUMBER", default_value_t = 50_000)]
    keep_count: usize,
    /// The most disk that logs may take
    #[arg(long, value_name = "SIZE", default_value = "20Gi")]
    logs_max: Size,
    /// How long single samples of metrics are kept
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    metrics_keep_raw: Span,
    /// How long five-minute values of metrics are kept
    #[arg(long, value_name = "DURATION", default_value = "365d")]
    metrics_keep: Span,
    /// The most disk that metrics may take
    #[arg(long, value_name = "SIZE", default_value = "20Gi")]
    metrics_max: Size,
    /// Make a new admin token in place of the one that the first start made: for whoever has lost them all
    #[arg(long)]
    reset_admin_token: bool,
    /// Log lines older than this are dropped, also those of workloads that run on; without it they stay as long as
    /// their workload is kept
    #[arg(long, value_name = "DURATION")]
    logs_max_age: Option<Span>,
    /// Own rules of alerts, and who is told (docs/reference/alerts.yaml shows all of it) [default: built-in rules, nobody]
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// How often rules of alerts are evaluated
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    alert_interval: Span,
    /// Send all metrics on to this Prometheus remote write receiver: http://prometheus:9090/api/v1/write
    #[arg(long, value_name = "URL")]
    remote_write: Option<String>,
    /// The file with the bearer token that the receiver wants
    #[arg(long, value_name = "FILE", requires = "remote_write")]
    remote_write_token_file: Option<PathBuf>,
    /// Let people log in at this OpenID Connect provider: https://id.example/realms/lab
    #[arg(long, value_name = "URL", requires_all = ["oidc_client_id", "oidc_roles"])]
    oidc_issuer: Option<String>,
    /// The public client by which the provider knows the fleet
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    oidc_client_id: Option<String>,
    /// Who gets which role, by what the provider says; the first that fits counts: groups=gpu-admins:admin, *:viewer
    #[arg(
        long = "oidc-role",
        value_name = "CLAIM=VALUE:ROLE",
        id = "oidc_roles",
        requires = "oidc_issuer"
    )]
    oidc_roles: Vec<RoleRule>,
    /// The claim that people are called by: email (verified), preferred_username or sub
    #[arg(long, value_name = "CLAIM", default_value = "email")]
    oidc_name_claim: NameClaim,
    /// How long such a login lasts
    #[arg(long, value_name = "DURATION", default_value = "12h")]
    oidc_session: Span,
    /// Where services are reached [default: where the gateway listens]
    #[arg(long, value_name = "IP")]
    service_listen: Option<IpAddr>,
    /// The ports that services get, one each
    #[arg(long, value_name = "FIRST-LAST", default_value = "10000-10999", value_parser = port_range)]
    service_ports: RangeInclusive<u16>,
    /// The Prometheus that conditions of deployments may query: http://127.0.0.1:9090; who may deploy may read all that it holds
    #[arg(long, value_name = "URL", env = "PROMETHEUS_URL")]
    prometheus_url: Option<String>,
    /// Let a language model read what the deployment grammar can't: claude, openai or zai; its reading is always shown first
    #[arg(long, value_name = "PROVIDER")]
    llm: Option<llm::Provider>,
    /// The model to ask [default: the provider's small one]
    #[arg(long, value_name = "MODEL", requires = "llm")]
    llm_model: Option<String>,
    /// Where it is asked, if not at its provider: a server that speaks the same
    #[arg(long, value_name = "URL", requires = "llm")]
    llm_url: Option<llm::Url>,
    /// The secret with its key, in the namespace default [default: ANTHROPIC_API_KEY, OPENAI_API_KEY or ZAI_API_KEY]
    #[arg(long, value_name = "NAME", requires = "llm")]
    llm_key_secret: Option<String>,
}

/// `10000-10999`
fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wanted = || format!("'{text}' is no range of ports (accepted: 10000-10999)");
    let (first, last) = text.split_once('-').ok_or_else(wanted)?;
    let port = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(wanted)
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(wanted());
    }
    Ok(first..=last)
}

/// Which model is asked, and by which key.
fn reader(
    provider: llm::Provider,
    model: Option<String>,
    url: Option<llm::Url>,
    key_secret: Option<String>,
) -> Result<deploy::ReaderOptions, ApiError> {
    let defaults = llm::Options::of(provider);
    let key = match key_secret {
        Some(name) => deploy::ModelKey::Secret(name),
        None => match std::env::var(provider.key_env()) {
            Ok(key) if !key.is_empty() => deploy::ModelKey::Given(key.into()),
            _ => {
                let message = format!("{provider} asks for a key, and {} isn't set", provider.key_env());
                return Err(ApiError::invalid("llm", message)
                    .hint("set it, or keep the key as a secret and name it: --llm-key-secret NAME"));
            }
        },
    };
    Ok(deploy::ReaderOptions {
        model: llm::Options {
            model: model.unwrap_or(defaults.model),
            base_url: url.or(defaults.base_url),
            ..llm::Options::of(provider)
        },
        key,
    })
}

impl Args {
    pub(crate) fn run(self, app: &App) -> Outcome {
        serving::trace("info");
        let options = self.options(app.globals.insecure)?;
        serving::run(|stop| async move {
            let gateway = start(options).await?;
            stop.cancelled().await;
            tracing::info!("shutting down; what nodes run goes on running");
            gateway.stop().await;
            Ok(ExitCode::SUCCESS)
        })
    }

    fn options(self, insecure: bool) -> Result<Options, ApiError> {
        let command = self.vault_key_command.as_deref().map(|text| {
            let words = shlex::split(text).filter(|words| !words.is_empty());
            words.ok_or_else(|| ApiError::invalid("vault-key-command", "it can't be split into words"))
        });
        let key = match (self.vault_key, self.vault_passphrase_file, command.transpose()?) {
            (Some(file), ..) => Some(KeySource::File(file)),
            (_, Some(file), _) => Some(KeySource::Passphrase(file)),
            (_, _, Some(words)) => Some(KeySource::Command(words)),
            _ => None,
        };
        let trust = trust::Options {
            key,
            authority: self
                .authority
                .zip(self.authority_key)
                .map(|(chain, key)| AuthorityFiles { chain, key }),
            names: self.tls_names,
            url: self.pki_url,
            insecure,
        };
        let (model, url, key) = (self.llm_model, self.llm_url, self.llm_key_secret);
        let reader = self.llm.map(|provider| reader(provider, model, url, key)).transpose()?;
        let alerts = match &self.alerts {
            Some(path) => AlertsFile::read(path).map_err(|error| {
                let told = serving::chain(ErrorCode::InvalidArgument, &error);
                ApiError {
                    message: format!("{}: {}", path.display(), told.message),
                    field: Some("alerts".to_owned()),
                    ..told
                }
            })?,
            None => AlertsFile::default(),
        };
        let (roles, name_claim, session) = (self.oidc_roles, self.oidc_name_claim, self.oidc_session);
        let oidc = self.oidc_issuer.zip(self.oidc_client_id);
        let token_file = self.remote_write_token_file;
        let remote_write = self.remote_write.map(|url| Target::new(&url, token_file)).transpose();
        Ok(Options {
            alerts,
            alert_interval: self.alert_interval,
            remote_write: remote_write.map_err(|error| ApiError::invalid("remote-write", error.to_string()))?,
            listen: self.listen,
            data: self.data.map_or_else(|| serving::data_dir("gateway"), Ok)?,
            heartbeat: self.heartbeat,
            unreachable_after: self.unreachable_after,
            lost_after: self.lost_after,
            min_run: self.min_run,
            keep_age: self.keep,
            keep_count: self.keep_count,
            logs_max_bytes: Some(self.logs_max.bytes()),
            metrics_raw_age: self.metrics_keep_raw,
            metrics_age: self.metrics_keep,
            metrics_max_bytes: self.metrics_max.bytes(),
            reset_admin_token: self.reset_admin_token,
            logs_max_age: self.logs_max_age,
            trust,
            oidc: oidc.map(|(issuer, client_id)| oidc::Options {
                issuer,
                client_id,
                roles,
                name_claim,
                session,
                keys_settled: oidc::Options::KEYS_SETTLED,
            }),
            services: deploy::Options {
                listen: self.service_listen,
                ports: self.service_ports,
            },
            prometheus: self.prometheus_url,
            reader,
            ..Options::default()
        })
    }
}

/// Starts a gateway, and leaves its admin token where this user's command line finds it.
pub(crate) async fn start(options: Options) -> Result<Gateway, ApiError> {
    let data = options.data.clone();
    let gateway = Gateway::start(options).await.map_err(|error| start_error(&error))?;
    match (local::token_path(gateway.address.port()), &gateway.admin_token) {
        (Some(path), Some(token)) => gateway::private::write(&path, token).map_err(|error| {
            ApiError::internal(format!("{} can't be written", path.display())).cause(error.to_string())
        })?,
        (None, Some(_)) => tracing::warn!(
            "no home folder: the command line must be given the token in {}",
            data.display()
        ),
        (_, None) => tracing::warn!(
            "no admin token of this gateway's own works any more; who has lost all others starts it once with \
             --reset-admin-token"
        ),
    }
    tracing::info!(address = %gateway.address, data = %data.display(), authority = gateway.fingerprint, "the gateway serves");
    Ok(gateway)
}

fn start_error(error: &StartError) -> ApiError {
    match error {
        StartError::Listen { address, .. } => serving::chain(ErrorCode::Conflict, error).hint(format!(
            "is a gateway running already (clawbernetes gateway ping)? Else --listen {}:0",
            address.ip()
        )),
        StartError::Store(store::StoreError::Locked { .. }) => serving::chain(ErrorCode::Conflict, error)
            .hint("another gateway uses this folder: stop it, or name another one with --data"),
        StartError::Store(store::StoreError::StorageFull { .. }) => serving::chain(ErrorCode::StorageFull, error),
        StartError::Times(message) => ApiError::invalid("heartbeat", message.clone()),
        StartError::State(error) => error.clone(),
        StartError::Oidc(message) => ApiError::invalid("oidc-issuer", message.clone()),
        StartError::Model(message) => ApiError::invalid("llm", message.clone()),
        StartError::Prometheus(message) => ApiError::invalid("prometheus-url", message.clone()),
        StartError::Alerts(message) => ApiError::invalid("alerts", message.clone()),
        StartError::Names(_) => serving::chain(ErrorCode::InvalidArgument, error),
        StartError::Trust(trust::OpenError::Key(_)) => serving::chain(ErrorCode::AuthFailed, error).hint(
            "start it with the key that it was made with: --vault-key, --vault-passphrase-file or --vault-key-command",
        ),
        StartError::Trust(_)
        | StartError::Sender(_)
        | StartError::Data { .. }
        | StartError::Store(_)
        | StartError::Logs(_)
        | StartError::Metrics(_) => serving::chain(ErrorCode::Internal, error),
    }
}
