//! What trust needs over time: certificates renewed, what has ended destroyed, what is long over forgotten.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{ApiError, Span, Timestamp, deploy::Deployment, time};
use tokio_util::sync::CancellationToken;

use crate::{
    draft::Draft,
    hub::now,
    oidc,
    secrets::Secrets,
    serve::App,
    view::{Versioned, View},
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);
/// Records that go in one transaction.
const TOGETHER: usize = 1_000;
/// How long whoever bears a revoked token is told so.
const TOKENS_TOLD: Span = Span::secs(90 * 86_400);
/// How long whoever bears a token of an identity provider is told that it has expired. Each login makes one.
const LOGINS_TOLD: Span = Span::secs(86_400);
/// Deployments that are kept of each service and batch job.
const DEPLOYMENTS_KEPT: usize = 100;
/// How long certificates are remembered after their end.
const CERTS_KEPT: Span = Span::secs(30 * 86_400);

/// Keeps trust in order until told to stop. A change of the master key that was cut short goes on at once.
pub async fn keep(app: Arc<App>, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&app, now()).await {
            tracing::warn!(%error, cause = error.cause, "keys and certificates couldn't be kept in order");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn round(app: &App, at: Timestamp) -> Result<(), ApiError> {
    match app.trust.own.renew(&app.trust.authority, at) {
        Ok(true) => tracing::info!("the gateway's own certificate was renewed"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "the gateway's own certificate couldn't be renewed"),
    }
    let secrets = Secrets {
        store: app.hub.store(),
        trust: &app.trust,
    };
    secrets.rekey().await?;
    secrets.sweep(at).await?;
    let draft = over(&app.hub.view(), at);
    if let Some(draft) = draft {
        // Overtaken or not: the next round looks again.
        app.hub.commit(draft).await?;
    }
    // A page at a time: a fleet that submits thousands a second writes as many.
    while app.audit.prune(at).await? {}
    Ok(())
}

/// Tokens and certificates that nobody will ask about any more. `None`: there are none.
fn over(view: &View, at: Timestamp) -> Option<Draft> {
    let told = time::before(at, TOKENS_TOLD);
    let kept = time::before(at, CERTS_KEPT);
    let mut draft = Draft::new();
    let login_over = time::before(at, LOGINS_TOLD);
    let revoked = view
        .revoked_tokens()
        .filter(|token| token.revoked_at.is_some_and(|revoked| revoked < told));
    let logins = view
        .tokens()
        .filter(|token| oidc::made(&token.info) && token.info.expires_at.is_some_and(|ended| ended < login_over));
    let tokens: Vec<_> = revoked.chain(logins).take(TOGETHER).collect();
    let certs: Vec<_> = view
        .certs()
        .filter(|cert| cert.not_after < kept)
        .take(TOGETHER)
        .collect();
    let deployments: Vec<_> = past(view).take(TOGETHER).collect();
    for deployment in &deployments {
        draft.delete_deployment(deployment);
    }
    for token in &tokens {
        draft.delete_token(token);
    }
    for cert in &certs {
        draft.delete_cert(cert);
    }
    (!tokens.is_empty() || !certs.is_empty() || !deployments.is_empty()).then_some(draft)
}

/// Deployments that have ended and aren't among the latest of their service.
fn past(view: &View) -> impl Iterator<Item = &Versioned<Deployment>> {
    let mut by_name: HashMap<(&str, &str), Vec<&Versioned<Deployment>>> = HashMap::new();
    for deployment in view.deployments() {
        let name = (deployment.namespace.as_str(), deployment.plan.workload.as_str());
        by_name.entry(name).or_default().push(deployment);
    }
    by_name.into_values().flat_map(|mut all| {
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        let ended = all.into_iter().skip(DEPLOYMENTS_KEPT);
        ended.filter(|deployment| deployment.phase.ended())
    })
}
