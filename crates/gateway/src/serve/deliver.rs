//! Secrets on their way to the job that uses them.

use api::{ApiError, ErrorCode, NodeName, secret::SecretValue, wire::SecretsAnswer, workload::JobKey};

use super::App;
use crate::{
    audit::Entry,
    hub::now,
    secrets::{Opened, Place, Secrets},
};

/// The values for a job that its node asks for.
pub async fn values(app: &App, node: &NodeName, job: &JobKey) -> SecretsAnswer {
    match try_values(app, node, job).await {
        Ok(answer) => answer,
        Err(error) => SecretsAnswer::Refused { error },
    }
}

async fn try_values(app: &App, node: &NodeName, job: &JobKey) -> Result<SecretsAnswer, ApiError> {
    // Only what is placed on this node, in this attempt, and hasn't ended: a node learns nothing else.
    let workload = {
        let view = app.hub.view();
        let workload = view.workload(&job.workload).filter(|w| {
            let member = w.members.iter().find(|m| m.rank == job.rank);
            w.attempt == job.attempt && member.is_some_and(|m| m.node == *node && !m.state.ended())
        });
        workload.map(|w| std::sync::Arc::clone(&w.value))
    };
    let workload =
        workload.ok_or_else(|| ApiError::new(ErrorCode::PermissionDenied, format!("{job} isn't {node}'s to run")))?;
    let at = now();
    let secrets = Secrets {
        store: app.hub.store(),
        trust: &app.trust,
    };
    let (mut values, mut mask) = (Vec::new(), Vec::new());
    for used in &workload.spec.secrets {
        let named = |error: ApiError| ApiError {
            message: format!("secret '{}': {}", used.secret, error.message),
            ..error
        };
        let place = Place::new(&workload.namespace, &used.secret)?;
        let opened = secrets.open(&place, None, at).await;
        let entry = Entry {
            at,
            actor: format!("node:{node}"),
            token: None,
            action: "secret.use".to_owned(),
            target: Some(format!(
                "secret/{}/{} for workload/{}",
                workload.namespace, used.secret, workload.id
            )),
            from: None,
            allowed: true,
            error: opened.as_ref().err().map(|error| error.code.to_string()),
        };
        // On the disk before the value leaves.
        app.audit.record(entry).await?;
        let Opened { secret, version, value } = opened.map_err(named)?;
        values.push(SecretValue::from(value.expose().to_vec()));
        mask.push(SecretValue::from(value.expose().to_vec()));
        // An earlier attempt's output may still be on its way, and the job itself may keep an older value.
        for older in secret.readable(at) {
            if older != version.version
                && let Ok(older) = secrets.open(&place, Some(older), at).await
            {
                mask.push(SecretValue::from(older.value.expose().to_vec()));
            }
        }
    }
    Ok(SecretsAnswer::Values { values, mask })
}
