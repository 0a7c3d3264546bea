//! Private keys: made, read, written and used by aws-lc.

use std::fmt;

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls_pki_types::PrivateKeyDer;
use serde::{Deserialize, Serialize};
use x509_parser::{
    oid_registry::{OID_EC_P256, OID_NIST_EC_P384},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};
use zeroize::{Zeroize, Zeroizing};

use super::{
    error::{Error, KEY},
    pem,
};

/// Kind and size of a key. What it signs is hashed with SHA-256; with SHA-384 on P-384.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// ECDSA on P-256: small, fast, understood by everything. The default.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA, 2048 bits: for clients that know nothing else.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// RSA, 3072 bits.
    #[serde(rename = "rsa-3072")]
    Rsa3072,
    /// RSA, 4096 bits: takes up to seconds to make.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

impl Algorithm {
    /// From the two words of a request: `ecdsa` (256, 384; 256 if unsaid) or `rsa` (2048, 3072, 4096; 2048 if unsaid).
    ///
    /// # Errors
    /// [`Error::Algorithm`] and [`Error::KeySize`].
    pub fn parse(algorithm: &str, key_size: Option<u32>) -> Result<Self, Error> {
        let refuse = |algorithm, given, accepted| Error::KeySize {
            algorithm,
            given,
            accepted,
        };
        match algorithm {
            "ecdsa" => match key_size.unwrap_or(256) {
                256 => Ok(Self::EcdsaP256),
                384 => Ok(Self::EcdsaP384),
                other => Err(refuse("ecdsa", other, "256 or 384")),
            },
            "rsa" => match key_size.unwrap_or(2048) {
                2048 => Ok(Self::Rsa2048),
                3072 => Ok(Self::Rsa3072),
                4096 => Ok(Self::Rsa4096),
                other => Err(refuse("rsa", other, "2048, 3072 or 4096")),
            },
            other => Err(Error::Algorithm {
                given: other.chars().take(40).collect(),
            }),
        }
    }

    /// The first word of a request.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 => "ecdsa",
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => "rsa",
        }
    }

    /// Bits of the key.
    #[must_use]
    pub fn key_size(self) -> u32 {
        match self {
            Self::EcdsaP256 => 256,
            Self::EcdsaP384 => 384,
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }

    /// What a public key is; `None` if it isn't one of ours.
    pub(super) fn of_public_key(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        match key.parsed().ok()? {
            PublicKey::RSA(key) => Self::of_modulus(key.key_size()),
            PublicKey::EC(_) => {
                let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
                if curve == OID_EC_P256 {
                    Some(Self::EcdsaP256)
                } else if curve == OID_NIST_EC_P384 {
                    Some(Self::EcdsaP384)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn of_modulus(bits: usize) -> Option<Self> {
        match bits {
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.family(), self.key_size())
    }
}

/// A private key, as PKCS #8. Prints nothing of itself, and is wiped when dropped.
#[derive(Clone)]
pub struct PrivateKey {
    algorithm: Algorithm,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// A new key. RSA of 4096 bits takes up to seconds: keep it off an async thread.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn generate(algorithm: Algorithm) -> Result<Self, Error> {
        let failed = |_| Error::Crypto {
            what: "make a key",
            detail: algorithm.to_string(),
        };
        let pkcs8 = match ecdsa(algorithm) {
            Ok(curve) => {
                let pair = EcdsaKeyPair::generate(curve).map_err(failed)?;
                pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec()
            }
            Err(size) => {
                let pair = RsaKeyPair::generate(size).map_err(failed)?;
                pair.as_der().map_err(failed)?.as_ref().to_vec()
            }
        };
        Ok(Self {
            algorithm,
            pkcs8: Zeroizing::new(pkcs8),
        })
    }

    /// A key from PKCS #8 DER, as [`pkcs8_der`](Self::pkcs8_der) gave it.
    ///
    /// # Errors
    /// [`Error::KeyUnsupported`] for other kinds of keys, and what isn't a key.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        Self::from_der(der)
    }

    /// A key from PEM: PKCS #8, or the older forms for EC and RSA keys. Encrypted keys aren't read.
    ///
    /// # Errors
    /// [`Error::Pem`], [`Error::KeyUnsupported`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let mut key: PrivateKeyDer<'static> = pem::first(text, KEY)?;
        let read = Self::from_der(key.secret_der());
        key.zeroize();
        read
    }

    /// From any of the forms, to PKCS #8.
    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let failed = |_| Error::Crypto {
            what: "write a key",
            detail: "PKCS #8".to_owned(),
        };
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384] {
            let Ok(curve) = ecdsa(algorithm) else { continue };
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, der) {
                let pkcs8 = Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec());
                return Ok(Self { algorithm, pkcs8 });
            }
        }
        let unsupported = Error::KeyUnsupported { what: KEY };
        let pair = RsaKeyPair::from_pkcs8(der)
            .or_else(|_| RsaKeyPair::from_der(der))
            .map_err(|_| unsupported.clone())?;
        Ok(Self {
            algorithm: Algorithm::of_modulus(pair.public_modulus_len() * 8).ok_or(unsupported)?,
            pkcs8: Zeroizing::new(pair.as_der().map_err(failed)?.as_ref().to_vec()),
        })
    }

    /// Kind and size.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key itself, as PKCS #8 DER: what the vault seals, and what TLS takes.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key itself, as PKCS #8 PEM.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode_secret("PRIVATE KEY", &self.pkcs8)
    }

    /// Makes the key ready to sign.
    pub(super) fn signer(&self) -> Result<Signer, Error> {
        let failed = |error: aws_lc_rs::error::KeyRejected| Error::Crypto {
            what: "read a key",
            detail: error.to_string(),
        };
        let pair = match ecdsa(self.algorithm) {
            Ok(curve) => Pair::Ecdsa(EcdsaKeyPair::from_pkcs8(curve, &self.pkcs8).map_err(failed)?),
            Err(_) => Pair::Rsa(RsaKeyPair::from_pkcs8(&self.pkcs8).map_err(failed)?),
        };
        Ok(Signer {
            algorithm: self.algorithm,
            pair,
        })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// The curve of an ECDSA key, or else the size of an RSA key.
fn ecdsa(algorithm: Algorithm) -> Result<&'static EcdsaSigningAlgorithm, KeySize> {
    match algorithm {
        Algorithm::EcdsaP256 => Ok(&ECDSA_P256_SHA256_ASN1_SIGNING),
        Algorithm::EcdsaP384 => Ok(&ECDSA_P384_SHA384_ASN1_SIGNING),
        Algorithm::Rsa2048 => Err(KeySize::Rsa2048),
        Algorithm::Rsa3072 => Err(KeySize::Rsa3072),
        Algorithm::Rsa4096 => Err(KeySize::Rsa4096),
    }
}

