//! A secret's record: its versions, which of them are readable, and what may become of them.
//!
//! Everything here decides and changes nothing: each function gives the record that should stand in place of the one it
//! was made of ([`Change`]), to be written on the condition that this one hasn't changed.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::value::check_description;
use super::{Context, Field, Invalid, Keyring, Name, Namespace, NoRandom, Sealed, Value, WrappedKey, seal};

/// How many older versions stay readable, where nothing else was said.
pub const DEFAULT_KEEP: u32 = 3;

/// Most older versions that may stay readable: a record is read and written whole.
pub const MAX_KEEP: u32 = 100;

/// How many destroyed versions a record remembers, to say what became of them. A few more may have to stay.
const REMEMBERED: usize = 20;

/// A secret: what is known of it without its values. Safe to show but for `versions[].data_key`, which is of no use
/// without the master key and shows nothing in `Debug`.
///
/// A secret lives until it is deleted with nothing readable left of it; one made later by the same name is another,
/// and counts from 1 again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// Where it is.
    pub namespace: Namespace,
    /// Unique in its namespace.
    pub name: Name,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When its first version was set.
    pub created_at: Timestamp,
    /// Who set it.
    pub created_by: String,
    /// How many older versions stay readable beside the newest.
    pub keep_versions: u32,
    /// The number of the next version; numbers are never used again.
    pub next_version: u32,
    /// By rising number. Of destroyed ones about the newest 20.
    pub versions: Vec<Version>,
}

/// One version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Version {
    /// Its number, from 1.
    pub version: u32,
    /// When it was set.
    pub created_at: Timestamp,
    /// Who set it.
    pub created_by: String,
    /// From when on it can't be read, as asked when it was set. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// From when on it can't be read, as asked when it was replaced. `None`: not so long as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires_at: Option<Timestamp>,
    /// What opens its value.
    pub data_key: DataKey,
}

/// What opens a version's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DataKey {
    /// The data key, sealed.
    Wrapped(WrappedKey),
    /// Nothing any more.
    Destroyed {
        /// When it became unreadable.
        at: Timestamp,
        /// Why.
        why: Why,
    },
}

/// Why a version can't be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Why {
    /// Its expiry came.
    Expired,
    /// It was replaced, and its time to live after that is over.
    Retired,
    /// It was replaced more often than older versions are kept.
    Superseded,
    /// It was deleted.
    Deleted,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Expired => "expired",
            Self::Retired => "was retired",
            Self::Superseded => "was superseded",
            Self::Deleted => "was deleted",
        })
    }
}

/// Whether a version can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can.
    Readable,
    /// It can't, and never will. The same before and after its data key is destroyed.
    Gone {
        /// Since when.
        at: Timestamp,
        /// Why.
        why: Why,
    },
}

/// What a version is made of.
#[derive(Debug)]
pub struct New<'a> {
    /// The value.
    pub value: &'a Value,
    /// The secret's description from now on. `None`: as before; empty: none.
    pub description: Option<&'a str>,
    /// When this version expires.
    pub expiry: Expiry,
    /// How many older versions stay readable from now on, up to [`MAX_KEEP`]. `None`: as before, at first
    /// [`DEFAULT_KEEP`].
    pub keep: Option<u32>,
    /// How long older versions stay readable from now; those that would end earlier still do. `None`: while they are
    /// kept.
    pub ttl: Option<SignedDuration>,
    /// Who sets it.
    pub by: &'a str,
    /// The time.
    pub at: Timestamp,
}

/// When a version expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Never.
    Never,
    /// At a time, which must be ahead.
    At(Timestamp),
    /// After as long a life as the newest version was given. Never, if there is none or it has no expiry.
    AsBefore,
}

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest version.
    Latest,
    /// The whole secret.
    All,
}

/// What to write, all at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The secret's record from now on. `None`: it goes.
    pub secret: Option<Secret>,
    /// A sealed value to keep, by its version.
    pub put: Option<(u32, Sealed)>,
    /// Versions whose sealed values go. Their data keys are gone already.
    pub drop: Vec<u32>,
}

