//! Operations on alerts.

use api::{
    ApiError, Span, Timestamp,
    op::{
        AlertFilter, AlertReceiverView, AlertRuleView, AlertView, Empty, SilenceFilter, SilenceRef, SilenceRequest,
        SilenceView,
    },
    time,
};
use diagnosis::alert::{Matcher, Silence};
use sha2::{Digest, Sha256};

use super::face::Call;
use crate::{
    alerting, auth,
    draft::Draft,
    hub::{Committed, now, store_error},
    keys,
};

/// Longest silence: what nobody wants to hear of for longer is a rule to switch off.
const SILENCE_MAX: Span = Span::secs(365 * 86_400);
/// Most matchers of a silence, and most silences.
const MATCHERS_MAX: usize = 20;
const SILENCES_MAX: usize = 1_000;
/// Longest comment, in bytes.
const COMMENT_MAX: usize = 1_000;

/// `alert.list`
pub async fn list(call: Call, filter: AlertFilter) -> Result<Vec<AlertView>, ApiError> {
    let app = &call.app;
    let node = match &filter.node {
        Some(text) => Some(app.hub.view().find_node(text)?.name.to_string()),
        None => None,
    };
    Ok(app.alerting.list(&AlertFilter { node, ..filter }, now()))
}

/// `alert.rules`
pub async fn rules(call: Call, _: Empty) -> Result<Vec<AlertRuleView>, ApiError> {
    Ok(call.app.alerting.rules())
}

/// `alert.receivers`
pub async fn receivers(call: Call, _: Empty) -> Result<Vec<AlertReceiverView>, ApiError> {
    Ok(call.app.alerting.receivers())
}

/// `alert.silence.list`
pub async fn silences(call: Call, filter: SilenceFilter) -> Result<Vec<SilenceView>, ApiError> {
    Ok(call.app.alerting.silences(filter.all, now()))
}

/// `alert.silence`
pub async fn silence(call: Call, request: SilenceRequest) -> Result<SilenceView, ApiError> {
    let alerting = &call.app.alerting;
    // A repeated call makes the same id, which is taken then.
    let id = match &call.idempotency {
        Some(key) => {
            let sha = Sha256::digest(format!("{}\0{key}", call.identity.token_id).as_bytes());
            sha.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
        }
        None => auth::new_id()?,
    };
    let id = format!("sil-{id}");
    if call.idempotency.is_some()
        && let Ok(made) = alerting.find_silence(&id)
    {
        return Ok(shown(&call, &made));
    }
    let at = now();
    let silence = Silence {
        id,
        matchers: matchers(&call, &request)?,
        created_by: call.actor(),
        comment: request.comment,
        starts_at: at,
        ends_at: time::after(at, request.duration),
    };
    if silence.comment.len() > COMMENT_MAX {
        return Err(ApiError::invalid(
            "comment",
            format!("a comment has at most {COMMENT_MAX} bytes"),
        ));
    }
    if request.duration.is_zero() || request.duration > SILENCE_MAX {
        return Err(ApiError::invalid(
            "duration",
            format!("a silence lasts longer than 0s and at most {SILENCE_MAX}"),
        )
        .hint("30m, 2h, 7d"));
    }
    silence
        .check()
        .map_err(|error| ApiError::invalid("matchers", error.to_string()).hint("clawbernetes alerts rules"))?;
    if alerting.silences(true, at).len() >= SILENCES_MAX {
        return Err(ApiError::conflict(format!("there are {SILENCES_MAX} silences already"))
            .hint("one with a regular expression, such as node=~gpu-.*, does the work of many"));
    }
    let mut draft = Draft::new();
    draft.create(&key(&silence.id), &silence);
    if let Committed::Overtaken(_) = call.app.hub.commit(draft).await? {
        // The same call came in between; what it made may not be in memory yet.
        let record = call
            .app
            .hub
            .store()
            .get(key(&silence.id))
            .await
            .map_err(|e| store_error(&e))?;
        let made = record.and_then(|record| serde_json::from_slice::<Silence>(&record.value).ok());
        let made = made.ok_or_else(|| ApiError::conflict("it changed meanwhile: try again"))?;
        return Ok(shown(&call, &made));
    }
    alerting.put_silence(silence.clone());
    Ok(shown(&call, &silence))
}

fn matchers(call: &Call, request: &SilenceRequest) -> Result<Vec<Matcher>, ApiError> {
    match (&request.alert, request.matchers.as_slice()) {
        (Some(id), []) if !id.is_empty() => call.app.alerting.matchers_of(id),
        (None, texts @ [_, ..]) if texts.len() <= MATCHERS_MAX => {
            let read = |text: &String| {
                text.parse()
                    .map_err(|error| ApiError::invalid("matchers", format!("{error}")))
            };
            texts.iter().map(read).collect()
        }
        (None, [_, ..]) => Err(ApiError::invalid(
            "matchers",
            format!("at most {MATCHERS_MAX} matchers"),
        )),
        _ => Err(ApiError::invalid("matchers", "name one alert, or matchers").hint("node=gpu-7, rule=gpu-thermal")),
    }
}

/// `alert.silence.end`
pub async fn end(call: Call, request: SilenceRef) -> Result<SilenceView, ApiError> {
    let at = now();
    let found = call.app.alerting.find_silence(&request.id)?;
    if !found.is_active(at) {
        return Err(ApiError::conflict(format!("the silence {} has ended", found.id)));
    }
    let ended = Silence {
        ends_at: at.max(time::after(found.starts_at, Span(1))),
        ..found
    };
    let mut draft = Draft::new();
    draft.keep(&key(&ended.id), &ended);
    call.app.hub.commit(draft).await?;
    call.app.alerting.put_silence(ended.clone());
    Ok(shown(&call, &ended))
}

fn key(id: &str) -> String {
    format!("{}{id}", keys::SILENCES)
}

fn shown(call: &Call, silence: &Silence) -> SilenceView {
    let at: Timestamp = now();
    let known = call
        .app
        .alerting
        .silences(true, at)
        .into_iter()
        .find(|known| known.id == silence.id);
    known.unwrap_or_else(|| alerting::silence(silence, 0, at))
}
