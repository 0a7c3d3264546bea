//! The authority itself: a certificate that may issue others, the chain above it, and its key.

use std::{fmt, time::Duration};

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::{
    der::{Signed, with_issuer},
    endpoints::Endpoints,
    error::Error,
    facts::{AuthorityFacts, Facts, fingerprint, hex, signed_by},
    issue::{BACKDATED, Request, Subject, Validity, random_serial},
    key::{Algorithm, PrivateKey, Signer},
    pem,
    time::{earlier, later, since_epoch, whole_second},
    verify::{Role, verify},
};

/// The longest name of an authority, characters (RFC 5280's bound of a common name).
const NAME_MAX: usize = 64;

/// An authority that is ready to sign.
///
/// Its chain is in order: its own certificate first, the self-signed root last, each signed by the next. A chain that
/// doesn't hold, or a key that doesn't fit, never becomes an `Authority`.
pub struct Authority {
    chain: Vec<CertificateDer<'static>>,
    facts: Vec<Facts>,
    key: PrivateKey,
    pub(super) issuer: Issuer<'static, Signer>,
    pub(super) endpoints: Option<Endpoints>,
}

impl Authority {
    /// A new self-signed root. It may have one level of authorities below it.
    ///
    /// `name` is its common name: two roots that clients may trust at the same time should differ in it.
    ///
    /// # Errors
    /// [`Error::Name`] unless the name has 1–64 printable characters, [`Error::ValidityZero`], [`Error::Crypto`].
    pub fn new_root(name: &str, algorithm: Algorithm, validity: Duration, now: Timestamp) -> Result<Self, Error> {
        let not_after = ends(validity, now)?;
        let params = params(name, 1, earlier(now, BACKDATED), not_after)?;
        let key = PrivateKey::generate(algorithm)?;
        let certificate = params.self_signed(&key.signer()?).map_err(failed)?;
        Self::assemble(vec![certificate.into()], key)
    }

    /// A new authority below `root`, so that the root's key can be kept elsewhere. Nothing but leaves below it.
    ///
    /// # Errors
    /// As [`new_root`](Self::new_root), and [`Error::NotAnAuthority`] if `root` may not have authorities below it,
    /// [`Error::ValidityPastIssuer`] if this one would outlive it.
    pub fn new_intermediate(
        root: &Self,
        name: &str,
        algorithm: Algorithm,
        validity: Duration,
        now: Timestamp,
    ) -> Result<Self, Error> {
        root.valid_at(now)?;
        let not_after = ends(validity, now)?;
        if not_after > root.not_after() {
            return Err(Error::ValidityPastIssuer {
                asked: not_after,
                issuer_until: root.not_after(),
            });
        }
        let not_before = earlier(now, BACKDATED).max(root.facts[0].not_before);
        let mut params = params(name, 0, not_before, not_after)?;
        params.use_authority_key_identifier_extension = true;
        if let Some(endpoints) = &root.endpoints {
            endpoints.add_to(&mut params);
        }
        let key = PrivateKey::generate(algorithm)?;
        let certificate = root.certificate_for(&params, &key.signer()?)?;
        let mut chain = vec![certificate];
        chain.extend(root.chain.iter().cloned());
        Self::assemble(chain, key)
    }

