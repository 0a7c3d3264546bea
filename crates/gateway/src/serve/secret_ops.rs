//! Operations on secrets and on the vault.

use api::{
    ApiError, ErrorCode, Timestamp,
    op::{
        Empty, SecretContent, SecretDeleteRequest, SecretFilter, SecretGetRequest, SecretInfo, SecretRef,
        SecretRotateRequest, SecretSetRequest, SecretVersionInfo, SecretVersionState, VaultStatus,
    },
    secret::SecretValue,
    time,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::SignedDuration;
use vault::secret::{Expiry, New, Secret, State, Value, Version, Which, Why, rekey::Holder};
use zeroize::Zeroizing;

use super::{App, face::Call};
use crate::{
    auth,
    hub::now,
    secrets::{Opened, Place, Secrets, invalid, refused},
    trust::Unlock,
};

/// Random bytes of a value that the gateway makes: as many as a key has.
const MADE_BYTES: usize = 32;

fn secrets(app: &App) -> Secrets<'_> {
    Secrets {
        store: app.hub.store(),
        trust: &app.trust,
    }
}

fn place(call: &Call, namespace: &Option<String>, name: &str) -> Result<Place, ApiError> {
    Place::new(auth::namespace(&call.identity, namespace.as_deref())?, name)
}

fn value(value: &SecretValue) -> Result<Value, ApiError> {
    Value::new(value.expose()).map_err(|e| invalid(&e))
}

/// A version's end by its life.
fn expiry(life: Option<api::Span>, now: Timestamp) -> Expiry {
    life.map_or(Expiry::Never, |life| Expiry::At(time::after(now, life)))
}

/// `secret.set`
pub async fn set(call: Call, request: SecretSetRequest) -> Result<SecretInfo, ApiError> {
    let place = place(&call, &request.namespace, &request.name)?;
    let value = value(&request.value)?;
    let (by, at) = (call.actor(), now());
    let new = New {
        value: &value,
        description: request.description.as_deref(),
        expiry: expiry(request.expires, at),
        keep: None,
        ttl: None,
        by: &by,
        at,
    };
    let secrets = secrets(&call.app);
    let set = secrets.change(&place, |secret, ring| match secret {
        Some(secret) => secret.add(&new, ring).map_err(refused),
        None => place.create(&new, ring).map_err(refused),
    });
    shown(set.await?, at)
}

/// `secret.rotate`
pub async fn rotate(call: Call, request: SecretRotateRequest) -> Result<SecretInfo, ApiError> {
    let place = place(&call, &request.namespace, &request.name)?;
    let value = match &request.value {
        Some(given) => value(given)?,
        None => {
            let random = Zeroizing::new(auth::random::<MADE_BYTES>()?);
            let text = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*random));
            Value::new(text.as_bytes()).map_err(|e| invalid(&e))?
        }
    };
    let (by, at) = (call.actor(), now());
    let new = New {
        value: &value,
        description: None,
        expiry: match request.expires {
            Some(life) => Expiry::At(time::after(at, life)),
            None => Expiry::AsBefore,
        },
        keep: Some(request.keep_versions),
        ttl: request
            .ttl
            .map(|ttl| SignedDuration::from_millis(ttl.millis().try_into().unwrap_or(i64::MAX))),
        by: &by,
        at,
    };
    let secrets = secrets(&call.app);
    let rotated = secrets.change(&place, |secret, ring| {
        let secret = secret.ok_or_else(|| {
            place
                .missing()
                .hint(format!("clawbernetes secret set {} makes it", request.name))
        })?;
        secret.add(&new, ring).map_err(refused)
    });
    shown(rotated.await?, at)
}

fn shown(secret: Option<Secret>, at: Timestamp) -> Result<SecretInfo, ApiError> {
    secret
        .map(|secret| info(&secret, at))
        .ok_or_else(|| ApiError::internal("the secret went while it was set"))
}

/// `secret.get`
pub async fn get(call: Call, request: SecretGetRequest) -> Result<SecretContent, ApiError> {
    let place = place(&call, &request.namespace, &request.name)?;
    let at = now();
    let Opened { secret, version, value } = secrets(&call.app).open(&place, request.version, at).await?;
    Ok(SecretContent {
        name: secret.name.to_string(),
        namespace: secret.namespace.to_string(),
        version: version.version,
        value: SecretValue::from(value.expose().to_vec()),
        created_at: version.created_at,
        expires_at: ends(&version),
    })
}

/// `secret.list`
pub async fn list(call: Call, filter: SecretFilter) -> Result<Vec<SecretInfo>, ApiError> {
    let namespace = match (&filter.namespace, &call.identity.namespace) {
        (None, None) => None,
        (given, _) => Some(auth::namespace(&call.identity, given.as_deref())?),
    };
    let at = now();
    let found = secrets(&call.app).list(namespace).await?;
    Ok(found.iter().map(|secret| info(&secret.value, at)).collect())
}

