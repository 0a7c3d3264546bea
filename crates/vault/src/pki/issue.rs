//! Issuing: what a certificate is asked for, and what comes out.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};

use super::{
    authority::{Authority, failed},
    csr,
    error::Error,
    facts::{fingerprint, hex},
    key::{Algorithm, PrivateKey},
    name::{Name, San},
    peer, pem,
    time::{earlier, later, since_epoch, whole_second},
};

/// How much earlier than now a certificate begins, so that clients whose clocks are behind accept it.
pub(super) const BACKDATED: Duration = Duration::from_secs(300);

/// Most names on one certificate: what clients read without complaint.
const SANS_MAX: usize = 100;

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To be called under its names. The default.
    #[default]
    Server,
    /// To call others.
    Client,
    /// Both.
    Both,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service.
    Service {
        /// What the certificate is called.
        name: Name,
        /// What it may be called by. A server has at least one.
        sans: Vec<San>,
        /// What it is for.
        purpose: Purpose,
    },
    /// A node of the fleet, of this name. Its certificate is for calling the gateway, and for nothing else.
    Node(Name),
}

impl Subject {
    /// What the certificate is called.
    #[must_use]
    pub fn name(&self) -> &Name {
        match self {
            Self::Service { name, .. } | Self::Node(name) => name,
        }
    }

    /// What the certificate is for.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Service { purpose, .. } => *purpose,
            Self::Node(_) => Purpose::Client,
        }
    }

    /// The names it proves, each once.
    #[must_use]
    pub fn sans(&self) -> Vec<San> {
        let mut unique = Vec::new();
        if let Self::Service { sans, .. } = self {
            for san in sans {
                if !unique.contains(san) {
                    unique.push(san.clone());
                }
            }
        }
        unique
    }
}

/// How long a certificate is to be valid, from now. At least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// This long, or not at all: what a person asked for.
    Exactly(Duration),
    /// This long, or until the authority ends if that is earlier: what the product renews by itself.
    AtMost(Duration),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub subject: Subject,
    /// For how long.
    pub validity: Validity,
}

/// A certificate that was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate.
    pub certificate_pem: String,
    /// The certificate and those between it and the root, without the root: what a server or a client presents.
    pub chain_pem: String,
    /// 128 bits, hex in lower case; random, and so never given twice.
    pub serial: String,
    /// Kind of its key.
    pub algorithm: Algorithm,
    /// From when it is valid: some minutes before it was issued.
    pub not_before: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// SHA-256 of its DER, hex in lower case.
    pub fingerprint: String,
}

/// A certificate that was issued together with its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub leaf: Leaf,
    /// Its key, which is kept nowhere else.
    pub key: PrivateKey,
}

impl Authority {
    /// Makes a key, and a certificate for it. The request is checked before the key is made.
    ///
    /// # Errors
    /// [`Error::NoSan`], [`Error::TooManySans`], [`Error::ValidityZero`], [`Error::ValidityPastIssuer`],
    /// [`Error::AuthorityNotValid`], [`Error::Crypto`].
    pub fn issue(&self, request: &Request, algorithm: Algorithm, now: Timestamp) -> Result<Issued, Error> {
        let checked = self.check(request, now)?;
        let key = PrivateKey::generate(algorithm)?;
        let leaf = self.certify(request, checked, &key.signer()?, algorithm)?;
        Ok(Issued { leaf, key })
    }

    /// Makes a certificate for a key that stays where it is, from a request (PKCS #10, PEM).
    ///
    /// Only the key is taken from it, and its signature is proof that the asker has the private part. Subject, names
    /// and uses that it asks for are passed over: those are `request`'s.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and [`Error::Pem`], [`Error::Malformed`], [`Error::KeyUnsupported`] or
    /// [`Error::RequestSignature`] if the request can't be accepted.
    pub fn sign(&self, request: &Request, csr: &str, now: Timestamp) -> Result<Leaf, Error> {
        let checked = self.check(request, now)?;
        let (key, algorithm) = csr::public_key(csr)?;
        self.certify(request, checked, &key, algorithm)
    }

