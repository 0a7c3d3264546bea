//! A running gateway: its parts put together, started and stopped.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::{ApiError, Span, auth::Role, op::TokenRequest};
use store::Store;
use telemetry::{logs::LogStore, metrics::MetricStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    alerting::{self, Alerting, AlertsFile, Sender, SenderError},
    audit::Audit,
    auth,
    control::{self, start_planner},
    decide::{nodes::Patience, sweep::Retention},
    deploy::{self, Doors, Prometheus, Reader},
    diagnose,
    draft::Draft,
    happenings,
    hub::{Hub, now},
    live::Nodes,
    metrics::Metrics,
    oidc::{self, Provider},
    private, remote_write,
    serve::{self, App, Limits},
    trust::{self, Trust},
    upkeep,
};

/// How a gateway runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens. Port 0: any free port.
    pub listen: SocketAddr,
    /// Where it keeps everything.
    pub data: PathBuf,
    /// How often nodes give a sign of life.
    pub heartbeat: Span,
    /// After how long a silent node counts as unreachable.
    pub unreachable_after: Span,
    /// After how long a silent node is declared lost.
    pub lost_after: Span,
    /// How long a workload runs at least before it may be preempted.
    pub min_run: Span,
    /// How long ended workloads, their logs, and events are kept.
    pub keep_age: Span,
    /// How many ended workloads are kept.
    pub keep_count: usize,
    /// Most bytes of logs on disk. `None`: no bound.
    pub logs_max_bytes: Option<u64>,
    /// How often the gateway measures itself and the fleet.
    pub sample: Span,
    /// How long single samples of metrics are kept.
    pub metrics_raw_age: Span,
    /// How long five-minute values of metrics are kept.
    pub metrics_age: Span,
    /// Most bytes of metrics on disk.
    pub metrics_max_bytes: u64,
    /// Log lines older than this are dropped, also those of workloads that run on. `None`: none are.
    pub logs_max_age: Option<Span>,
    /// Rules of alerts, and who is told.
    pub alerts: AlertsFile,
    /// How often rules of alerts are evaluated.
    pub alert_interval: Span,
    /// Where metrics are written to besides. `None`: nowhere.
    pub remote_write: Option<remote_write::Target>,
    /// Limits for callers.
    pub limits: Limits,
    /// Keys and certificates.
    pub trust: trust::Options,
    /// The identity provider at which people log in. `None`: tokens are made by admins alone.
    pub oidc: Option<oidc::Options>,
    /// Where services are reached.
    pub services: deploy::Options,
    /// The language model that reads what the grammar can't. `None`: none.
    pub reader: Option<deploy::ReaderOptions>,
    /// The Prometheus that conditions of deployments may query. `None`: none.
    pub prometheus: Option<String>,
    /// Make a new admin token, in place of the one that the first start (or an earlier reset) made: for whoever has lost
    /// all of them.
    pub reset_admin_token: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            data: PathBuf::from("."),
            heartbeat: Span::secs(10),
            unreachable_after: Span::secs(30),
            lost_after: Span::secs(300),
            min_run: Span::secs(60),
            keep_age: Span::secs(30 * 86_400),
            keep_count: 50_000,
            logs_max_bytes: Some(20 << 30),
            sample: Span::secs(10),
            metrics_raw_age: Span::secs(7 * 86_400),
            metrics_age: Span::secs(365 * 86_400),
            metrics_max_bytes: 20 << 30,
            logs_max_age: None,
            alerts: AlertsFile::default(),
            alert_interval: Span::secs(15),
            remote_write: None,
            limits: Limits::default(),
            trust: trust::Options::default(),
            oidc: None,
            services: deploy::Options::default(),
            reader: None,
            prometheus: None,
            reset_admin_token: false,
        }
    }
}

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder can't be made or written.
    #[error("the data folder {} can't be used", path.display())]
    Data {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store can't be opened.
    #[error("the store can't be opened")]
    Store(#[from] store::StoreError),
    /// The logs can't be opened.
    #[error("the logs can't be opened")]
    Logs(#[from] telemetry::logs::LogError),
    /// The metrics can't be opened.
    #[error("the metrics can't be opened")]
    Metrics(#[from] telemetry::metrics::MetricError),
    /// The address is taken, or not this machine's.
    #[error("can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Rules of alerts, or their receivers, can't be used.
    #[error("alerts: {0}")]
    Alerts(String),
    /// Nothing can be sent to receivers of alerts.
    #[error("alerts can't be sent")]
    Sender(#[from] SenderError),
    /// The language model can't be asked.
    #[error("language model: {0}")]
    Model(String),
    /// Prometheus can't be called.
    #[error("prometheus: {0}")]
    Prometheus(String),
    /// The identity provider can't be called.
    #[error("identity provider: {0}")]
    Oidc(String),
    /// A name for the gateway is none.
    #[error("the gateway can't be called that")]
    Names(#[source] vault::pki::Error),
    /// Keys or certificates can't be had.
    #[error("the gateway's keys and certificates can't be used")]
    Trust(#[from] trust::OpenError),
    /// The times don't fit each other.
    #[error("{0}")]
    Times(String),
    /// The state can't be read, or the first token can't be made.
    #[error("{0}")]
    State(#[from] ApiError),
}

/// A running gateway. Dropping it leaves its tasks running; call [`Gateway::stop`].
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    /// The admin token in the data folder. `None`: there is none that works, see [`Options::reset_admin_token`].
    pub admin_token: Option<String>,
    /// SHA-256 of the fleet's root certificate, hex.
    pub fingerprint: String,
    /// The state, for whoever runs in the same process.
    pub hub: Arc<Hub>,
    audit: Arc<Audit>,
    live: Arc<Nodes>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Follows the store, and ends with it.
    following: Vec<tokio::task::JoinHandle<()>>,
}

/// Memory for pages of the store's file: the fleet itself is in the view, so that reads are rare.
const STORE_CACHE_BYTES: usize = 8 << 20;
/// Memory for changes that watchers haven't seen yet; the view follows closely, and reads anew if it fell behind.
const STORE_HISTORY_BYTES: usize = 8 << 20;
/// Batches of measurements that are taken in at once; all wait for one disk.
const INTAKES: usize = 16;
/// Who the gateway's own admin token is made by.
const MADE_BY: &str = "gateway";

/// How long a stop waits for streams to let go of the data folder, and how often it looks.
const RELEASE: Duration = Duration::from_secs(5);
const RELEASE_STEP: Duration = Duration::from_millis(5);

impl Gateway {
    /// Opens the data folder, takes up where the last one left off, and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        check_times(&options)?;
        let rules = options.alerts.rule_set().map_err(StartError::Alerts)?;
        let sender = match options.alerts.receivers.as_slice() {
            [] => None,
            _ => Some(Sender::new()?),
        };
        let oidc = options.oidc.map(Provider::new).transpose().map_err(StartError::Oidc)?;
        let data = |path: &Path, source| StartError::Data {
            path: path.to_owned(),
            source,
        };
        private::make_dir(&options.data).map_err(|e| data(&options.data, e))?;
        let store_options = store::embedded::Options {
            cache_bytes: STORE_CACHE_BYTES,
            history_bytes: STORE_HISTORY_BYTES,
            ..store::embedded::Options::default()
        };
        let store = Store::open(options.data.join("state.redb"), store_options)?;
        let log_options = telemetry::logs::Options {
            max_bytes: options.logs_max_bytes,
            max_age: options.logs_max_age.map(Span::duration),
            ..Default::default()
        };
        let logs = Arc::new(LogStore::open(options.data.join("logs"), log_options)?);
        let metric_options = telemetry::metrics::Options {
            raw_keep: options.metrics_raw_age.duration(),
            rollup_keep: options.metrics_age.duration(),
            max_bytes: options.metrics_max_bytes,
            ..Default::default()
        };
        let metrics = MetricStore::open(options.data.join("metrics"), metric_options)?;
        let metrics = Arc::new(Metrics::new(metrics));
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|source| StartError::Listen {
                address: options.listen,
                source,
            })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: options.listen,
            source,
        })?;
        let names = trust::Names::of(address, &options.trust.names).map_err(StartError::Names)?;
        let trust = Arc::new(Trust::open(&store, &options.trust, &options.data, names).await?);
        let audit = Arc::new(Audit::start(store.clone()).await?);
        let alerting = Arc::new(Alerting::load(rules, &options.alerts, &store).await?);
        let (hub, touched, following) = Hub::start(store).await?;
        let token_file = options.data.join("admin.token");
        let admin_token = admin_token(&hub, &token_file, options.reset_admin_token).await?;
        let stop = CancellationToken::new();
        let live = Arc::new(Nodes::default());
        let planner = start_planner(Arc::clone(&hub), touched, options.min_run, stop.clone());
        let patience = Patience {
            unreachable: options.unreachable_after,
            lost: options.lost_after,
        };
        let journal = Arc::new(diagnose::Journal::default());
        let doors = Arc::new(Doors::new(&options.services, address, &hub.view()));
        let reader = options.reader.map(Reader::new).transpose().map_err(StartError::Model)?;
        let prometheus = options.prometheus.as_deref().map(Prometheus::new).transpose();
        let prometheus = prometheus.map_err(StartError::Prometheus)?;
        let app = Arc::new(App {
            hub: Arc::clone(&hub),
            live: Arc::clone(&live),
            logs: Arc::clone(&logs),
            metrics: Arc::clone(&metrics),
            alerting: Arc::clone(&alerting),
            journal: Arc::clone(&journal),
            trust: Arc::clone(&trust),
            oidc,
            audit: Arc::clone(&audit),
            planner: planner.clone(),
            doors: Arc::clone(&doors),
            reader,
            intakes: tokio::sync::Semaphore::new(INTAKES),
            rows: serve::Rows::default(),
            access: serve::Access::new(options.limits),
            started_at: now(),
            heartbeat: options.heartbeat,
            fence: patience.fence(),
            stop: stop.clone(),
        });
        let retention = Retention {
            age: options.keep_age,
            count: options.keep_count,
        };
        let sources = alerting::Sources {
            hub: Arc::clone(&hub),
            live: Arc::clone(&live),
            metrics: Arc::clone(&metrics),
            planner,
        };
        let evaluating = alerting::watch(Arc::clone(&alerting), sources, options.alert_interval, stop.clone());
        let happening = happenings::follow(Arc::clone(&hub), Arc::clone(&alerting), journal, Arc::clone(&metrics));
        let delivering = alerting::deliver(alerting, Arc::clone(&hub), sender, stop.clone());
        let measuring = control::measure(
            Arc::clone(&hub),
            Arc::clone(&live),
            Arc::clone(&logs),
            Arc::clone(&metrics),
            options.data.clone(),
            options.sample,
            stop.clone(),
        );
        let watching = control::watch_over(
            Arc::clone(&hub),
            Arc::clone(&live),
            logs,
            patience,
            retention,
            stop.clone(),
        );
        let sources = deploy::Sources {
            hub: Arc::clone(&hub),
            metrics: Arc::clone(&metrics),
            prometheus,
        };
        let deploying = deploy::run(sources, Arc::clone(&doors), stop.clone());
        let counting = deploy::count(doors, Arc::clone(&metrics), stop.clone());
        let keeping = upkeep::keep(Arc::clone(&app), stop.clone());
        let door = serve::Door {
            tls: trust.tls.clone(),
            insecure: options.trust.insecure,
            connections: options.limits.connections,
        };
        let listening = serve::listen(listener, serve::router(app), door, stop.clone());
        let mut tasks = vec![
            tokio::spawn(watching),
            tokio::spawn(listening),
            tokio::spawn(measuring),
            tokio::spawn(evaluating),
            tokio::spawn(delivering),
            tokio::spawn(keeping),
            tokio::spawn(deploying),
            tokio::spawn(counting),
        ];
        if let Some(target) = options.remote_write {
            let writing = remote_write::run(Arc::clone(&metrics), target, options.data.clone(), stop.clone());
            tasks.push(tokio::spawn(writing));
        }
        let following = vec![tokio::spawn(happening), following];
        Ok(Self {
            address,
            admin_token: admin_token.map(|token| trust.with_fingerprint(token)),
            fingerprint: trust.fingerprint().to_owned(),
            hub,
            audit,
            live,
            metrics,
            stop,
            tasks,
            following,
        })
    }

    /// Ends sessions and requests, and closes the store. What nodes run goes on running.
    pub async fn stop(self) {
        self.stop.cancel();
        self.live.end_all();
        let Self {
            hub,
            audit,
            metrics,
            tasks,
            following,
            ..
        } = self;
        for task in tasks {
            let _ = task.await;
        }
        audit.flush().await;
        hub.store().close().await;
        for task in following {
            let _ = task.await;
        }
        // Streams end by the store's close, a moment later. Whoever opens the folder next must find it free.
        let released = async {
            while Arc::strong_count(&metrics) > 1 {
                tokio::time::sleep(RELEASE_STEP).await;
            }
        };
        if tokio::time::timeout(RELEASE, released).await.is_err() {
            tracing::warn!("a caller's stream still holds the data folder");
        }
        // Closing writes files.
        let _ = tokio::task::spawn_blocking(move || drop(metrics)).await;
    }
}

fn check_times(options: &Options) -> Result<(), StartError> {
    let Options {
        heartbeat,
        unreachable_after,
        lost_after,
        ..
    } = *options;
    if heartbeat.is_zero() || unreachable_after.millis() < heartbeat.millis() * 2 {
        return Err(StartError::Times(format!(
            "a node can't be unreachable after {unreachable_after} when it gives a sign of life every {heartbeat}: \
             allow at least two of them"
        )));
    }
    if options.alert_interval.is_zero() {
        return Err(StartError::Times(
            "rules of alerts can't be evaluated every 0s".to_owned(),
        ));
    }
    if lost_after <= unreachable_after {
        return Err(StartError::Times(format!(
            "a node must be unreachable ({unreachable_after}) before it is lost ({lost_after})"
        )));
    }
    if options.metrics_age < options.metrics_raw_age {
        return Err(StartError::Times(format!(
            "five-minute values of metrics ({}) must be kept as long as single samples ({}) at least",
            options.metrics_age, options.metrics_raw_age
        )));
    }
    Ok(())
}

/// The admin token in its file. The first start makes one, and `reset`, which ends the life of those that a gateway made
/// before. `None`: what is in the file is no admin's any more, or there is none, and that is how somebody wanted it.
async fn admin_token(hub: &Hub, file: &Path, reset: bool) -> Result<Option<String>, StartError> {
    let failed = |source| StartError::Data {
        path: file.to_owned(),
        source,
    };
    // The last admin's token can't be revoked: where there is none at all, nobody has ever got in.
    let first = hub.view().tokens().next().is_none() && hub.view().revoked_tokens().next().is_none();
    if !first && !reset {
        return match fs::read_to_string(file) {
            Ok(token) if auth::is_admin(&hub.view(), token.trim(), now()) => Ok(Some(token.trim().to_owned())),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        };
    }
    let admin = TokenRequest {
        name: "admin".to_owned(),
        role: Role::Admin,
        scopes: Vec::new(),
        namespace: None,
        expires: None,
    };
    let (token, record) = serve::mint_token(&admin, None, MADE_BY)?;
    // The file first: a token that is only in the store would be of use to nobody.
    private::write(file, &format!("{token}\n")).map_err(failed)?;
    hub.decide(|view| {
        let mut draft = Draft::new();
        for old in view.tokens().filter(|token| token.info.created_by == MADE_BY) {
            draft.delete_token(old);
        }
        draft.put_token(None, &record);
        Ok(Some(draft))
    })
    .await?;
    Ok(Some(token))
}