    /// The same root for a new time: of the same name and key, so that what it issued before stays accepted by those who
    /// trust the new certificate, and what it issues from now on by those who still trust the old one, until that ends.
    /// Its [`fingerprint`](Self::fingerprint) is another.
    ///
    /// # Errors
    /// [`Error::NotAnAuthority`] if it isn't a root, or one with a name such as others give: who made it renews it.
    /// [`Error::ValidityZero`], [`Error::Crypto`].
    pub fn renew_root(&self, validity: Duration, now: Timestamp) -> Result<Self, Error> {
        let refuse = || Error::NotAnAuthority {
            subject: self.subject().to_owned(),
            reason: "its certificate is renewed where it was made".to_owned(),
        };
        let (1, Some(name)) = (self.chain.len(), &self.own().common_name) else {
            return Err(refuse());
        };
        let not_after = ends(validity, now)?;
        let mut params = params(name, 0, earlier(now, BACKDATED), not_after)?;
        params.is_ca = IsCa::Ca(match self.own().authority.and_then(|authority| authority.path_length) {
            None => BasicConstraints::Unconstrained,
            Some(below) => BasicConstraints::Constrained(u8::try_from(below).unwrap_or(u8::MAX)),
        });
        params.key_identifier_method = key_id_method(self.own());
        let certificate = params.self_signed(self.issuer.key()).map_err(failed)?;
        let mut renewed = Self::assemble(vec![certificate.into()], self.key.clone())?;
        if renewed.own().subject != self.own().subject {
            return Err(refuse());
        }
        renewed.endpoints.clone_from(&self.endpoints);
        Ok(renewed)
    }

    /// Someone else's authority, to be used here: its certificate and those above it up to the self-signed root, in
    /// this order, and its key.
    ///
    /// It is tried out before it is accepted: a certificate that it issues must verify against its root.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::AuthorityNotValid`] if a certificate isn't valid now; [`Error::Chain`] if
    /// what it would issue isn't accepted (constraints on names, for example).
    pub fn import(chain: &str, key: &str, now: Timestamp) -> Result<Self, Error> {
        let authority = Self::load(chain, PrivateKey::from_pem(key)?)?;
        authority.valid_at(now)?;
        let probe = Request {
            subject: Subject::Node("probe".parse()?),
            validity: Validity::AtMost(Duration::from_secs(60)),
        };
        let probe = authority.issue(&probe, Algorithm::EcdsaP256, now)?;
        let leaf = pem::certificates(&probe.leaf.chain_pem)?;
        let (leaf, between) = leaf.split_first().ok_or_else(|| Error::Crypto {
            what: "write a certificate",
            detail: "nothing was written".to_owned(),
        })?;
        verify(leaf, between, authority.root(), &Role::Client, now, &|_| false).map_err(|error| Error::Chain {
            subject: authority.subject().to_owned(),
            reason: format!("what it issues isn't accepted: {error}"),
        })?;
        Ok(authority)
    }

    /// An authority from what is kept of it: [`chain_pem`](Self::chain_pem) and [`key`](Self::key). It may have
    /// expired since.
    ///
    /// # Errors
    /// [`Error::Pem`] and [`Error::Malformed`] for damaged parts, [`Error::Chain`], [`Error::NotAnAuthority`],
    /// [`Error::KeyMismatch`], [`Error::KeyUnsupported`].
    pub fn load(chain: &str, key: PrivateKey) -> Result<Self, Error> {
        Self::assemble(pem::certificates(chain)?, key)
    }

    fn assemble(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, Error> {
        let facts = chain
            .iter()
            .map(|der| Facts::read(der))
            .collect::<Result<Vec<_>, _>>()?;
        check_chain(&chain, &facts)?;
        let signer = key.signer()?;
        let (Some(own), Some(der)) = (facts.first(), chain.first()) else {
            return Err(broken("", "there is no certificate"));
        };
        if rcgen::PublicKeyData::subject_public_key_info(&signer) != own.public_key_info {
            return Err(Error::KeyMismatch {
                subject: own.subject_text.clone(),
            });
        }
        let issuer = issuer(der, own, &key)?;
        Ok(Self {
            chain,
            facts,
            key,
            issuer,
            endpoints: None,
        })
    }

    /// The same authority, which from now on writes into certificates where to ask for revocations.
    #[must_use]
    pub fn with_endpoints(mut self, endpoints: Endpoints) -> Self {
        self.endpoints = Some(endpoints);
        self
    }

    /// Its own certificate. As the one trust anchor for clients' certificates it admits what this authority issued,
    /// and nothing that others issued under the same root.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The certificates between a leaf and the root: empty if it is the root itself.
    #[must_use]
    pub fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.chain[..self.chain.len() - 1]
    }

