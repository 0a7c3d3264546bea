//! Where revocations can be asked for, as certificates tell it.

use rcgen::{CertificateParams, CrlDistributionPoint, CustomExtension};

use super::error::Error;

/// id-pe-authorityInfoAccess (RFC 5280).
const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
/// id-ad-ocsp (RFC 5280).
const ACCESS_OCSP: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1];

/// Where revocations can be asked for. It is written into each certificate that is issued from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    crl: String,
    ocsp: String,
}

impl Endpoints {
    /// The addresses of the list of revoked certificates (DER) and of the OCSP responder. Plain `http` is the rule
    /// (RFC 5280 and 6960): both are signed, and with `https` the check would need the check.
    ///
    /// # Errors
    /// [`Error::Endpoint`] unless they are `http://` or `https://` with a host, in printable ASCII.
    pub fn new(crl: &str, ocsp: &str) -> Result<Self, Error> {
        for given in [crl, ocsp] {
            let host = given.strip_prefix("http://").or_else(|| given.strip_prefix("https://"));
            let rule = match host {
                None => "it begins with http:// or https://",
                Some(rest) if rest.is_empty() || rest.starts_with('/') => "it names a host",
                Some(_) if given.len() > 1000 => "it has at most 1000 characters",
                Some(_) if !given.bytes().all(|byte| byte.is_ascii_graphic()) => "it has printable ASCII only",
                Some(_) => continue,
            };
            return Err(Error::Endpoint {
                given: given.chars().take(80).collect(),
                rule,
            });
        }
        Ok(Self {
            crl: crl.to_owned(),
            ocsp: ocsp.to_owned(),
        })
    }

    /// The address of the list of revoked certificates.
    #[must_use]
    pub fn crl(&self) -> &str {
        &self.crl
    }

    /// The address of the OCSP responder.
    #[must_use]
    pub fn ocsp(&self) -> &str {
        &self.ocsp
    }

    /// Writes them into a certificate.
    pub(super) fn add_to(&self, params: &mut CertificateParams) {
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![self.crl.clone()],
        }];
        params.custom_extensions.push(ocsp_extension(&self.ocsp));
    }
}

/// Where OCSP answers are given.
fn ocsp_extension(ocsp: &str) -> CustomExtension {
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_sequence(|writer| {
                writer
                    .next()
                    .write_oid(&yasna::models::ObjectIdentifier::from_slice(ACCESS_OCSP));
                // uniformResourceIdentifier
                writer
                    .next()
                    .write_tagged_implicit(yasna::Tag::context(6), |writer| writer.write_ia5_string(ocsp));
            });
        });
    });
    CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses() {
        Endpoints::new("http://gateway:9000/crl", "http://gateway:9000/ocsp").unwrap();
        for bad in [
            "",
            "gateway/crl",
            "ftp://gateway",
            "http://",
            "http:///crl",
            "http://a b",
            "http://ä",
        ] {
            Endpoints::new("http://gateway", bad).unwrap_err();
            Endpoints::new(bad, "http://gateway").unwrap_err();
        }
    }
}
