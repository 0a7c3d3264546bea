//! The record of a certificate that was issued, and what may become of it. Whoever keeps it keeps it as JSON.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    authority::Authority,
    issue::{Leaf, Purpose, Request, Subject, Validity},
    key::Algorithm,
    name::{Name, San},
    renew::{renewal_at, renewal_window_start},
};

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A service: what a person asked for.
    #[default]
    Service,
    /// A node of the fleet.
    Node,
}

/// What is known of a certificate that was issued. The key isn't here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// What it is called. After a rotation the old and the new one are called the same.
    pub name: Name,
    /// Whom it is for.
    pub kind: Kind,
    /// Hex, lower case, unique.
    pub serial: String,
    /// The names it proves.
    pub sans: Vec<San>,
    /// Kind of its key.
    pub algorithm: Algorithm,
    /// What it is for.
    pub purpose: Purpose,
    /// SHA-256 of its DER, hex in lower case.
    pub fingerprint: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// How long it was to be valid, counted from its issue. What a rotation asks for again.
    pub validity_seconds: u64,
    /// How long before its end it is due for renewal, seconds. `None`: the last third of its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_before_seconds: Option<u64>,
    /// The [`id`](Authority::id) of the authority that signed it.
    pub authority: String,
    /// Who asked for it.
    pub issued_by: String,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// Set once, and for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revocation>,
    /// The serial number of the one that took its place. It stays valid all the same, until its end or its revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// That a certificate is no longer to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// By whom.
    pub by: String,
}

/// Why a certificate was revoked: RFC 5280's reasons, as far as they are a leaf's and final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// None was given. The default.
    #[default]
    Unspecified,
    /// Its key is known to others, or may be.
    KeyCompromise,
    /// Its holder is called otherwise now.
    AffiliationChanged,
    /// Another took its place.
    Superseded,
    /// Its holder is gone.
    CessationOfOperation,
    /// Its holder may no longer do what it allows.
    PrivilegeWithdrawn,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// As it is written: `key-compromise`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::AffiliationChanged => "affiliation-changed",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    /// CRLReason (RFC 5280, 5.3.1).
    pub(super) fn code(self) -> rcgen::RevocationReason {
        match self {
            Self::Unspecified => rcgen::RevocationReason::Unspecified,
            Self::KeyCompromise => rcgen::RevocationReason::KeyCompromise,
            Self::AffiliationChanged => rcgen::RevocationReason::AffiliationChanged,
            Self::Superseded => rcgen::RevocationReason::Superseded,
            Self::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
            Self::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = RevokeError;

    fn from_str(text: &str) -> Result<Self, RevokeError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| RevokeError::Reason {
                given: text.chars().take(40).collect(),
            })
    }
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// In use.
    Valid,
    /// In use, and within its renewal window.
    Expiring,
    /// Past its end.
    Expired,
    /// No longer to be trusted.
    Revoked,
    /// Another took its place; it is valid until its end.
    Replaced,
}

/// Why a certificate isn't rotated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// It isn't near its end. Rotating it all the same needs to be said.
    #[error("certificate '{name}' is due for rotation at {due_at}, and valid until {not_after}")]
    NotDue {
        /// Which.
        name: Name,
        /// When its renewal window begins.
        due_at: Timestamp,
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// Another took its place already.
    #[error("certificate '{name}' with serial number {serial} was replaced by {by}")]
    Replaced {
        /// Which.
        name: Name,
        /// Its serial number.
        serial: String,
        /// The serial number of the one that took its place.
        by: String,
    },
}

/// Why a certificate isn't revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// It was revoked before; nothing is changed.
    #[error("certificate '{name}' with serial number {serial} was revoked at {at} ({reason})")]
    Already {
        /// Which.
        name: Name,
        /// Its serial number.
        serial: String,
        /// When.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// There is no such reason.
    #[error(
        "'{given}' is no reason to revoke (unspecified, key-compromise, affiliation-changed, superseded, \
         cessation-of-operation, privilege-withdrawn)"
    )]
    Reason {
        /// What was given.
        given: String,
    },
}

