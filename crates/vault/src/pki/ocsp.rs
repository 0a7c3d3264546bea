//! Answers to the question whether a certificate was revoked (OCSP, RFC 6960).
//!
//! The authority signs by its own key. An answer is always made, if only to say why there is none.

use std::time::Duration;

use aws_lc_rs::digest::{self, digest};
use jiff::{Timestamp, tz::TimeZone};
use rcgen::PublicKeyData;
use x509_parser::der_parser::asn1_rs::{Oid, Tag};
use yasna::{DERWriter, models::ObjectIdentifier};

use super::{
    authority::Authority,
    der::{Element, Elements, sign},
    facts::serial_hex,
    issue::BACKDATED,
    record::{Certificate, Reason},
    time::{earlier, later},
};

/// Larger than any question in use (a nonce and one certificate are about 120 bytes).
const REQUEST_MAX_BYTES: usize = 64 << 10;
/// Most certificates asked for at once.
const QUESTIONS_MAX: usize = 100;
/// The longest nonce (RFC 9654).
const NONCE_MAX_BYTES: usize = 128;

/// id-pkix-ocsp-basic.
const BASIC_RESPONSE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 1];
/// id-pkix-ocsp-nonce.
const NONCE: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 2];

/// How a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OcspStatus {
    /// It was issued, and not revoked.
    Good,
    /// It was revoked.
    Revoked {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Reason,
    },
    /// It was never issued here.
    Unknown,
}

impl From<&Certificate> for OcspStatus {
    fn from(record: &Certificate) -> Self {
        match &record.revoked {
            None => Self::Good,
            Some(revocation) => Self::Revoked {
                at: revocation.at,
                reason: revocation.reason,
            },
        }
    }
}

/// Why there is no answer (OCSPResponseStatus).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Malformed = 1,
    Internal = 2,
    Unauthorized = 6,
}

/// Answers a question (DER, as it was posted, or decoded from the address) by the first of `authorities` that it
/// concerns. The answer is DER too (`application/ocsp-response`).
///
/// `status` tells how the certificate with a serial number (hex, lower case) of that authority stands. The answer may
/// be kept and served again until `now` + `valid_for`. A question that can't be read, or concerns none of
/// `authorities`, is answered by saying so, unsigned, as RFC 6960 has it.
#[must_use]
pub fn answer(
    authorities: &[&Authority],
    request: &[u8],
    now: Timestamp,
    valid_for: Duration,
    status: &dyn Fn(&Authority, &str) -> OcspStatus,
) -> Vec<u8> {
    match try_answer(authorities, request, now, valid_for, status) {
        Ok(basic) => response(0, Some(&basic)),
        Err(refusal) => response(refusal as i64, None),
    }
}

fn try_answer(
    authorities: &[&Authority],
    request: &[u8],
    now: Timestamp,
    valid_for: Duration,
    status: &dyn Fn(&Authority, &str) -> OcspStatus,
) -> Result<Vec<u8>, Refusal> {
    let question = Question::read(request).ok_or(Refusal::Malformed)?;
    let authority = authorities
        .iter()
        .find(|authority| question.certificates.iter().any(|asked| asked.concerns(authority)))
        .ok_or(Refusal::Unauthorized)?;
    let answers: Vec<_> = question
        .certificates
        .iter()
        .map(|asked| {
            let known = asked.concerns(authority);
            (
                asked,
                if known {
                    status(authority, &asked.serial)
                } else {
                    OcspStatus::Unknown
                },
            )
        })
        .collect();
    let data = response_data(authority, &answers, question.nonce, now, valid_for);
    // With the authority's own certificate, for clients that hold nothing but the leaf's chain.
    sign(&data, authority.issuer.key(), Some(authority.certificate())).map_err(|_| Refusal::Internal)
}

/// What is asked.
struct Question<'a> {
    certificates: Vec<Asked<'a>>,
    /// The content of the nonce extension, to be sent back as it came.
    nonce: Option<&'a [u8]>,
}

/// One certificate (CertID).
struct Asked<'a> {
    /// As it came: the answer repeats it.
    whole: &'a [u8],
    hash: &'static digest::Algorithm,
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: String,
}

impl<'a> Question<'a> {
    /// `None` if it can't be read. A signature on it is passed over: anyone may ask.
    fn read(der: &'a [u8]) -> Option<Self> {
        if der.len() > REQUEST_MAX_BYTES {
            return None;
        }
        let mut outer = Elements(der);
        let mut request = outer.sequence()?;
        let mut content = request.sequence()?;
        request.context(0)?;
        if !outer.is_empty() || !request.is_empty() {
            return None;
        }
        // Version 1 is the only one, and its encoding may be left out.
        if let Some(version) = content.context(0)?
            && version.content != [2, 1, 0]
        {
            return None;
        }
        content.context(1)?;
        let mut list = content.sequence()?;
        let extensions = content.context(2)?;
        if !content.is_empty() {
            return None;
        }
        let mut certificates = Vec::new();
        while !list.is_empty() {
            let mut one = list.sequence()?;
            let id = one.universal(Tag::Sequence)?;
            one.context(0)?;
            if !one.is_empty() || certificates.len() == QUESTIONS_MAX {
                return None;
            }
            certificates.push(Asked::read(id)?);
        }
        if certificates.is_empty() {
            return None;
        }
        let nonce = match extensions {
            Some(extensions) => nonce(extensions)?,
            None => None,
        };
        Some(Self { certificates, nonce })
    }
}