/// A key that is ready to sign. aws-lc holds it and wipes it; `rcgen`'s own pair would keep a copy that nothing wipes.
pub(super) struct Signer {
    pub(super) algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl rcgen::PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Ecdsa(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.algorithm {
            Algorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Algorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl rcgen::SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| rcgen::Error::RingUnspecified),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| rcgen::Error::RingUnspecified)?;
                Ok(signature)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_sizes() {
        assert_eq!(Algorithm::parse("ecdsa", None), Ok(Algorithm::EcdsaP256));
        assert_eq!(Algorithm::parse("ecdsa", Some(384)), Ok(Algorithm::EcdsaP384));
        assert_eq!(Algorithm::parse("rsa", None), Ok(Algorithm::Rsa2048));
        assert_eq!(Algorithm::parse("rsa", Some(4096)), Ok(Algorithm::Rsa4096));
        for (algorithm, size, field) in [
            ("ecdsa", Some(2048), "keySize"),
            ("rsa", Some(1024), "keySize"),
            ("rsa", Some(0), "keySize"),
            ("ed25519", None, "algorithm"),
            ("", None, "algorithm"),
            ("RSA", None, "algorithm"),
        ] {
            assert_eq!(Algorithm::parse(algorithm, size).unwrap_err().field(), Some(field));
        }
        assert_eq!(serde_json::to_string(&Algorithm::EcdsaP256).unwrap(), "\"ecdsa-p256\"");
        assert_eq!(serde_json::to_string(&Algorithm::Rsa2048).unwrap(), "\"rsa-2048\"");
    }

    #[test]
    fn keys_come_back_from_pem_and_print_nothing() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa2048] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.algorithm(), algorithm);
            assert_eq!(again.pkcs8_der(), key.pkcs8_der());
            assert_eq!(
                format!("{key:?}"),
                format!("PrivateKey {{ algorithm: {algorithm:?}, .. }}")
            );
        }
        let error = PrivateKey::from_pem("no key").unwrap_err();
        assert_eq!(error.field(), Some("key"));
    }
}