    /// The self-signed root: what clients are told to trust.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.chain[self.chain.len() - 1]
    }

    /// The root as PEM: for `--cacert` and its like.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem::encode_certificates([self.root()])
    }

    /// Its own certificate and those above it, the root included: what is kept of it.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        pem::encode_certificates(&self.chain)
    }

    /// Its key, to be sealed before it is kept.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// SHA-256 of the root's DER, hex in lower case: by this a client knows the root before it has it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self.root())
    }

    /// Kind of its key.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// What tells it from other authorities: SHA-256 over its name and key, hex in lower case. That is what revocations
    /// go by; a renewed certificate changes nothing in it.
    #[must_use]
    pub fn id(&self) -> String {
        let own = self.own();
        hex(digest(&SHA256, &[&own.subject[..], &own.public_key_info].concat()).as_ref())
    }

    /// Its subject, readable: `CN=…`.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.own().subject_text
    }

    /// The serial number of its own certificate, hex.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.own().serial
    }

    /// From when it may issue: from when its own certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.own().not_before
    }

    /// Until when what it issues can be valid: the earliest end of its chain.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.facts
            .iter()
            .map(|facts| facts.not_after)
            .min()
            .unwrap_or(Timestamp::MIN)
    }

    /// Whether this very authority signed a certificate, whatever the time.
    #[must_use]
    pub fn signed(&self, certificate: &CertificateDer<'_>) -> bool {
        signed_by(certificate, self.certificate())
    }

    pub(super) fn own(&self) -> &Facts {
        &self.facts[0]
    }

    pub(super) fn valid_at(&self, now: Timestamp) -> Result<(), Error> {
        self.facts.iter().try_for_each(|facts| facts.valid_at(now))
    }

    /// Signs a certificate.
    pub(super) fn certificate_for(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, Error> {
        let certificate: CertificateDer<'static> = params.signed_by(key, &self.issuer).map_err(failed)?.into();
        Ok(with_issuer(
            certificate.to_vec(),
            Signed::Certificate,
            &self.own().subject,
            self.issuer.key(),
        )?
        .into())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("subject", &self.subject())
            .field("not_after", &self.not_after())
            .finish_non_exhaustive()
    }
}

/// What `rcgen` signs with. A name that it can't read is put in afterwards: see [`with_issuer`].
fn issuer(der: &CertificateDer<'static>, facts: &Facts, key: &PrivateKey) -> Result<Issuer<'static, Signer>, Error> {
    if let Ok(issuer) = Issuer::from_ca_cert_der(der, key.signer()?) {
        return Ok(issuer);
    }
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.key_identifier_method = key_id_method(facts);
    Ok(Issuer::new(params, key.signer()?))
}

/// How certificates and lists refer to an authority's key.
pub(super) fn key_id_method(facts: &Facts) -> KeyIdMethod {
    facts
        .key_id
        .clone()
        .map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified)
}

/// The parameters of an authority's certificate; `below` is how many authorities may stand below it.
fn params(name: &str, below: u8, not_before: Timestamp, not_after: Timestamp) -> Result<CertificateParams, Error> {
    if name.trim().is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(Error::Name {
            given: name.chars().take(80).collect(),
            rule: "an authority's name has 1 to 64 printable characters",
        });
    }
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_before);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(not_after);
    params.serial_number = Some(random_serial()?);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    // The signature on OCSP answers is one like any other.
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(params)
}

/// When an authority that begins now ends.
fn ends(validity: Duration, now: Timestamp) -> Result<Timestamp, Error> {
    if validity.as_secs() == 0 {
        return Err(Error::ValidityZero);
    }
    Ok(whole_second(later(now, validity)))
}

