//! Secrets as the gateway keeps them: records in the store, sealed by the vault's keys.
//!
//! A secret's record and its versions' values change in one transaction, which holds only if the record is as it was
//! read and the vault's lock is the one that the keys belong to. They aren't in the view: they are asked for rarely,
//! and what isn't in memory can't leak from there.

use api::{ApiError, ErrorCode, Timestamp};
use store::{Order, Range, Store, Txn, TxnOutcome};
use vault::secret::{
    AddError, Change, Invalid, Keyring, Lock, Name, Namespace, New, OpenError, ReadError, Sealed, Secret, Value,
    Version, Which, open,
    rekey::{Step, step},
};

use crate::{
    draft::json,
    hub::store_error,
    keys,
    trust::{self, AuthorityRecord, Trust, Versioned, while_locked},
};

/// How often a decision that was overtaken is made anew.
const TRIES: usize = 16;
/// Records of a page.
const PAGE: usize = 500;
/// Records whose keys are sealed anew in one transaction.
const REWRAP: usize = 100;

/// Secrets, where they are kept.
pub struct Secrets<'a> {
    /// The records.
    pub store: &'a Store,
    /// The keys.
    pub trust: &'a Trust,
}

/// A version of a secret, with its value.
pub struct Opened {
    /// The secret, as it was when it was opened.
    pub secret: Secret,
    /// Which of its versions.
    pub version: Version,
    /// The value.
    pub value: Value,
}

/// Whose a secret is, checked.
#[derive(Debug, Clone)]
pub struct Place {
    namespace: Namespace,
    name: Name,
}

impl Place {
    /// A secret's place.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`: a name that is none. It isn't quoted: somebody may have mistaken the value for it.
    pub fn new(namespace: &str, name: &str) -> Result<Self, ApiError> {
        api::id::check_name(namespace)
            .map_err(|e| ApiError::invalid("namespace", format!("'{namespace}' is no namespace: {e}")))?;
        api::secret::check_secret_name("name", name)?;
        Ok(Self {
            namespace: namespace.parse().map_err(|e| invalid(&e))?,
            name: name.parse().map_err(|e| invalid(&e))?,
        })
    }

    /// A new secret in this place.
    ///
    /// # Errors
    /// The request is wrong, or nothing can be sealed.
    pub fn create(&self, new: &New<'_>, ring: &Keyring) -> Result<Change, AddError> {
        Secret::create(self.namespace.clone(), self.name.clone(), new, ring)
    }

    /// What is told where it isn't there.
    #[must_use]
    pub fn missing(&self) -> ApiError {
        ApiError::not_found(format!(
            "there is no secret '{}' in namespace '{}'",
            self.name, self.namespace
        ))
        .hint("clawbernetes secret list")
    }
}

/// What was refused, for a caller.
pub fn invalid(error: &Invalid) -> ApiError {
    ApiError::invalid(error.field().as_str(), error.to_string())
}

/// Why a version can't be read, for a caller.
pub fn unreadable(error: &ReadError) -> ApiError {
    ApiError::not_found(error.to_string()).hint("clawbernetes secret versions NAME shows what can be read")
}

/// Why a version can't be set, for a caller.
pub fn refused(error: AddError) -> ApiError {
    match error {
        AddError::Invalid(error) => invalid(&error),
        AddError::NoNumbers => ApiError::conflict(error.to_string()),
        AddError::NoRandom(error) => ApiError::internal("nothing can be sealed").cause(error.to_string()),
    }
}

fn sealed_wrong(error: &OpenError) -> ApiError {
    ApiError::internal("the value doesn't open: its record was damaged").cause(error.to_string())
}

fn broken(error: trust::OpenError) -> ApiError {
    match error {
        trust::OpenError::Store(error) => store_error(&error),
        other => ApiError::internal(other.to_string()),
    }
}

