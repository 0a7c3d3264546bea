//! Completion with live names: nodes, workloads, secrets, contexts and others, fetched within a moment or not at all.

use std::{future::Future, time::Duration};

use api::op::{
    AlertFilter, AlertList, AlertRules, AlertSilenceList, CertFilter, CertInfo, CertList, CertStatus, DeployFilter,
    DeployList, DeploymentSummary, Empty, MetricsList, NodeFilter, NodeList, SecretFilter, SecretInfo, SecretList,
    ServiceFilter, ServiceList, ServiceView, SilenceFilter, TokenList, WorkloadFilter, WorkloadList,
};
use clap_complete::{ArgValueCandidates, CompletionCandidate};

use crate::{
    cli::Globals,
    client::Client,
    config::{Config, Settings},
};

/// A shell waits no longer than this for names.
const DEADLINE: Duration = Duration::from_millis(400);

/// Newest workloads that are offered.
const WORKLOADS: u32 = 200;

/// Newest deployments that are offered.
const DEPLOYMENTS: u32 = 50;

/// The nodes of the fleet.
pub(crate) fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let nodes = client.call::<NodeList>(&NodeFilter::default()).await.ok()?;
            let candidate = |node: api::node::NodeView| {
                let help = format!(
                    "{}, {}/{} GPUs free",
                    node.status.name(),
                    node.gpus_free,
                    node.gpus.len()
                );
                CompletionCandidate::new(node.id.as_str()).help(Some(help.into()))
            };
            Some(nodes.into_iter().map(candidate).collect())
        })
    })
}

/// The workloads of the fleet.
pub(crate) fn workloads() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let filter = WorkloadFilter {
                limit: Some(WORKLOADS),
                ..WorkloadFilter::default()
            };
            let workloads = client.call::<WorkloadList>(&filter).await.ok()?;
            let candidate = |workload: api::workload::WorkloadSummary| {
                let help = format!("{}, {}", workload.name, workload.phase);
                CompletionCandidate::new(workload.id.as_str()).help(Some(help.into()))
            };
            Some(workloads.into_iter().map(candidate).collect())
        })
    })
}

/// The services of all namespaces.
pub(crate) fn services() -> ArgValueCandidates {
    ArgValueCandidates::new(|| fetch(async |client| service_names(&client).await))
}

/// The deployments, and the services, whose names stand for the latest of each.
pub(crate) fn deployments() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let filter = DeployFilter {
                limit: Some(DEPLOYMENTS),
                ..DeployFilter::default()
            };
            let deployments = client.call::<DeployList>(&filter).await.ok()?;
            let candidate = |deployment: DeploymentSummary| {
                let help = format!("{}, {}", deployment.workload, deployment.phase);
                CompletionCandidate::new(deployment.id.as_str()).help(Some(help.into()))
            };
            let mut found: Vec<CompletionCandidate> = deployments.into_iter().map(candidate).collect();
            found.extend(service_names(&client).await?);
            Some(found)
        })
    })
}

async fn service_names(client: &Client) -> Option<Vec<CompletionCandidate>> {
    let services = client.call::<ServiceList>(&ServiceFilter::default()).await.ok()?;
    let candidate = |service: ServiceView| {
        let help = format!("{}: {}/{} ready", service.namespace, service.ready, service.replicas);
        CompletionCandidate::new(service.name).help(Some(help.into()))
    };
    Some(services.into_iter().map(candidate).collect())
}

/// The secrets of all namespaces.
pub(crate) fn secrets() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let secrets = client.call::<SecretList>(&SecretFilter::default()).await.ok()?;
            let candidate = |secret: SecretInfo| {
                let help = match secret.description {
                    Some(text) => format!("{}: {text}", secret.namespace),
                    None => secret.namespace,
                };
                CompletionCandidate::new(secret.name).help(Some(help.into()))
            };
            Some(secrets.into_iter().map(candidate).collect())
        })
    })
}

/// The certificates that hold, but for those that renew themselves.
pub(crate) fn certs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let certs = client.call::<CertList>(&CertFilter::default()).await.ok()?;
            let holds = |cert: &CertInfo| matches!(cert.status, CertStatus::Valid | CertStatus::Expiring);
            let candidate = |cert: CertInfo| CompletionCandidate::new(cert.name).help(Some(cert.sans.join(" ").into()));
            Some(certs.into_iter().filter(holds).map(candidate).collect())
        })
    })
}

/// The metrics that there are.
pub(crate) fn metrics() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let metrics = client.call::<MetricsList>(&Empty {}).await.ok()?;
            let candidate =
                |metric: api::op::MetricInfo| CompletionCandidate::new(metric.name).help(Some(metric.help.into()));
            Some(metrics.into_iter().map(candidate).collect())
        })
    })
}

/// The alerts that fire.
pub(crate) fn alerts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let alerts = client.call::<AlertList>(&AlertFilter::default()).await.ok()?;
            let candidate =
                |alert: api::op::AlertView| CompletionCandidate::new(alert.id).help(Some(alert.summary.into()));
            Some(alerts.into_iter().map(candidate).collect())
        })
    })
}

/// The rules of alerts.
pub(crate) fn alert_rules() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let rules = client.call::<AlertRules>(&Empty {}).await.ok()?;
            let candidate =
                |rule: api::op::AlertRuleView| CompletionCandidate::new(rule.name).help(Some(rule.summary.into()));
            Some(rules.into_iter().map(candidate).collect())
        })
    })
}

/// The silences that hold.
pub(crate) fn silences() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let silences = client.call::<AlertSilenceList>(&SilenceFilter::default()).await.ok()?;
            let candidate = |silence: api::op::SilenceView| {
                CompletionCandidate::new(silence.id).help(Some(silence.matchers.join(" ").into()))
            };
            Some(silences.into_iter().map(candidate).collect())
        })
    })
}

/// The tokens that the gateway knows.
pub(crate) fn tokens() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        fetch(async |client| {
            let tokens = client.call::<TokenList>(&Empty {}).await.ok()?;
            let candidate =
                |token: api::auth::TokenInfo| CompletionCandidate::new(token.id).help(Some(token.name.into()));
            Some(tokens.into_iter().map(candidate).collect())
        })
    })
}

/// The contexts of the context file.
pub(crate) fn contexts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let config = Config::path().and_then(|path| Config::load(&path)).unwrap_or_default();
        config.contexts.into_keys().map(CompletionCandidate::new).collect()
    })
}

/// Asks the gateway that the environment and the context file name; silence where anything goes wrong.
fn fetch<F>(ask: impl FnOnce(Client) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = Option<Vec<CompletionCandidate>>>,
{
    let Ok(settings) = Settings::resolve(&Globals::default()) else {
        return Vec::new();
    };
    let client = settings.client();
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let found = runtime.block_on(async { tokio::time::timeout(DEADLINE, ask(client)).await });
    runtime.shutdown_background();
    found.ok().flatten().unwrap_or_default()
}
