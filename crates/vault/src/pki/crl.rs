//! The list of revoked certificates (RFC 5280, section 5).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use rcgen::{CertificateRevocationListParams, RevokedCertParams, SerialNumber};

use super::{
    authority::{Authority, failed, key_id_method},
    der::{Signed, with_issuer},
    error::Error,
    issue::BACKDATED,
    pem,
    record::Certificate,
    time::{earlier, later, since_epoch, whole_second},
};

/// A signed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crl {
    /// As it is served (`application/pkix-crl`).
    pub der: Vec<u8>,
    /// For people and their tools.
    pub pem: String,
    /// From when it is valid: some minutes before it was made, for clients whose clocks are behind.
    pub this_update: Timestamp,
    /// When the next one is out at the latest. Clients that look at it refuse everything once it has passed.
    pub next_update: Timestamp,
}

impl Authority {
    /// The list of those among `records` that this authority signed and that are revoked.
    ///
    /// One that has expired stays on it for another `valid_for`, so that it is on a list made after its end, as
    /// RFC 5280 wants. `number` must grow from list to list.
    ///
    /// # Errors
    /// [`Error::ValidityZero`] if `valid_for` is less than a second, [`Error::Crypto`].
    pub fn crl<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Certificate>,
        number: u64,
        now: Timestamp,
        valid_for: Duration,
    ) -> Result<Crl, Error> {
        if valid_for.as_secs() == 0 {
            return Err(Error::ValidityZero);
        }
        let id = self.id();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        // By serial number, so that the same records make the same list.
        let revoked: BTreeMap<_, _> = records
            .into_iter()
            .filter(|record| record.authority == id && later(record.not_after, valid_for) >= now)
            .filter_map(|record| Some((record.serial.as_str(), record.revoked.as_ref()?)))
            .map(|(serial, revocation)| {
                let entry = RevokedCertParams {
                    serial_number: SerialNumber::from(bytes(serial)?),
                    revocation_time: epoch + since_epoch(revocation.at),
                    reason_code: Some(revocation.reason.code()),
                    invalidity_date: None,
                };
                Ok((serial, entry))
            })
            .collect::<Result<_, Error>>()?;
        let (this_update, next_update) = (
            whole_second(earlier(now, BACKDATED)),
            whole_second(later(now, valid_for)),
        );
        let params = CertificateRevocationListParams {
            this_update: epoch + since_epoch(this_update),
            next_update: epoch + since_epoch(next_update),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_values().collect(),
            key_identifier_method: key_id_method(self.own()),
        };
        let list = params.signed_by(&self.issuer).map_err(failed)?;
        let der = with_issuer(
            list.der().to_vec(),
            Signed::List,
            &self.own().subject,
            self.issuer.key(),
        )?;
        Ok(Crl {
            pem: pem::encode("X509 CRL", &der),
            der,
            this_update,
            next_update,
        })
    }
}

/// A serial number's bytes from its record.
fn bytes(serial: &str) -> Result<Vec<u8>, Error> {
    let digits = if serial.len().is_multiple_of(2) {
        serial.to_owned()
    } else {
        format!("0{serial}")
    };
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            std::str::from_utf8(pair)
                .ok()
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(|| Error::Malformed {
            what: "serial number of a record",
            detail: "it isn't hexadecimal".to_owned(),
        })
}