/// A version can't be set; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The request is wrong.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// All numbers are used up.
    #[error("the secret has had as many versions as can be numbered")]
    NoNumbers,
    /// Nothing can be sealed.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// A version can't be read. `readable` are the versions that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// There never was such a version.
    #[error("there is no version {version} ({})", list(readable))]
    Unknown {
        /// The version asked for.
        version: u32,
        /// What can be read.
        readable: Vec<u32>,
    },
    /// It expired, or was replaced and its time to live after that is over.
    #[error("version {version} {why} at {at} ({})", list(readable))]
    Expired {
        /// The version, asked for or the newest.
        version: u32,
        /// When it ended.
        at: Timestamp,
        /// [`Why::Expired`] or [`Why::Retired`].
        why: Why,
        /// What can be read.
        readable: Vec<u32>,
    },
    /// It was deleted or superseded.
    #[error("version {version} is destroyed{} ({})", cause(*.past), list(readable))]
    Destroyed {
        /// The version asked for.
        version: u32,
        /// When and why: [`Why::Deleted`] or [`Why::Superseded`]. `None`: too long ago to be remembered.
        past: Option<(Timestamp, Why)>,
        /// What can be read.
        readable: Vec<u32>,
    },
}

fn list(readable: &[u32]) -> String {
    if readable.is_empty() {
        return "no version is readable".to_owned();
    }
    let numbers: Vec<String> = readable.iter().map(u32::to_string).collect();
    format!("readable: {}", numbers.join(", "))
}

fn cause(past: Option<(Timestamp, Why)>) -> String {
    past.map(|(at, why)| format!(": it {why} at {at}")).unwrap_or_default()
}

impl Version {
    /// Whether it can be read.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        match self.data_key {
            DataKey::Destroyed { at, why } => State::Gone { at, why },
            DataKey::Wrapped(_) => match self.end() {
                Some((at, why)) if at <= now => State::Gone { at, why },
                _ => State::Readable,
            },
        }
    }

    /// When it ends by itself, and why.
    fn end(&self) -> Option<(Timestamp, Why)> {
        let expiry = self.expires_at.map(|at| (at, Why::Expired));
        let retirement = self.retires_at.map(|at| (at, Why::Retired));
        [expiry, retirement].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn is_readable(&self, now: Timestamp) -> bool {
        self.state(now) == State::Readable
    }

    /// Destroys the data key. Whether there was one.
    fn destroy(&mut self, at: Timestamp, why: Why) -> bool {
        let destroyed = DataKey::Destroyed { at, why };
        matches!(std::mem::replace(&mut self.data_key, destroyed), DataKey::Wrapped(_))
    }
}

impl Secret {
    /// A new secret with its first version. Whether the name is free is the caller's to see to.
    ///
    /// # Errors
    /// The request is wrong, or nothing can be sealed.
    pub fn create(namespace: Namespace, name: Name, new: &New<'_>, ring: &Keyring) -> Result<Change, AddError> {
        let empty = Self {
            namespace,
            name,
            description: None,
            created_at: new.at,
            created_by: new.by.to_owned(),
            keep_versions: DEFAULT_KEEP,
            next_version: 1,
            versions: Vec::new(),
        };
        empty.add(new, ring)
    }

