//! Answers to creating calls, kept for a while: a repetition with the same idempotency key gets them again.

use api::{ApiError, Span, time};
use serde::de::DeserializeOwned;
use store::LeaseId;

use super::{App, face::Call};
use crate::{
    hub::{now, store_error},
    keys,
};

/// How long an answer is kept.
const KEPT: Span = Span::secs(86_400);

/// What the same caller was answered with the same key. `None`: it is new.
///
/// # Errors
/// The store can't be read.
pub async fn earlier<T: DeserializeOwned>(call: &Call, key: &str) -> Result<Option<T>, ApiError> {
    let key = keys::answer(&call.identity.token_id, key);
    let hub = &call.app.hub;
    let record = hub.store().get(key.as_str()).await.map_err(|e| store_error(&e))?;
    let Some(record) = record else { return Ok(None) };
    // The call that made it may still be on its way into the view.
    hub.until_seen(record.modified).await?;
    let answer = serde_json::from_slice(&record.value);
    answer
        .map(Some)
        .map_err(|e| ApiError::internal("a kept answer can't be read").cause(e.to_string()))
}

/// A lease for answers: one an hour is shared by all of them, so that a call costs no lease of its own.
///
/// # Errors
/// The store can't grant one.
pub async fn lease(app: &App) -> Result<LeaseId, ApiError> {
    let mut shared = app.access.answer_lease.lock().await;
    let fresh = shared
        .as_ref()
        .filter(|(_, at)| time::between(*at, now()) < Span::secs(3600));
    if let Some((lease, _)) = fresh {
        return Ok(*lease);
    }
    let lease = app
        .hub
        .store()
        .grant(KEPT.duration() * 2)
        .await
        .map_err(|e| store_error(&e))?;
    *shared = Some((lease, now()));
    Ok(lease)
}
