//! Who is at the other end of a connection.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::{
    error::{CERTIFICATE, Error},
    facts::{Facts, fingerprint},
    name::Name,
};

/// How a node's certificate names it, followed by the node's name. A certificate of a service can't hold it: its
/// names are DNS names and addresses.
const NODE_URI: &str = "clawbernetes://node/";

pub(super) fn node_uri(name: &Name) -> String {
    format!("{NODE_URI}{name}")
}

/// What a verified certificate says of its holder. Reading one verifies nothing: that is TLS's matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node, if it is a node's certificate.
    pub node: Option<Name>,
    /// What the certificate is called, if it says so.
    pub name: Option<String>,
    /// Hex, lower case, no leading zeros: what revocations are kept by.
    pub serial: String,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of its DER, hex in lower case.
    pub fingerprint: String,
}

impl Peer {
    /// Reads a certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it can't be read, names two nodes, or names one in a way that none is called;
    /// [`Error::Name`] if the node's name is none.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let facts = Facts::read(certificate)?;
        let malformed = |detail: &str| Error::Malformed {
            what: CERTIFICATE,
            detail: detail.to_owned(),
        };
        let mut node = None;
        for uri in facts.uris.iter().filter(|uri| uri.starts_with("clawbernetes:")) {
            let name = uri
                .strip_prefix(NODE_URI)
                .ok_or_else(|| malformed("it names something that isn't a node"))?;
            if node.replace(name.parse::<Name>()?).is_some() {
                return Err(malformed("it names two nodes"));
            }
        }
        Ok(Self {
            node,
            name: facts.common_name,
            serial: facts.serial,
            not_before: facts.not_before,
            not_after: facts.not_after,
            fingerprint: fingerprint(certificate),
        })
    }
}
