//! Between the product's times and those of certificates, which count whole seconds.

use std::time::Duration;

use jiff::Timestamp;
use x509_parser::time::ASN1Time;

/// Seconds since 1970; before that, none. (Nothing is issued before 1970.)
pub(super) fn since_epoch(time: Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0))
}

/// Cuts off what a certificate can't express.
pub(super) fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// `time` later by `by`, at most the last representable time.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `time` earlier by `by`, at least the first representable time.
pub(super) fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// A certificate's time. Years past 9999 are the last representable time.
pub(super) fn from_asn1(time: ASN1Time) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::MAX)
}
