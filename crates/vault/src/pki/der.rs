//! DER, as far as the libraries that read and write certificates leave it to us.

use rcgen::SigningKey;
use x509_parser::der_parser::asn1_rs::{Any, Class, FromDer, Tag};
use yasna::DERWriter;

use super::{
    authority::failed,
    error::{CERTIFICATE, Error},
    key::{Algorithm, Signer},
};

/// One element of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    /// What is in it.
    pub(super) content: &'a [u8],
    /// All of it, with tag and length.
    pub(super) whole: &'a [u8],
}

/// Reads the elements in a content one after another. `None` stands for anything that isn't as asked.
#[derive(Clone, Copy)]
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The next element, whatever it is.
    pub(super) fn any(&mut self) -> Option<Element<'a>> {
        let (rest, any) = Any::from_der(self.0).ok()?;
        let whole = self.0.get(..self.0.len().checked_sub(rest.len())?)?;
        self.0 = rest;
        Some(Element {
            content: any.data,
            whole,
        })
    }

    /// The next element, which must be of this universal kind.
    pub(super) fn universal(&mut self, tag: Tag) -> Option<Element<'a>> {
        self.next_is(Class::Universal, tag)?.then(|| self.any())?
    }

    /// The next element if it has this number as its context tag.
    pub(super) fn context(&mut self, number: u32) -> Option<Option<Element<'a>>> {
        if self.0.is_empty() || !self.next_is(Class::ContextSpecific, Tag(number))? {
            return Some(None);
        }
        self.any().map(Some)
    }

    pub(super) fn sequence(&mut self) -> Option<Elements<'a>> {
        self.universal(Tag::Sequence).map(|element| Elements(element.content))
    }

    fn next_is(self, class: Class, tag: Tag) -> Option<bool> {
        let (_, any) = Any::from_der(self.0).ok()?;
        Some(any.class() == class && any.tag() == tag)
    }
}

/// Where the issuer's name is among the elements of what is signed.
#[derive(Clone, Copy)]
pub(super) enum Signed {
    /// Version, serial number, algorithm, issuer.
    Certificate = 3,
    /// Version, algorithm, issuer.
    List = 2,
}

/// A certificate or list with the issuer's name as it stands in the issuer's certificate.
///
/// `rcgen` can't write each name that it reads: several values of one attribute (`DC=example,DC=com`) become one. TLS
/// compares names byte by byte, so where what it wrote differs, the name is put in and the signature made anew.
pub(super) fn with_issuer(der: Vec<u8>, kind: Signed, issuer: &[u8], key: &Signer) -> Result<Vec<u8>, Error> {
    let malformed = || Error::Malformed {
        what: CERTIFICATE,
        detail: "what was written can't be read".to_owned(),
    };
    let mut outer = Elements(&der).sequence().ok_or_else(malformed)?;
    let mut inner = outer.sequence().ok_or_else(malformed)?;
    let mut elements = Vec::new();
    while !inner.is_empty() {
        elements.push(inner.any().ok_or_else(malformed)?.whole);
    }
    let place = elements.get_mut(kind as usize).ok_or_else(malformed)?;
    if *place == issuer {
        return Ok(der);
    }
    *place = issuer;
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for element in elements {
                writer.next().write_der(element);
            }
        });
    });
    sign(&content, key, None)
}

/// `SEQUENCE { content, algorithm, signature, [0] certificates }`, the form of everything that is signed here; the last
/// part, the signer's certificate, is OCSP's only.
pub(super) fn sign(content: &[u8], key: &Signer, certificate: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let signature = key.sign(content).map_err(failed)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(content);
            write_algorithm(writer.next(), key.algorithm);
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            if let Some(certificate) = certificate {
                writer.next().write_tagged(yasna::Tag::context(0), |writer| {
                    writer.write_sequence(|writer| writer.next().write_der(certificate));
                });
            }
        });
    }))
}

/// The signature algorithms of [`Signer`].
fn write_algorithm(writer: DERWriter<'_>, algorithm: Algorithm) {
    // RFC 5758, 3.2 (ECDSA: no parameters) and RFC 8017, A.2.4 (RSA: NULL).
    let (oid, null): (&[u64], bool) = match algorithm {
        Algorithm::EcdsaP256 => (&[1, 2, 840, 10045, 4, 3, 2], false),
        Algorithm::EcdsaP384 => (&[1, 2, 840, 10045, 4, 3, 3], false),
        Algorithm::Rsa2048 | Algorithm::Rsa3072 | Algorithm::Rsa4096 => (&[1, 2, 840, 113_549, 1, 1, 11], true),
    };
    writer.write_sequence(|writer| {
        writer
            .next()
            .write_oid(&yasna::models::ObjectIdentifier::from_slice(oid));
        if null {
            writer.next().write_null();
        }
    });
}