impl Certificate {
    /// The record of a certificate that `authority` has just issued, on `by`'s request.
    #[must_use]
    pub fn new(authority: &Authority, request: &Request, leaf: &Leaf, by: &str, now: Timestamp) -> Self {
        let (Validity::Exactly(validity) | Validity::AtMost(validity)) = request.validity;
        Self {
            name: request.subject.name().clone(),
            kind: match request.subject {
                Subject::Service { .. } => Kind::Service,
                Subject::Node(_) => Kind::Node,
            },
            serial: leaf.serial.clone(),
            sans: request.subject.sans(),
            algorithm: leaf.algorithm,
            purpose: request.subject.purpose(),
            fingerprint: leaf.fingerprint.clone(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            validity_seconds: validity.as_secs(),
            renew_before_seconds: None,
            authority: authority.id(),
            issued_by: by.to_owned(),
            issued_at: now,
            revoked: None,
            replaced_by: None,
        }
    }

    /// How it stands. What makes it useless goes first: a revoked one that has expired is revoked.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        if self.revoked.is_some() {
            Status::Revoked
        } else if now > self.not_after {
            Status::Expired
        } else if self.replaced_by.is_some() {
            Status::Replaced
        } else if now >= self.due_at() {
            Status::Expiring
        } else {
            Status::Valid
        }
    }

    /// When its renewal window begins.
    #[must_use]
    pub fn due_at(&self) -> Timestamp {
        let before = self.renew_before_seconds.map(Duration::from_secs);
        renewal_window_start(self.not_before, self.not_after, before)
    }

    /// Whether the product is to renew it by itself now: it is in use, and its time has come. `jitter` (0–1) is this
    /// certificate's place among many: see [`renewal_at`].
    #[must_use]
    pub fn renewal_due(&self, now: Timestamp, jitter: f64) -> bool {
        let at = match self.renew_before_seconds {
            Some(_) => self.due_at(),
            None => renewal_at(self.not_before, self.not_after, jitter),
        };
        self.revoked.is_none() && self.replaced_by.is_none() && now >= at
    }

    /// What to ask for to get its successor: the same names for the same time, or as long as the authority lasts.
    #[must_use]
    pub fn renewal(&self) -> Request {
        Request {
            subject: match self.kind {
                Kind::Node => Subject::Node(self.name.clone()),
                Kind::Service => Subject::Service {
                    name: self.name.clone(),
                    sans: self.sans.clone(),
                    purpose: self.purpose,
                },
            },
            validity: Validity::AtMost(Duration::from_secs(self.validity_seconds)),
        }
    }

    /// Whether a person may rotate it now. One that is revoked or expired may be, for its name lives on; one that isn't
    /// near its end, with `force` only.
    ///
    /// # Errors
    /// [`RotateError`].
    pub fn may_rotate(&self, force: bool, now: Timestamp) -> Result<(), RotateError> {
        if let Some(by) = &self.replaced_by {
            return Err(RotateError::Replaced {
                name: self.name.clone(),
                serial: self.serial.clone(),
                by: by.clone(),
            });
        }
        if self.status(now) == Status::Valid && !force {
            return Err(RotateError::NotDue {
                name: self.name.clone(),
                due_at: self.due_at(),
                not_after: self.not_after,
            });
        }
        Ok(())
    }

    /// The record of this one once `successor` has taken its place. It stays valid through the transition, unless
    /// `revoke_by` names who wants it revoked at once.
    #[must_use]
    pub fn replaced(mut self, successor: &str, revoke_by: Option<&str>, now: Timestamp) -> Self {
        self.replaced_by = Some(successor.to_owned());
        if let (Some(by), None) = (revoke_by, &self.revoked) {
            self.revoked = Some(Revocation {
                at: now,
                reason: Reason::Superseded,
                by: by.to_owned(),
            });
        }
        self
    }

    /// The record of this one once it is revoked. An expired one may be: it is of no use then, but it is said.
    ///
    /// # Errors
    /// [`RevokeError::Already`].
    pub fn revoke(mut self, reason: Reason, by: &str, now: Timestamp) -> Result<Self, RevokeError> {
        if let Some(before) = &self.revoked {
            return Err(RevokeError::Already {
                name: self.name.clone(),
                serial: self.serial.clone(),
                at: before.at,
                reason: before.reason,
            });
        }
        self.revoked = Some(Revocation {
            at: now,
            reason,
            by: by.to_owned(),
        });
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().unwrap()
    }

    fn record() -> Certificate {
        let root = Authority::new_root("test root", Algorithm::EcdsaP256, 400 * DAY, now()).unwrap();
        let request = Request {
            subject: Subject::Service {
                name: "api".parse().unwrap(),
                sans: vec!["api.example.com".parse().unwrap(), "10.0.0.7".parse().unwrap()],
                purpose: Purpose::Server,
            },
            validity: Validity::Exactly(90 * DAY),
        };
        let issued = root.issue(&request, Algorithm::EcdsaP256, now()).unwrap();
        let record = Certificate::new(&root, &request, &issued.leaf, "ann", now());
        assert_eq!(record.renewal().subject, request.subject);
        assert_eq!(record.renewal().validity, Validity::AtMost(90 * DAY));
        record
    }

    #[test]
    fn a_record_comes_back_from_json() {
        let record = record().revoke(Reason::KeyCompromise, "ann", now()).unwrap();
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(json["sans"], serde_json::json!(["api.example.com", "10.0.0.7"]));
        assert_eq!(json["algorithm"], "ecdsa-p256");
        assert_eq!(json["purpose"], "server");
        assert_eq!(json["validitySeconds"], 90 * 86_400);
        assert_eq!(json["revoked"]["reason"], "key-compromise");
        assert_eq!(json["notAfter"], "2027-02-20T10:00:00Z");
        assert_eq!(json.get("replacedBy"), None);
        assert_eq!(serde_json::from_value::<Certificate>(json).unwrap(), record);
    }

    #[test]
    fn a_life_goes_by() {
        let record = record();
        assert_eq!(record.status(now()), Status::Valid);
        assert_eq!(record.status(now() + 59 * DAY), Status::Valid);
        assert_eq!(record.status(now() + 61 * DAY), Status::Expiring);
        assert_eq!(record.status(record.not_after), Status::Expiring);
        assert_eq!(record.status(now() + 91 * DAY), Status::Expired);
        assert!(!record.renewal_due(now() + 59 * DAY, 0.0));
        assert!(record.renewal_due(now() + 61 * DAY, 0.0));
        assert!(!record.renewal_due(now() + 61 * DAY, 1.0));
        assert!(record.renewal_due(now() + 76 * DAY, 1.0));

        let soon = Certificate {
            renew_before_seconds: Some(86_400),
            ..record.clone()
        };
        assert_eq!(soon.status(now() + 88 * DAY), Status::Valid);
        assert_eq!(soon.status(now() + 89 * DAY), Status::Expiring);
        assert!(soon.renewal_due(now() + 89 * DAY, 1.0));

        let replaced = record.clone().replaced("7f", None, now());
        assert_eq!(replaced.status(now()), Status::Replaced);
        assert!(!replaced.renewal_due(now() + 80 * DAY, 0.0));
        assert_eq!(replaced.status(now() + 91 * DAY), Status::Expired);
        let revoked = record.revoke(Reason::Unspecified, "ann", now()).unwrap();
        assert_eq!(revoked.status(now() + 91 * DAY), Status::Revoked);
        assert!(!revoked.renewal_due(now() + 80 * DAY, 0.0));
    }

    #[test]
    fn rotation_waits_unless_forced() {
        let record = record();
        let refused = record.may_rotate(false, now()).unwrap_err();
        let RotateError::NotDue { due_at, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!(due_at, record.due_at());
        assert_eq!(record.may_rotate(false, due_at), Ok(()));
        assert_eq!(record.may_rotate(true, now()), Ok(()));
        assert_eq!(record.may_rotate(false, now() + 91 * DAY), Ok(()));

        let old = record.clone().replaced("7f", None, now());
        assert_eq!((old.revoked.as_ref(), old.replaced_by.as_deref()), (None, Some("7f")));
        let refused = old.may_rotate(true, now()).unwrap_err();
        assert!(matches!(refused, RotateError::Replaced { by, .. } if by == "7f"));

        let old = record.clone().replaced("7f", Some("ann"), now());
        assert_eq!(
            old.revoked.map(|revocation| revocation.reason),
            Some(Reason::Superseded)
        );
        let compromised = record.revoke(Reason::KeyCompromise, "ann", now()).unwrap();
        assert_eq!(compromised.may_rotate(false, now()), Ok(()));
        let old = compromised.replaced("7f", Some("bob"), now());
        assert_eq!(old.revoked.map(|revocation| revocation.by), Some("ann".to_owned()));
    }

    #[test]
    fn revocation_is_for_good() {
        let revoked = record().revoke(Reason::KeyCompromise, "ann", now()).unwrap();
        let refused = revoked.revoke(Reason::Superseded, "bob", now() + DAY).unwrap_err();
        assert!(matches!(
            refused,
            RevokeError::Already {
                reason: Reason::KeyCompromise,
                ..
            }
        ));
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
        "hold".parse::<Reason>().unwrap_err();
    }
}