    /// From when until when, if it can be issued at all.
    fn check(&self, request: &Request, now: Timestamp) -> Result<(Timestamp, Timestamp), Error> {
        let count = request.subject.sans().len();
        if count == 0 && matches!(request.subject.purpose(), Purpose::Server | Purpose::Both) {
            return Err(Error::NoSan);
        }
        if count > SANS_MAX {
            return Err(Error::TooManySans { count, limit: SANS_MAX });
        }
        self.valid_at(now)?;
        let (Validity::Exactly(validity) | Validity::AtMost(validity)) = request.validity;
        if validity.as_secs() == 0 {
            return Err(Error::ValidityZero);
        }
        let asked = whole_second(later(now, validity));
        let not_after = match request.validity {
            Validity::Exactly(_) if asked > self.not_after() => {
                return Err(Error::ValidityPastIssuer {
                    asked,
                    issuer_until: self.not_after(),
                });
            }
            Validity::Exactly(_) | Validity::AtMost(_) => asked.min(self.not_after()),
        };
        let not_before = whole_second(earlier(now, BACKDATED)).max(self.not_before());
        Ok((not_before, not_after))
    }

    fn certify(
        &self,
        request: &Request,
        (not_before, not_after): (Timestamp, Timestamp),
        key: &impl PublicKeyData,
        algorithm: Algorithm,
    ) -> Result<Leaf, Error> {
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
        params.serial_number = Some(serial.clone());
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, request.subject.name().as_str());
        params.subject_alt_names = alternative_names(&request.subject)?;
        // Said outright, and with it the identifier of its key.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = match algorithm {
            Algorithm::EcdsaP256 | Algorithm::EcdsaP384 => vec![KeyUsagePurpose::DigitalSignature],
            // TLS 1.2 clients without (EC)DHE encrypt to the key.
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => {
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
            }
        };
        params.extended_key_usages = match request.subject.purpose() {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        if let Some(endpoints) = &self.endpoints {
            endpoints.add_to(&mut params);
        }
        let certificate = self.certificate_for(&params, key)?;
        Ok(Leaf {
            certificate_pem: pem::encode_certificates([&certificate]),
            chain_pem: pem::encode_certificates(std::iter::once(&certificate).chain(self.intermediates())),
            serial: hex(&serial.to_bytes()),
            algorithm,
            not_before,
            not_after,
            fingerprint: fingerprint(&certificate),
        })
    }
}

fn alternative_names(subject: &Subject) -> Result<Vec<SanType>, Error> {
    let text = |name: String| name.try_into().map_err(failed);
    if let Subject::Node(name) = subject {
        return Ok(vec![SanType::URI(text(peer::node_uri(name))?)]);
    }
    subject
        .sans()
        .into_iter()
        .map(|san| {
            Ok(match san {
                San::Dns(name) => SanType::DnsName(text(name.as_str().to_owned())?),
                San::Ip(address) => SanType::IpAddress(address),
            })
        })
        .collect()
}

