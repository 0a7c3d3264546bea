//! The file's tables and how a record is laid out in them.
//!
//! A record's bytes: one byte of flags, then `created`, `modified` and `version` as little-endian
//! 64-bit numbers, the lease (only with [`LEASED`]), and the value up to the end.

use bytes::Bytes;
use redb::TableDefinition;

use crate::{Key, LeaseId, Record, Revision, StoreError};

/// The newest file format that this program reads, and the one it writes.
pub(crate) const FORMAT: u64 = 1;

/// Key to record.
pub(crate) const RECORDS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("records");
/// Lease to time to live in milliseconds.
pub(crate) const LEASES: TableDefinition<'static, u64, u64> = TableDefinition::new("leases");
/// Which keys hang on a lease.
pub(crate) const LEASE_KEYS: TableDefinition<'static, (u64, &[u8]), ()> = TableDefinition::new("lease-keys");
/// Single numbers, below.
pub(crate) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");

/// In [`META`]: the file's format.
pub(crate) const META_FORMAT: &str = "format";
/// In [`META`]: the newest revision.
pub(crate) const META_HEAD: &str = "head";
/// In [`META`]: the newest lease.
pub(crate) const META_LEASE: &str = "lease";
/// In [`META`]: counts checks that the disk takes writes again.
pub(crate) const META_PROBE: &str = "probe";

/// Flag: a lease follows the header.
const LEASED: u8 = 1;
const HEADER: usize = 25;

/// Everything about a record but its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseId>,
}

impl Header {
    /// Replaces `out` by the stored form of a record.
    pub(crate) fn encode(&self, value: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.reserve(HEADER + 8 + value.len());
        out.push(if self.lease.is_some() { LEASED } else { 0 });
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&self.modified.0.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        if let Some(lease) = self.lease {
            out.extend_from_slice(&lease.0.to_le_bytes());
        }
        out.extend_from_slice(value);
    }

    /// Splits a stored record into header and value.
    pub(crate) fn decode(stored: &[u8]) -> Result<(Header, &[u8]), StoreError> {
        let damaged = || StoreError::Corrupt {
            detail: format!("a record of {} bytes has no valid header", stored.len()),
        };
        let (&flags, mut rest) = stored.split_first().ok_or_else(damaged)?;
        if flags & !LEASED != 0 {
            return Err(damaged());
        }
        let mut number = || {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            rest = tail;
            Some(u64::from_le_bytes(*head))
        };
        let created = Revision(number().ok_or_else(damaged)?);
        let modified = Revision(number().ok_or_else(damaged)?);
        let version = number().ok_or_else(damaged)?;
        let lease = match flags & LEASED {
            0 => None,
            _ => Some(LeaseId(number().ok_or_else(damaged)?)),
        };
        let header = Header {
            created,
            modified,
            version,
            lease,
        };
        Ok((header, rest))
    }

    /// The record made of this header, with the given value.
    pub(crate) fn record(self, key: Key, value: Bytes) -> Record {
        Record {
            key,
            value,
            created: self.created,
            modified: self.modified,
            version: self.version,
            lease: self.lease,
        }
    }
}

/// A stored key as a [`Key`].
pub(crate) fn decode_key(stored: &[u8]) -> Result<Key, StoreError> {
    match std::str::from_utf8(stored) {
        Ok(text) => Ok(Key::from(text)),
        Err(_) => Err(StoreError::Corrupt {
            detail: format!("a key of {} bytes is not UTF-8", stored.len()),
        }),
    }
}

/// A stored key and value as a [`Record`].
pub(crate) fn decode_record(key: Key, stored: &[u8]) -> Result<Record, StoreError> {
    let (header, value) = Header::decode(stored)?;
    Ok(header.record(key, Bytes::copy_from_slice(value)))
}

/// What a failure of redb means to a caller.
pub(crate) fn redb_error(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Io(source) => StoreError::from_io(source),
        error @ (redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
            StoreError::from_io(std::io::Error::other(error.to_string()))
        }
        redb::Error::Corrupted(detail) => StoreError::Corrupt { detail },
        other => StoreError::Corrupt {
            detail: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let mut stored = Vec::new();
        for lease in [None, Some(LeaseId(7))] {
            for value in [&b""[..], b"v", &[0xff; 300]] {
                let header = Header {
                    created: Revision(3),
                    modified: Revision(u64::MAX),
                    version: 9,
                    lease,
                };
                header.encode(value, &mut stored);
                assert_eq!(Header::decode(&stored).unwrap(), (header, value));
            }
        }
    }

    #[test]
    fn damage_is_an_error_not_a_panic() {
        for stored in [&b""[..], &[0], &[0; 24], &[1; 32], &[2; 40]] {
            assert!(matches!(Header::decode(stored), Err(StoreError::Corrupt { .. })));
        }
        assert!(decode_key(&[0xff]).is_err());
    }
}
