//! What is thrown at the parsers: a hundred thousand damaged inputs each. They may say what they like, but must say it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::CertificateDer;
use vault::pki::{
    Algorithm, Authority, Csr, Endpoints, OcspStatus, Peer, PrivateKey, Purpose, San, answer, certificates,
};

use super::tools::{DAY, Files, intermediate, node, noon, openssl, openssl_with, root, service};

const INPUTS: u64 = 100_000;

/// A small seeded generator (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }

    /// Damages bytes in one to four places, with a liking for what DER's lengths and tags are made of.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let at = self.roll(bytes.len().max(1));
            if bytes.is_empty() {
                bytes.push(self.byte());
                continue;
            }
            match self.roll(9) {
                0 => bytes[at] ^= 1 << self.roll(8),
                1 => bytes[at] = self.byte(),
                2 => bytes[at] = [0, 1, 0x1f, 0x7f, 0x80, 0x81, 0x84, 0x88, 0xff][self.roll(9)],
                3 => bytes.truncate(at),
                4 => drop(bytes.remove(at)),
                5 => bytes.insert(at, self.byte()),
                6 => {
                    // A length of any size.
                    let length = 1 + self.roll(9);
                    let huge: Vec<u8> = (0..length).map(|_| [0xff, 0x7f, 0x80, 0][self.roll(4)]).collect();
                    bytes[at] = 0x80 | u8::try_from(length).unwrap();
                    bytes.splice(at + 1..at + 1, huge);
                }
                7 => {
                    let end = (at + self.roll(40)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    let to = self.roll(bytes.len());
                    bytes.splice(to..to, piece);
                }
                _ => {
                    let end = (at + self.roll(40)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
    }
}

/// Feeds damaged copies of `samples`; `parse` says whether it accepted one.
fn bombard(seed: u64, samples: &[Vec<u8>], parse: impl Fn(&[u8]) -> bool) {
    for sample in samples {
        assert!(parse(sample), "a sample isn't accepted as it is");
    }
    let mut dice = Dice(seed);
    let mut refused = 0_u64;
    for round in 0..INPUTS {
        let mut input = samples[dice.roll(samples.len())].clone();
        dice.damage(&mut input);
        let verdict = catch_unwind(AssertUnwindSafe(|| parse(&input)));
        let Ok(accepted) = verdict else {
            panic!("seed {seed}, round {round}: panic at {input:02x?}")
        };
        refused += u64::from(!accepted);
    }
    assert!(
        refused > INPUTS / 10,
        "only {refused} of {INPUTS} were refused: they weren't damaged much"
    );
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

fn der_of(text: &str) -> Vec<u8> {
    let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

/// One of each kind that we make.
fn leaves() -> (Authority, Vec<String>) {
    let endpoints = Endpoints::new("http://gw/crl", "http://gw/ocsp").unwrap();
    let authority = intermediate(&root(noon()), noon()).with_endpoints(endpoints);
    let server = service(
        &["a.example.com", "*.b.example.com", "10.0.0.7", "2001:db8::7"],
        Purpose::Both,
    );
    let mut leaves = vec![
        authority
            .issue(&node("gpu-7"), Algorithm::EcdsaP256, noon())
            .unwrap()
            .leaf
            .certificate_pem,
    ];
    for algorithm in [Algorithm::EcdsaP384, Algorithm::Rsa2048] {
        leaves.push(
            authority
                .issue(&server, algorithm, noon())
                .unwrap()
                .leaf
                .certificate_pem,
        );
    }
    (authority, leaves)
}

#[test]
fn certificates_der() {
    let (authority, leaves) = leaves();
    let mut samples: Vec<_> = leaves.iter().map(|leaf| der_of(leaf)).collect();
    samples.push(authority.certificate().to_vec());
    bombard(1, &samples, |bytes| {
        let certificate = CertificateDer::from(bytes);
        let _ = authority.signed(&certificate);
        Peer::read(&certificate).is_ok()
    });
}

#[test]
fn certificates_pem() {
    let (authority, leaves) = leaves();
    let samples = [authority.chain_pem().into_bytes(), leaves.concat().into_bytes()];
    bombard(2, &samples, |bytes| {
        certificates(&String::from_utf8_lossy(bytes)).is_ok()
    });
}

#[test]
fn chains_of_authorities() {
    let (authority, _) = leaves();
    let chain: Vec<_> = certificates(&authority.chain_pem()).unwrap();
    let rest = pem("CERTIFICATE", &chain[1]);
    bombard(3, &[chain[0].to_vec()], |bytes| {
        Authority::load(&(pem("CERTIFICATE", bytes) + &rest), authority.key().clone()).is_ok()
    });
}

#[test]
fn requests() {
    let (authority, _) = leaves();
    let mut samples: Vec<_> = [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa2048]
        .into_iter()
        .map(|algorithm| der_of(&Csr::new(algorithm).unwrap().request_pem))
        .collect();
    let files = Files::new();
    let (key, csr) = (files.name("key"), files.name("csr"));
    let line = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
    let line =
        format!("req -new -nodes {line} -keyout {key} -out {csr} -subj /C=DE/O=x/CN=y -addext keyUsage=keyCertSign");
    openssl_with(&line, &["-addext", "subjectAltName=DNS:a.b,IP:10.0.0.1,email:a@b"]).accepted();
    samples.push(der_of(&std::fs::read_to_string(&csr).unwrap()));
    let sign = |text: &str| authority.sign(&node("gpu-7"), text, noon()).is_ok();
    bombard(4, &samples, |bytes| sign(&pem("CERTIFICATE REQUEST", bytes)));
    let texts: Vec<_> = samples
        .iter()
        .map(|der| pem("CERTIFICATE REQUEST", der).into_bytes())
        .collect();
    bombard(5, &texts, |bytes| sign(&String::from_utf8_lossy(bytes)));
}

#[test]
fn keys() {
    // RSA keys take long to check; one kind of EC key in its three forms is as much for the parser.
    let files = Files::new();
    let (key, old) = (files.name("key"), files.name("old"));
    let line = format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {key}");
    openssl(&line).accepted();
    openssl(format!("pkey -in {key} -traditional -out {old}")).accepted();
    let samples: Vec<_> = [&key, &old]
        .into_iter()
        .map(|path| der_of(&std::fs::read_to_string(path).unwrap()))
        .collect();
    bombard(6, &samples, |bytes| {
        let either = PrivateKey::from_pem(&pem("EC PRIVATE KEY", bytes)).is_ok();
        PrivateKey::from_pem(&pem("PRIVATE KEY", bytes)).is_ok() || either
    });
    let text = PrivateKey::generate(Algorithm::EcdsaP256).unwrap().to_pem();
    bombard(7, &[text.as_bytes().to_vec()], |bytes| {
        PrivateKey::from_pem(&String::from_utf8_lossy(bytes)).is_ok()
    });
}

#[test]
fn ocsp_requests() {
    let (authority, leaves) = leaves();
    let files = Files::new();
    let issuer = files.write("issuer.pem", vault::pki::encode_certificates([authority.certificate()]));
    let question = files.name("question.der");
    let mut samples = Vec::new();
    let paths: Vec<_> = leaves
        .iter()
        .map(|leaf| files.write(&format!("{}.pem", leaf.len()), leaf))
        .collect();
    let certificates: String = paths.iter().map(|path| format!(" -cert {path}")).collect();
    for more in ["-no_nonce", "-sha256", ""] {
        openssl(format!(
            "ocsp -issuer {issuer} -reqout {question} {more} {certificates}"
        ))
        .accepted();
        samples.push(std::fs::read(&question).unwrap());
    }
    bombard(8, &samples, |bytes| {
        let answer = answer(&[&authority], bytes, noon(), DAY, &|_, _| OcspStatus::Good);
        // SEQUENCE, length, ENUMERATED successful.
        answer.windows(3).take(6).any(|window| window == [10, 1, 0])
    });
}

#[test]
fn names() {
    let samples = [
        "gpu.example.com",
        "*.example.com",
        "10.0.0.7",
        "2001:db8::7",
        "xn--bcher-kva.example",
    ];
    let samples: Vec<_> = samples.iter().map(|sample| sample.as_bytes().to_vec()).collect();
    bombard(9, &samples, |bytes| {
        let Ok(san) = String::from_utf8_lossy(bytes).parse::<San>() else {
            return false;
        };
        // What is accepted is what comes back.
        assert_eq!(san.to_string().parse::<San>().unwrap(), san);
        true
    });
}