/// The nonce among extensions, if there is one.
fn nonce(extensions: Element<'_>) -> Option<Option<&[u8]>> {
    let mut wrapper = Elements(extensions.content);
    let mut list = wrapper.sequence()?;
    if !wrapper.is_empty() {
        return None;
    }
    let mut found = None;
    while !list.is_empty() {
        let mut extension = list.sequence()?;
        let oid = extension.universal(Tag::Oid)?;
        if !extension.is_empty() && extension.0.first() == Some(&1) {
            // critical
            extension.universal(Tag::Boolean)?;
        }
        let value = extension.universal(Tag::OctetString)?;
        if !extension.is_empty() {
            return None;
        }
        if oid_is(oid.content, NONCE) {
            let mut inner = Elements(value.content);
            let nonce = inner.universal(Tag::OctetString)?;
            if !inner.is_empty() || nonce.content.is_empty() || nonce.content.len() > NONCE_MAX_BYTES {
                return None;
            }
            if found.replace(value.content).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

impl<'a> Asked<'a> {
    fn read(id: Element<'a>) -> Option<Self> {
        let mut content = Elements(id.content);
        let mut algorithm = content.sequence()?;
        let oid = algorithm.universal(Tag::Oid)?;
        let hash = [
            // OCSP clients hash by SHA-1 as a rule; it protects nothing here, but tells issuers apart.
            (&digest::SHA1_FOR_LEGACY_USE_ONLY, &[1, 3, 14, 3, 2, 26][..]),
            (&digest::SHA256, &[2, 16, 840, 1, 101, 3, 4, 2, 1]),
            (&digest::SHA384, &[2, 16, 840, 1, 101, 3, 4, 2, 2]),
            (&digest::SHA512, &[2, 16, 840, 1, 101, 3, 4, 2, 3]),
        ]
        .into_iter()
        .find(|(_, known)| oid_is(oid.content, known))?
        .0;
        let name_hash = content.universal(Tag::OctetString)?.content;
        let key_hash = content.universal(Tag::OctetString)?.content;
        let serial = content.universal(Tag::Integer)?.content;
        if !content.is_empty() || serial.is_empty() {
            return None;
        }
        Some(Self {
            whole: id.whole,
            hash,
            name_hash,
            key_hash,
            serial: serial_hex(serial),
        })
    }

    fn concerns(&self, authority: &Authority) -> bool {
        digest(self.hash, &authority.own().subject).as_ref() == self.name_hash
            && digest(self.hash, authority.issuer.key().der_bytes()).as_ref() == self.key_hash
    }
}

/// Whether the content of an object identifier is this one.
fn oid_is(content: &[u8], known: &[u64]) -> bool {
    Oid::from(known).is_ok_and(|known| known.as_bytes() == content)
}

/// ResponseData.
fn response_data(
    authority: &Authority,
    answers: &[(&Asked<'_>, OcspStatus)],
    nonce: Option<&[u8]>,
    now: Timestamp,
    valid_for: Duration,
) -> Vec<u8> {
    // RFC 6960 names SHA-1 for this identifier.
    let responder = digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, authority.issuer.key().der_bytes());
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            // byKey
            writer
                .next()
                .write_tagged(yasna::Tag::context(2), |writer| writer.write_bytes(responder.as_ref()));
            write_time(writer.next(), now);
            writer.next().write_sequence(|writer| {
                for (asked, status) in answers {
                    writer.next().write_sequence(|writer| {
                        writer.next().write_der(asked.whole);
                        write_status(writer.next(), status);
                        write_time(writer.next(), earlier(now, BACKDATED));
                        // nextUpdate
                        writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                            write_time(writer, later(now, valid_for));
                        });
                    });
                }
            });
            if let Some(nonce) = nonce {
                // responseExtensions
                writer.next().write_tagged(yasna::Tag::context(1), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_sequence(|writer| {
                            writer.next().write_oid(&ObjectIdentifier::from_slice(NONCE));
                            writer.next().write_bytes(nonce);
                        });
                    });
                });
            }
        });
    })
}

/// CertStatus.
fn write_status(writer: DERWriter<'_>, status: &OcspStatus) {
    match status {
        OcspStatus::Good => writer.write_tagged_implicit(yasna::Tag::context(0), |writer| writer.write_null()),
        OcspStatus::Unknown => writer.write_tagged_implicit(yasna::Tag::context(2), |writer| writer.write_null()),
        OcspStatus::Revoked { at, reason } => writer.write_tagged_implicit(yasna::Tag::context(1), |writer| {
            writer.write_sequence(|writer| {
                write_time(writer.next(), *at);
                // As in lists: no reason rather than "unspecified".
                if *reason != Reason::Unspecified {
                    writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                        writer.write_enum(reason.code() as i64);
                    });
                }
            });
        }),
    }
}

/// GeneralizedTime, to the second.
fn write_time(writer: DERWriter<'_>, time: Timestamp) {
    let text = time.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%SZ").to_string();
    writer.write_tagged_implicit(yasna::tags::TAG_GENERALIZEDTIME, |writer| {
        writer.write_bytes(text.as_bytes())
    });
}

/// OCSPResponse.
fn response(status: i64, basic: Option<&[u8]>) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_enum(status);
            if let Some(basic) = basic {
                writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                    writer.write_sequence(|writer| {
                        writer.next().write_oid(&ObjectIdentifier::from_slice(BASIC_RESPONSE));
                        writer.next().write_bytes(basic);
                    });
                });
            }
        });
    })
}