    /// A new version, by `set` or `rotate`: it is the newest from now on, and older ones end as they should.
    ///
    /// # Errors
    /// The request is wrong, or nothing can be sealed.
    pub fn add(&self, new: &New<'_>, ring: &Keyring) -> Result<Change, AddError> {
        let expires_at = self.expiry(new)?;
        let keep_versions = new.keep.unwrap_or(self.keep_versions);
        if keep_versions > MAX_KEEP {
            let field = Field::KeepVersions;
            return Err(Invalid::TooMuch { field, most: "100" }.into());
        }
        if let Some(description) = new.description {
            check_description(description)?;
        }
        let retires_at = new.ttl.map(|ttl| after(Field::Ttl, new.at, ttl)).transpose()?;
        let version = self.next_version;
        let next_version = version.checked_add(1).ok_or(AddError::NoNumbers)?;
        let (wrapped, sealed) = seal(ring, &self.context(version), new.value)?;

        let mut secret = self.clone();
        if let Some(description) = new.description {
            secret.description = Some(description.to_owned()).filter(|text| !text.is_empty());
        }
        secret.keep_versions = keep_versions;
        secret.next_version = next_version;
        for older in &mut secret.versions {
            older.retires_at = older.retires_at.into_iter().chain(retires_at).min();
        }
        let mut drop = secret.end_versions(new.at);
        let surplus = secret.versions.iter_mut().rev().filter(|v| v.is_readable(new.at));
        for older in surplus.skip(keep_versions as usize) {
            older.destroy(new.at, Why::Superseded);
            drop.push(older.version);
        }
        secret.versions.push(Version {
            version,
            created_at: new.at,
            created_by: new.by.to_owned(),
            expires_at,
            retires_at: None,
            data_key: DataKey::Wrapped(wrapped),
        });
        secret.forget();
        drop.sort_unstable();
        Ok(Change {
            secret: Some(secret),
            put: Some((version, sealed)),
            drop,
        })
    }

    /// Deletes the newest version or all. Data keys are destroyed at once.
    ///
    /// The version before the newest becomes the newest if it is readable, and then lives on as if it had not been
    /// replaced. If nothing readable is left, the secret goes.
    #[must_use]
    pub fn delete(&self, which: Which, now: Timestamp) -> Change {
        let mut secret = self.clone();
        let mut drop = secret.end_versions(now);
        if which == Which::Latest
            && let Some(latest) = secret.latest_mut()
        {
            if latest.destroy(now, Why::Deleted) {
                drop.push(latest.version);
            }
            if let Some(before) = secret.latest_mut().filter(|v| v.is_readable(now)) {
                before.retires_at = None;
            }
            if secret.versions.iter().any(|v| v.is_readable(now)) {
                secret.forget();
                drop.sort_unstable();
                return Change {
                    secret: Some(secret),
                    put: None,
                    drop,
                };
            }
        }
        let wrapped = self
            .versions
            .iter()
            .filter(|v| matches!(v.data_key, DataKey::Wrapped(_)));
        Change {
            secret: None,
            put: None,
            drop: wrapped.map(|v| v.version).collect(),
        }
    }

    /// Destroys the data keys of versions that have ended. `None`: there are none, until [`next_end`](Self::next_end).
    #[must_use]
    pub fn sweep(&self, now: Timestamp) -> Option<Change> {
        self.next_end().filter(|end| *end <= now)?;
        let mut secret = self.clone();
        let drop = secret.end_versions(now);
        secret.forget();
        Some(Change {
            secret: Some(secret),
            put: None,
            drop,
        })
    }

    /// When the next version ends by itself: not before then a sweep finds anything. `None`: never.
    #[must_use]
    pub fn next_end(&self) -> Option<Timestamp> {
        let wrapped = self
            .versions
            .iter()
            .filter(|v| matches!(v.data_key, DataKey::Wrapped(_)));
        wrapped.filter_map(Version::end).map(|(at, _)| at).min()
    }