/// `secret.versions`
pub async fn versions(call: Call, request: SecretRef) -> Result<Vec<SecretVersionInfo>, ApiError> {
    let place = place(&call, &request.namespace, &request.name)?;
    let secret = secrets(&call.app).get(&place).await?.value;
    let at = now();
    let current = secret.read(None, at).ok().map(|(version, _)| version.version);
    let versions = secret.versions.iter().map(|version| SecretVersionInfo {
        version: version.version,
        state: match version.state(at) {
            State::Readable => SecretVersionState::Readable,
            State::Gone {
                why: Why::Expired | Why::Retired,
                ..
            } => SecretVersionState::Expired,
            State::Gone {
                why: Why::Superseded | Why::Deleted,
                ..
            } => SecretVersionState::Destroyed,
        },
        current: current == Some(version.version),
        created_at: version.created_at,
        created_by: version.created_by.clone(),
        expires_at: ends(version),
    });
    Ok(versions.collect())
}

/// `secret.delete`
pub async fn delete(call: Call, request: SecretDeleteRequest) -> Result<SecretInfo, ApiError> {
    let place = place(&call, &request.namespace, &request.name)?;
    let which = if request.all_versions {
        Which::All
    } else {
        Which::Latest
    };
    let at = now();
    let secrets = secrets(&call.app);
    let before = secrets.get(&place).await?.value;
    let left = secrets.delete(&place, which, at).await?;
    Ok(match left {
        Some(left) => info(&left, at),
        // Nothing can be read any more; who it was is told.
        None => SecretInfo {
            version: None,
            versions: 0,
            expires_at: None,
            ..info(&before, at)
        },
    })
}

/// When a version ends by itself.
fn ends(version: &Version) -> Option<Timestamp> {
    version.expires_at.into_iter().chain(version.retires_at).min()
}

fn info(secret: &Secret, at: Timestamp) -> SecretInfo {
    let current = secret.read(None, at).ok().map(|(version, _)| version);
    let newest = secret.versions.last();
    SecretInfo {
        name: secret.name.to_string(),
        namespace: secret.namespace.to_string(),
        description: secret.description.clone(),
        version: current.map(|version| version.version),
        versions: secret.readable(at).len() as u32,
        created_at: secret.created_at,
        updated_at: newest.map_or(secret.created_at, |version| version.created_at),
        updated_by: newest.map_or_else(|| secret.created_by.clone(), |version| version.created_by.clone()),
        expires_at: current.and_then(ends),
    }
}

/// `vault.status`
pub async fn status(call: Call, _: Empty) -> Result<VaultStatus, ApiError> {
    vault_status(&call.app).await
}

async fn vault_status(app: &App) -> Result<VaultStatus, ApiError> {
    let (lock, _) = app.trust.keys();
    let key = lock.value.current.key();
    let (secrets, mut authority) = secrets(app).holders().await?;
    let mut keys: Vec<vault::secret::KeyId> = Vec::new();
    for mut secret in secrets {
        keys.extend(Holder::data_keys(&mut secret.value).iter().map(|(_, k)| k.key));
    }
    keys.extend(Holder::data_keys(&mut authority.value).iter().map(|(_, k)| k.key));
    Ok(VaultStatus {
        key: key.to_string(),
        source: app.trust.unlock.source.name().to_owned(),
        sealed: keys.len() as u64,
        sealed_by_old: keys.iter().filter(|k| **k != key).count() as u64,
    })
}

/// `vault.rekey`
pub async fn rekey(call: Call, _: Empty) -> Result<VaultStatus, ApiError> {
    let app = &call.app;
    let secrets = secrets(app);
    // One that was cut short goes first.
    secrets.rekey().await?;
    let (lock, ring) = app.trust.keys();
    let unlock: &Unlock = &app.trust.unlock;
    let failed = |error: crate::trust::KeyError| {
        ApiError::new(ErrorCode::Conflict, "there is no new master key to seal with").cause(error.to_string())
    };
    let (key, kdf) = unlock.next(&lock.value).await.map_err(failed)?;
    let begun = lock.value.begin_rekey(&ring, key, kdf, now());
    let (next, ring) = begun.map_err(|error| {
        ApiError::conflict(error.to_string()).hint(match unlock.source.name() {
            "passphrase" => "put the new passphrase where the gateway reads it, and call again",
            "command" => "make the key command print the new key, and call again",
            _ => "clawbernetes vault status",
        })
    })?;
    secrets.relock(&lock, next, ring).await?;
    unlock.settle().map_err(failed)?;
    secrets.rekey().await?;
    vault_status(app).await
}