/// Each certificate is an authority's, allows what stands below it, and is signed by the next; the last by itself.
fn check_chain(chain: &[CertificateDer<'static>], facts: &[Facts]) -> Result<(), Error> {
    for (below, (der, own)) in chain.iter().zip(facts).enumerate() {
        let refuse = |reason: &str| {
            Err(Error::NotAnAuthority {
                subject: own.subject_text.clone(),
                reason: reason.to_owned(),
            })
        };
        match own.authority {
            None => return refuse("it isn't an authority's certificate (basic constraints)"),
            Some(AuthorityFacts {
                signs_certificates: false,
                ..
            }) => return refuse("it may not sign certificates (key usage)"),
            Some(AuthorityFacts { signs_lists: false, .. }) if below == 0 => {
                return refuse("it may not sign lists of revoked certificates (key usage)");
            }
            Some(AuthorityFacts {
                path_length: Some(limit),
                ..
            }) if below > usize::try_from(limit).unwrap_or(usize::MAX) => {
                return refuse("there are more authorities below it than it allows (path length)");
            }
            Some(_) => {}
        }
        let root = below + 1 == chain.len();
        let (issuer, issuer_facts) = if root {
            (der, own)
        } else {
            (&chain[below + 1], &facts[below + 1])
        };
        if own.issuer != issuer_facts.subject {
            return Err(broken(
                &own.subject_text,
                if root {
                    "the last certificate isn't a self-signed root"
                } else {
                    "the next certificate isn't its issuer's"
                },
            ));
        }
        if !signed_by(der, issuer) {
            return Err(broken(&own.subject_text, "its signature isn't by its issuer's key"));
        }
    }
    Ok(())
}

fn broken(subject: &str, reason: &str) -> Error {
    Error::Chain {
        subject: subject.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn failed(error: rcgen::Error) -> Error {
    Error::Crypto {
        what: "sign a certificate",
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    fn now() -> Timestamp {
        "2026-11-22T10:00:00.5Z".parse().unwrap()
    }

    fn root() -> Authority {
        Authority::new_root("test root", Algorithm::EcdsaP256, 10 * YEAR, now()).unwrap()
    }

    #[test]
    fn what_is_kept_makes_the_same_authority() {
        let root = root();
        let between = Authority::new_intermediate(&root, "between", Algorithm::EcdsaP384, YEAR, now()).unwrap();
        for authority in [&root, &between] {
            let key = PrivateKey::from_pkcs8(authority.key().pkcs8_der()).unwrap();
            let again = Authority::load(&authority.chain_pem(), key).unwrap();
            assert_eq!(again.chain_pem(), authority.chain_pem());
            assert_eq!(again.fingerprint(), root.fingerprint());
            assert_eq!(again.not_after(), authority.not_after());
            assert_eq!(again.serial(), authority.serial());
        }
        assert_eq!(root.intermediates().len(), 0);
        assert_eq!(between.intermediates().len(), 1);
        assert_eq!(root.subject(), "CN=test root");
        assert_eq!(root.not_before(), "2026-11-22T09:55:00Z".parse().unwrap());
        assert_eq!(root.not_after(), "2036-11-19T10:00:00Z".parse().unwrap());
    }

    #[test]
    fn debug_tells_no_key() {
        let text = format!("{:?}", root());
        assert_eq!(
            text,
            "Authority { subject: \"CN=test root\", not_after: 2036-11-19T10:00:00Z, .. }"
        );
    }

    #[test]
    fn impossible_authorities_are_refused() {
        let make = |name: &str, validity| Authority::new_root(name, Algorithm::EcdsaP256, validity, now());
        assert_eq!(make("", YEAR).unwrap_err().field(), Some("name"));
        assert_eq!(make(&"a".repeat(65), YEAR).unwrap_err().field(), Some("name"));
        assert_eq!(make("a\nb", YEAR).unwrap_err().field(), Some("name"));
        assert_eq!(make("a", Duration::ZERO).unwrap_err(), Error::ValidityZero);

        let root = root();
        let between = |root: &Authority, validity, at| {
            Authority::new_intermediate(root, "between", Algorithm::EcdsaP256, validity, at)
        };
        assert_eq!(between(&root, 11 * YEAR, now()).unwrap_err().field(), Some("validity"));
        let later = now() + 12 * YEAR;
        assert!(matches!(
            between(&root, YEAR, later).unwrap_err(),
            Error::AuthorityNotValid { .. }
        ));
        let below = between(&root, YEAR, now()).unwrap();
        let error = between(&below, YEAR / 2, now()).unwrap_err();
        assert!(
            matches!(&error, Error::NotAnAuthority { reason, .. } if reason.contains("path length")),
            "{error}"
        );
    }

    #[test]
    fn import_takes_what_holds_and_refuses_the_rest() {
        let root = root();
        let between = Authority::new_intermediate(&root, "between", Algorithm::Rsa2048, YEAR, now()).unwrap();
        let key = between.key().to_pem();
        let chain = between.chain_pem();
        Authority::import(&chain, &key, now()).unwrap();

        let own = pem::encode_certificates([between.certificate()]);
        let reversed = pem::encode_certificates([root.root(), between.certificate()]);
        let other = Authority::new_root("test root", Algorithm::EcdsaP256, YEAR, now()).unwrap();
        let forged = pem::encode_certificates([between.certificate(), other.root()]);
        let request = Request {
            subject: Subject::Node("n".parse().unwrap()),
            validity: Validity::AtMost(YEAR),
        };
        let leaf = root.issue(&request, Algorithm::EcdsaP256, now()).unwrap();
        let leaf_chain = leaf.leaf.chain_pem.clone() + &root.chain_pem();
        for (chain, key, field, why) in [
            (own.as_str(), key.as_str(), "certificate", "self-signed root"),
            (&reversed, &key, "certificate", "issuer"),
            (&forged, &key, "certificate", "signature"),
            (&chain, &root.key().to_pem(), "key", "belong"),
            (&leaf_chain, &leaf.key.to_pem(), "certificate", "authority"),
            ("", &key, "certificate", "PEM"),
            (&chain, "", "key", "PEM"),
            (&chain, &chain, "key", "PEM"),
        ] {
            let error = Authority::import(chain, key, now()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
        let error = Authority::import(&chain, &key, now() + 2 * YEAR).unwrap_err();
        assert!(matches!(error, Error::AuthorityNotValid { .. }), "{error}");
    }

    #[test]
    fn a_renewed_root_is_trusted_for_what_the_old_one_issued_and_the_other_way_round() {
        let old = root().with_endpoints(Endpoints::new("http://gw/crl", "http://gw/ocsp").unwrap());
        let at = now() + 7 * YEAR;
        let new = old.renew_root(10 * YEAR, at).unwrap();
        assert_ne!(new.fingerprint(), old.fingerprint());
        assert_eq!(new.id(), old.id());
        assert_ne!(new.id(), root().id());
        assert_eq!((new.subject(), &new.endpoints), (old.subject(), &old.endpoints));
        assert_eq!(new.not_after(), whole_second(at + 10 * YEAR));
        let request = Request {
            subject: Subject::Node("n".parse().unwrap()),
            validity: Validity::AtMost(YEAR),
        };
        for (issuer, trusted) in [(&old, &new), (&new, &old), (&new, &new)] {
            let leaf = issuer.issue(&request, Algorithm::EcdsaP256, at).unwrap().leaf;
            let leaf = &pem::certificates(&leaf.certificate_pem).unwrap()[0];
            assert_eq!(verify(leaf, &[], trusted.root(), &Role::Client, at, &|_| false), Ok(()));
        }
        Authority::new_intermediate(&new, "between", Algorithm::EcdsaP256, YEAR, at).unwrap();

        let between = Authority::new_intermediate(&old, "between", Algorithm::EcdsaP256, YEAR, now()).unwrap();
        assert!(matches!(
            between.renew_root(YEAR, now()),
            Err(Error::NotAnAuthority { .. })
        ));
        assert_eq!(old.renew_root(Duration::ZERO, at).unwrap_err(), Error::ValidityZero);
    }
}