/// 126 random bits in 16 bytes: positive, and of one length (RFC 5280 allows 20 bytes, browsers ask for 64 bits).
pub(super) fn random_serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Crypto {
        what: "draw a serial number",
        detail: "no random numbers".to_owned(),
    })?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Csr, Endpoints, Peer, Role, VerifyError, certificates, verify};

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-11-22T10:00:00.5Z".parse().unwrap()
    }

    fn root() -> Authority {
        Authority::new_root("test root", Algorithm::EcdsaP256, 100 * DAY, now()).unwrap()
    }

    fn service(sans: &[&str], purpose: Purpose, validity: Duration) -> Request {
        Request {
            subject: Subject::Service {
                name: "api".parse().unwrap(),
                sans: sans.iter().map(|san| san.parse().unwrap()).collect(),
                purpose,
            },
            validity: Validity::Exactly(validity),
        }
    }

    fn accepts(authority: &Authority, leaf: &Leaf, role: &Role<'_>, at: Timestamp) -> Result<(), VerifyError> {
        let chain = certificates(&leaf.chain_pem).unwrap();
        verify(&chain[0], &chain[1..], authority.root(), role, at, &|serial| {
            serial == "none"
        })
    }

    #[test]
    fn a_server_is_accepted_under_its_names_only() {
        let root = root();
        let between = Authority::new_intermediate(&root, "between", Algorithm::EcdsaP256, 90 * DAY, now()).unwrap();
        let request = service(
            &["api.example.com", "*.gpu.example.com", "10.0.0.7", "2001:db8::7"],
            Purpose::Server,
            DAY,
        );
        for authority in [&root, &between] {
            for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa2048] {
                let issued = authority.issue(&request, algorithm, now()).unwrap();
                assert_eq!(issued.key.algorithm(), algorithm);
                for host in [
                    "api.example.com",
                    "API.example.com",
                    "a.gpu.example.com",
                    "10.0.0.7",
                    "2001:db8::7",
                ] {
                    assert_eq!(
                        accepts(authority, &issued.leaf, &Role::Server(host), now()),
                        Ok(()),
                        "{host}"
                    );
                }
                for host in [
                    "api",
                    "example.com",
                    "gpu.example.com",
                    "a.b.gpu.example.com",
                    "10.0.0.8",
                    "::1",
                    "?",
                ] {
                    let refused = accepts(authority, &issued.leaf, &Role::Server(host), now());
                    assert_eq!(refused, Err(VerifyError::Name(host.to_owned())));
                }
                assert_eq!(
                    accepts(authority, &issued.leaf, &Role::Client, now()),
                    Err(VerifyError::Purpose)
                );
            }
        }
    }

    #[test]
    fn times_are_as_asked_but_for_slow_clocks() {
        let root = root();
        let leaf = root
            .issue(&service(&["a.b"], Purpose::Both, DAY), Algorithm::EcdsaP256, now())
            .unwrap()
            .leaf;
        assert_eq!(leaf.not_before, "2026-11-22T09:55:00Z".parse().unwrap());
        assert_eq!(leaf.not_after, "2026-11-23T10:00:00Z".parse().unwrap());
        let peer = Peer::read(&certificates(&leaf.certificate_pem).unwrap()[0]).unwrap();
        assert_eq!((peer.not_before, peer.not_after), (leaf.not_before, leaf.not_after));
        assert_eq!((&peer.serial, &peer.fingerprint), (&leaf.serial, &leaf.fingerprint));
        assert_eq!((peer.name.as_deref(), peer.node), (Some("api"), None));
        assert_eq!(leaf.serial.len(), 32);
        for role in [Role::Client, Role::Server("a.b")] {
            assert_eq!(accepts(&root, &leaf, &role, leaf.not_before), Ok(()));
            assert_eq!(accepts(&root, &leaf, &role, leaf.not_after), Ok(()));
            let early = leaf.not_before - Duration::from_secs(1);
            assert_eq!(accepts(&root, &leaf, &role, early), Err(VerifyError::NotYetValid));
            let late = leaf.not_after + Duration::from_secs(1);
            assert_eq!(accepts(&root, &leaf, &role, late), Err(VerifyError::Expired));
        }
    }

    #[test]
    fn a_node_keeps_its_key_and_gets_its_name_from_us() {
        let root = root();
        let csr = Csr::new(Algorithm::EcdsaP256).unwrap();
        let request = Request {
            subject: Subject::Node("gpu-7".parse().unwrap()),
            validity: Validity::AtMost(1000 * DAY),
        };
        let leaf = root.sign(&request, &csr.request_pem, now()).unwrap();
        assert_eq!(leaf.not_after, root.not_after());
        assert_eq!(accepts(&root, &leaf, &Role::Client, now()), Ok(()));
        assert_eq!(
            accepts(&root, &leaf, &Role::Server("gpu-7"), now()),
            Err(VerifyError::Purpose)
        );
        let der = &certificates(&leaf.certificate_pem).unwrap()[0];
        let peer = Peer::read(der).unwrap();
        assert_eq!(peer.node, Some("gpu-7".parse().unwrap()));
        assert!(root.signed(der));
        assert!(!super::tests::root().signed(der));
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let root = root();
        let request = Request {
            subject: Subject::Node("gpu-7".parse().unwrap()),
            validity: Validity::AtMost(DAY),
        };
        let sign = |csr: &str| root.sign(&request, csr, now()).unwrap_err();
        let good = Csr::new(Algorithm::EcdsaP256).unwrap().request_pem;
        let mut der: rustls_pki_types::CertificateSigningRequestDer<'static> = pem::first(&good, "").unwrap();
        let mut bytes = der.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        der = bytes.into();
        let error = sign(&pem::encode("CERTIFICATE REQUEST", &der));
        assert_eq!((error.field(), error), (Some("csr"), Error::RequestSignature));
        for bad in [
            "",
            "x",
            &root.root_pem(),
            &good.replace("REQUEST", "NOTHING"),
            &good[..good.len() / 2],
        ] {
            assert_eq!(sign(bad).field(), Some("csr"), "{bad}");
        }
        let trailing = [&bytes_of(&good)[..], b"\0"].concat();
        assert_eq!(
            sign(&pem::encode("CERTIFICATE REQUEST", &trailing)).field(),
            Some("csr")
        );
    }

    fn bytes_of(csr: &str) -> Vec<u8> {
        let der: rustls_pki_types::CertificateSigningRequestDer<'static> = pem::first(csr, "").unwrap();
        der.to_vec()
    }

    #[test]
    fn impossible_requests_are_refused() {
        let root = root();
        let issue = |request: &Request, at| root.issue(request, Algorithm::EcdsaP256, at).unwrap_err();
        assert_eq!(issue(&service(&[], Purpose::Server, DAY), now()), Error::NoSan);
        assert_eq!(issue(&service(&[], Purpose::Both, DAY), now()), Error::NoSan);
        let many: Vec<String> = (0..101).map(|i| format!("h{i}.example.com")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(issue(&service(&many, Purpose::Server, DAY), now()).field(), Some("san"));
        assert_eq!(
            issue(&service(&["a.b"], Purpose::Server, Duration::ZERO), now()),
            Error::ValidityZero
        );
        assert_eq!(
            issue(&service(&["a.b"], Purpose::Server, Duration::from_millis(999)), now()),
            Error::ValidityZero
        );
        for long in [101 * DAY, Duration::MAX] {
            assert_eq!(
                issue(&service(&["a.b"], Purpose::Server, long), now()).field(),
                Some("validity")
            );
        }
        for at in [now() - DAY, now() + 101 * DAY] {
            let error = issue(&service(&["a.b"], Purpose::Server, DAY), at);
            assert!(matches!(error, Error::AuthorityNotValid { .. }), "{error}");
        }
    }

    #[test]
    fn a_name_given_twice_is_there_once() {
        let request = service(&["a.b", "A.b", "10.0.0.1", "10.0.0.1"], Purpose::Server, DAY);
        assert_eq!(request.subject.sans().len(), 2);
    }

    #[test]
    fn a_revoked_certificate_and_what_a_revoked_authority_issued_are_refused() {
        let root = root();
        let between = Authority::new_intermediate(&root, "between", Algorithm::EcdsaP256, 90 * DAY, now()).unwrap();
        let issued = between
            .issue(&service(&["a.b"], Purpose::Server, DAY), Algorithm::EcdsaP256, now())
            .unwrap();
        let chain = certificates(&issued.leaf.chain_pem).unwrap();
        for revoked in [issued.leaf.serial.as_str(), between.serial()] {
            let role = Role::Server("a.b");
            let verified = verify(&chain[0], &chain[1..], root.root(), &role, now(), &|serial| {
                serial == revoked
            });
            assert_eq!(verified, Err(VerifyError::Revoked));
        }
        let verified = verify(&chain[0], &[], root.root(), &Role::Server("a.b"), now(), &|_| false);
        assert_eq!(verified, Err(VerifyError::UnknownIssuer));
    }

    #[test]
    fn endpoints_go_into_certificates() {
        let endpoints = Endpoints::new("http://gw:9000/crl", "http://gw:9000/ocsp").unwrap();
        let root = root().with_endpoints(endpoints);
        let issued = root
            .issue(&service(&["a.b"], Purpose::Server, DAY), Algorithm::EcdsaP256, now())
            .unwrap();
        let chain = certificates(&issued.leaf.chain_pem).unwrap();
        let holds = |text: &[u8]| chain[0].windows(text.len()).any(|window| window == text);
        assert!(holds(b"http://gw:9000/crl") && holds(b"http://gw:9000/ocsp"));
        assert_eq!(accepts(&root, &issued.leaf, &Role::Server("a.b"), now()), Ok(()));
    }
}