    /// A version to open: by its number, or the newest. Expiry counts here, whether or not it was swept.
    ///
    /// The newest is the one set last of those not deleted: if it expired, no older value is given in its place.
    ///
    /// # Errors
    /// It isn't readable.
    pub fn read(&self, version: Option<u32>, now: Timestamp) -> Result<(&Version, &WrappedKey), ReadError> {
        let found = match version {
            Some(number) => self.versions.iter().find(|v| v.version == number),
            None => self.latest(),
        };
        let readable = || self.readable(now);
        let Some(found) = found else {
            let version = version.unwrap_or(0);
            let readable = readable();
            return Err(if (1..self.next_version).contains(&version) {
                let past = None;
                ReadError::Destroyed {
                    version,
                    past,
                    readable,
                }
            } else {
                ReadError::Unknown { version, readable }
            });
        };
        let version = found.version;
        match (found.state(now), &found.data_key) {
            (State::Readable, DataKey::Wrapped(wrapped)) => Ok((found, wrapped)),
            (
                State::Gone {
                    at,
                    why: why @ (Why::Expired | Why::Retired),
                },
                _,
            ) => Err(ReadError::Expired {
                version,
                at,
                why,
                readable: readable(),
            }),
            (
                State::Gone {
                    at,
                    why: why @ (Why::Superseded | Why::Deleted),
                },
                _,
            ) => Err(ReadError::Destroyed {
                version,
                past: Some((at, why)),
                readable: readable(),
            }),
            (State::Readable, DataKey::Destroyed { .. }) => unreachable!("a version without a data key is gone"),
        }
    }

    /// The newest version of those not deleted, readable or not. `None`: all that are remembered were deleted.
    #[must_use]
    pub fn latest(&self) -> Option<&Version> {
        self.versions.iter().rev().find(|v| !was_deleted(v))
    }

    fn latest_mut(&mut self) -> Option<&mut Version> {
        self.versions.iter_mut().rev().find(|v| !was_deleted(v))
    }

    /// The numbers of the versions that can be read, rising.
    #[must_use]
    pub fn readable(&self, now: Timestamp) -> Vec<u32> {
        let readable = self.versions.iter().filter(|v| v.is_readable(now));
        readable.map(|v| v.version).collect()
    }

    /// What a version's value is bound to.
    #[must_use]
    pub fn context(&self, version: u32) -> Context {
        Context::secret(&self.namespace, &self.name, version)
    }

    fn expiry(&self, new: &New<'_>) -> Result<Option<Timestamp>, Invalid> {
        let field = Field::Expires;
        match new.expiry {
            Expiry::Never => Ok(None),
            Expiry::At(at) if at <= new.at => Err(Invalid::Past { field }),
            Expiry::At(at) => Ok(Some(at)),
            Expiry::AsBefore => self
                .latest()
                .and_then(|v| v.expires_at.map(|end| end.duration_since(v.created_at)))
                .map(|life| after(field, new.at, life))
                .transpose(),
        }
    }

    /// Destroys the data keys of versions that have ended, and says which they were.
    fn end_versions(&mut self, now: Timestamp) -> Vec<u32> {
        let mut ended = Vec::new();
        for version in &mut self.versions {
            if let State::Gone { at, why } = version.state(now)
                && version.destroy(at, why)
            {
                ended.push(version.version);
            }
        }
        ended
    }

    /// Forgets the oldest destroyed versions but the newest 20. Of those between two that aren't destroyed the newest
    /// that wasn't deleted stays: without it, an older value would once be given in its place.
    fn forget(&mut self) {
        let gone = |v: &Version| matches!(v.data_key, DataKey::Destroyed { .. });
        let mut surplus = self
            .versions
            .iter()
            .filter(|v| gone(v))
            .count()
            .saturating_sub(REMEMBERED);
        if surplus == 0 {
            return;
        }
        let (mut stay, mut below_held) = (Vec::new(), true);
        for version in self.versions.iter().rev().filter(|v| !was_deleted(v)) {
            if gone(version) && below_held {
                stay.push(version.version);
            }
            below_held = !gone(version);
        }
        self.versions.retain(|v| {
            let forget = surplus > 0 && gone(v) && !stay.contains(&v.version);
            surplus -= usize::from(forget);
            !forget
        });
    }
}

fn was_deleted(version: &Version) -> bool {
    matches!(version.data_key, DataKey::Destroyed { why: Why::Deleted, .. })
}

fn after(field: Field, now: Timestamp, time: SignedDuration) -> Result<Timestamp, Invalid> {
    if time.is_negative() {
        return Err(Invalid::Past { field });
    }
    let most = "until the year 9999";
    now.checked_add(time).map_err(|_| Invalid::TooMuch { field, most })
}

#[cfg(test)]
mod tests;