impl Secrets<'_> {
    /// A secret's record.
    ///
    /// # Errors
    /// `NOT_FOUND`; those of the store.
    pub async fn get(&self, place: &Place) -> Result<Versioned<Secret>, ApiError> {
        self.look(place).await?.ok_or_else(|| place.missing())
    }

    async fn look(&self, place: &Place) -> Result<Option<Versioned<Secret>>, ApiError> {
        let key = keys::secret(place.namespace.as_str(), place.name.as_str());
        trust::read(self.store, &key).await.map_err(broken)
    }

    /// All secrets of a namespace, or of all, by namespace and name.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, namespace: Option<&str>) -> Result<Vec<Versioned<Secret>>, ApiError> {
        let prefix = match namespace {
            Some(namespace) => format!("{}{namespace}/", keys::SECRETS),
            None => keys::SECRETS.to_owned(),
        };
        let mut rest = Range::prefix(prefix);
        let mut found = Vec::new();
        loop {
            let page = self
                .store
                .range(rest.clone(), PAGE, Order::Ascending)
                .await
                .map_err(|e| store_error(&e))?;
            for record in &page.records {
                found.push(trust::parse(record).map_err(broken)?);
            }
            match page.records.last() {
                Some(last) if page.more => rest = rest.after(&last.key),
                _ => return Ok(found),
            }
        }
    }

    /// A version, opened. `None`: the newest.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such secret or version, or it can't be read any more.
    pub async fn open(&self, place: &Place, version: Option<u32>, now: Timestamp) -> Result<Opened, ApiError> {
        for _ in 0..TRIES {
            let secret = self.get(place).await?.value;
            let (found, wrapped) = secret.read(version, now).map_err(|e| unreadable(&e))?;
            let key = keys::secret_value(place.namespace.as_str(), place.name.as_str(), found.version);
            // Between the two reads it may have been replaced, or its key sealed anew.
            let Some(sealed) = trust::read::<Sealed>(self.store, &key).await.map_err(broken)? else {
                continue;
            };
            let (_, ring) = self.trust.keys();
            match open(&ring, &secret.context(found.version), wrapped, &sealed.value) {
                Ok(value) => {
                    let version = found.clone();
                    return Ok(Opened { secret, version, value });
                }
                Err(OpenError::OtherKey { .. }) => continue,
                Err(error) => return Err(sealed_wrong(&error)),
            }
        }
        Err(ApiError::conflict("the secret keeps changing: try again"))
    }

    /// Changes a secret by a decision, which sees it as it is (`None`: there is none), and gives what it is then
    /// (`None`: it is gone).
    ///
    /// # Errors
    /// Those of the decision and of the store; `CONFLICT` when it was overtaken too often.
    pub async fn change(
        &self,
        place: &Place,
        mut decide: impl FnMut(Option<&Secret>, &Keyring) -> Result<Change, ApiError>,
    ) -> Result<Option<Secret>, ApiError> {
        let (namespace, name) = (place.namespace.as_str(), place.name.as_str());
        let key = keys::secret(namespace, name);
        for _ in 0..TRIES {
            let before = self.look(place).await?;
            let (lock, ring) = self.trust.keys();
            let Change { secret, put, drop } = decide(before.as_ref().map(|b| &b.value), &ring)?;
            let mut txn = while_locked(Txn::default(), &lock);
            txn = match &before {
                Some(before) => txn.unchanged(key.as_str(), before.revision),
                None => txn.absent(key.as_str()),
            };
            txn = match &secret {
                Some(secret) => txn.put(key.as_str(), json(secret)),
                None => txn.delete(key.as_str()),
            };
            if let Some((version, sealed)) = &put {
                txn = txn.put(keys::secret_value(namespace, name, *version), json(sealed));
            }
            for version in drop {
                txn = txn.delete(keys::secret_value(namespace, name, version));
            }
            match self.store.txn(txn).await.map_err(|e| store_error(&e))? {
                TxnOutcome::Committed(_) => return Ok(secret),
                TxnOutcome::Conflict { .. } => {}
            }
        }
        Err(ApiError::conflict("the secret keeps changing: try again"))
    }

    /// Deletes a secret, or its newest version.
    ///
    /// # Errors
    /// `NOT_FOUND`; those of the store.
    pub async fn delete(&self, place: &Place, which: Which, now: Timestamp) -> Result<Option<Secret>, ApiError> {
        self.change(place, |secret, _| {
            Ok(secret.ok_or_else(|| place.missing())?.delete(which, now))
        })
        .await
    }

    /// Destroys what has ended by itself. How many secrets had something.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self, now: Timestamp) -> Result<usize, ApiError> {
        let mut swept = 0;
        for secret in self.list(None).await? {
            if secret.value.sweep(now).is_none() {
                continue;
            }
            let place = Place {
                namespace: secret.value.namespace.clone(),
                name: secret.value.name.clone(),
            };
            let done = self.change(&place, |secret, _| {
                secret
                    .and_then(|secret| secret.sweep(now))
                    .ok_or_else(|| ApiError::conflict("nothing has ended"))
            });
            match done.await {
                Ok(_) => swept += 1,
                Err(error) if error.code == ErrorCode::Conflict => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    /// Goes on with a change of the master key, until it is through. Does nothing where none is under way.
    ///
    /// # Errors
    /// A data key doesn't open; those of the store.
    pub async fn rekey(&self) -> Result<(), ApiError> {
        let stuck = |error: &dyn std::fmt::Display| {
            ApiError::internal("the vault can't be sealed anew").cause(error.to_string())
        };
        loop {
            let (lock, ring) = self.trust.keys();
            if lock.value.previous.is_none() {
                return Ok(());
            }
            let (secrets, authority) = self.holders().await?;
            let next = step(&lock.value, &ring, [&authority.value], 1).map_err(|e| stuck(&e))?;
            match next {
                Step::Idle => return Ok(()),
                Step::Rewrap(records) => {
                    let mut txn = while_locked(Txn::default(), &lock);
                    for record in &records {
                        txn = txn
                            .unchanged(keys::VAULT_AUTHORITY, authority.revision)
                            .put(keys::VAULT_AUTHORITY, json(record));
                    }
                    // Overtaken or not, the next look tells.
                    let _ = self.store.txn(txn).await.map_err(|e| store_error(&e))?;
                    continue;
                }
                Step::Finish(..) => {}
            }
            match step(&lock.value, &ring, secrets.iter().map(|s| &s.value), REWRAP).map_err(|e| stuck(&e))? {
                Step::Idle => return Ok(()),
                Step::Rewrap(records) => {
                    let mut txn = while_locked(Txn::default(), &lock);
                    for record in &records {
                        let key = keys::secret(record.namespace.as_str(), record.name.as_str());
                        let before = secrets
                            .iter()
                            .find(|s| s.value.namespace == record.namespace && s.value.name == record.name);
                        let Some(before) = before else { continue };
                        txn = txn
                            .unchanged(key.as_str(), before.revision)
                            .put(key.as_str(), json(record));
                    }
                    let _ = self.store.txn(txn).await.map_err(|e| store_error(&e))?;
                }
                Step::Finish(settled, ring) => {
                    // Whatever was sealed meanwhile was sealed by the new key: the lock has been the new one's since the
                    // change began, and every write stands on it.
                    let txn = while_locked(Txn::default(), &lock).put(keys::VAULT_LOCK, json(&settled));
                    if let TxnOutcome::Committed(revision) = self.store.txn(txn).await.map_err(|e| store_error(&e))? {
                        self.trust.relock(
                            Versioned {
                                value: *settled,
                                revision,
                            },
                            ring,
                        );
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Everything that holds data keys.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn holders(&self) -> Result<(Vec<Versioned<Secret>>, Versioned<AuthorityRecord>), ApiError> {
        let authority = trust::read(self.store, keys::VAULT_AUTHORITY).await.map_err(broken)?;
        let authority = authority.ok_or_else(|| ApiError::internal("the certificate authority's record is gone"))?;
        Ok((self.list(None).await?, authority))
    }

    /// Writes a lock in place of another one.
    ///
    /// # Errors
    /// `CONFLICT`: it changed meanwhile.
    pub async fn relock(&self, before: &Versioned<Lock>, lock: Lock, ring: Keyring) -> Result<(), ApiError> {
        let txn = while_locked(Txn::default(), before).put(keys::VAULT_LOCK, json(&lock));
        match self.store.txn(txn).await.map_err(|e| store_error(&e))? {
            TxnOutcome::Committed(revision) => {
                self.trust.relock(Versioned { value: lock, revision }, ring);
                Ok(())
            }
            TxnOutcome::Conflict { .. } => Err(ApiError::conflict("the vault's key is being changed already")),
        }
    }
}
