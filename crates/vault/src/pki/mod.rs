//! The certificate authority: issues, renews and revokes certificates, and says which are revoked.
//!
//! ```text
//!  Authority ── issue ─▶ Issued (certificate + key)        services: the authority makes the key
//!     │  ▲ ── sign ────▶ Leaf   (certificate)              nodes: the key never leaves its machine, a Csr does
//!     │  └ new_root, new_intermediate, import, load
//!     ├─ crl, answer ─▶ what was revoked                       Certificate: the record of one; rotation, revocation
//!     └─ verify ─▶ does a chain hold, for this role, now?      Peer: who is at the other end
//! ```
//!
//! Nothing here keeps anything: what is issued goes out as PEM and plain data, and comes back in with the next call.
//! Times are arguments; only keys and serial numbers come from the system's random numbers. Certificates are made by
//! `rcgen`, read by `x509-parser`, verified by `rustls-webpki`, and every signature is aws-lc's.

mod authority;
mod crl;
mod csr;
mod der;
mod endpoints;
mod error;
mod facts;
mod issue;
mod key;
mod name;
mod ocsp;
mod peer;
mod pem;
mod record;
mod renew;
mod time;
mod verify;

pub use authority::Authority;
pub use crl::Crl;
pub use csr::Csr;
pub use endpoints::Endpoints;
pub use error::Error;
pub use facts::fingerprint;
pub use issue::{Issued, Leaf, Purpose, Request, Subject, Validity};
pub use key::{Algorithm, PrivateKey};
pub use name::{DnsName, Name, San};
pub use ocsp::{OcspStatus, answer};
pub use peer::Peer;
pub use pem::{certificates, encode_certificates};
pub use record::{Certificate, Kind, Reason, Revocation, RevokeError, RotateError, Status};
pub use renew::{renewal_at, renewal_window_start};
pub use verify::{Role, VerifyError, verify};
