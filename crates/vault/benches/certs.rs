//! How fast certificates are issued and revocations answered, beside the bare operations of the cryptographic library
//! in the same run. One thread. `--quick` runs a small version once, as a smoke test. Prints figures, asserts no times.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]
#![expect(clippy::unwrap_used, reason = "a bench stops at what it did not expect")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256},
};
use jiff::Timestamp;
use vault::pki::{
    Algorithm, Authority, Certificate, Csr, Endpoints, OcspStatus, Peer, Purpose, Reason, Request, Role, Subject,
    Validity, answer, certificates, encode_certificates, verify,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Repeats `work` for a while, at least ten times, and prints how often a second it went.
fn rate(what: &str, patience: Duration, mut work: impl FnMut()) -> f64 {
    work();
    let start = Instant::now();
    let mut times = 0_u32;
    while times < 10 || start.elapsed() < patience {
        work();
        times += 1;
    }
    let rate = f64::from(times) / start.elapsed().as_secs_f64();
    println!("{what:<58} {rate:>10.0}/s  {:>9.1} µs", 1e6 / rate);
    rate
}

fn main() {
    // `cargo test --benches` and `--quick` ask for a smoke run.
    let quick = std::env::args().any(|arg| arg == "--quick" || arg == "--test");
    let patience = Duration::from_millis(if quick { 1 } else { 2_000 });
    let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let random = SystemRandom::new();

    let endpoints = Endpoints::new("http://gateway:9000/pki/crl", "http://gateway:9000/pki/ocsp").unwrap();
    let ec = Authority::new_root("EC", Algorithm::EcdsaP256, 400 * DAY, now)
        .unwrap()
        .with_endpoints(endpoints.clone());
    let rsa = Authority::new_root("RSA", Algorithm::Rsa2048, 400 * DAY, now)
        .unwrap()
        .with_endpoints(endpoints);
    let node = Request {
        subject: Subject::Node("gpu-7".parse().unwrap()),
        validity: Validity::Exactly(30 * DAY),
    };
    let server = Request {
        subject: Subject::Service {
            name: "api".parse().unwrap(),
            sans: vec!["api.example.com".parse().unwrap(), "10.0.0.7".parse().unwrap()],
            purpose: Purpose::Server,
        },
        validity: Validity::Exactly(90 * DAY),
    };

    println!("bare operations of aws-lc");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let message = [7; 600];
    let sign = rate("  ECDSA P-256 signature over 600 bytes", patience, || {
        black_box(pair.sign(&random, &message).unwrap());
    });
    let make = rate("  ECDSA P-256 key", patience, || {
        black_box(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap());
    });
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let mut signature = vec![0; pair.public_modulus_len()];
    let sign_rsa = rate("  RSA-2048 signature over 600 bytes", patience, || {
        pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature).unwrap();
    });
    let make_rsa = rate("  RSA-2048 key", patience, || {
        black_box(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap());
    });

    println!("certificates");
    let share = |rate: f64, bare: f64| println!("    {:.0} % of the bare operations' rate", 100.0 * rate / bare);
    let issued = rate("  issue, P-256 by P-256 (key, certificate)", patience, || {
        black_box(ec.issue(&server, Algorithm::EcdsaP256, now).unwrap());
    });
    share(issued, 1.0 / (1.0 / sign + 1.0 / make));
    let csr = Csr::new(Algorithm::EcdsaP256).unwrap().request_pem;
    rate("  sign a node's request, P-256 by P-256", patience, || {
        black_box(ec.sign(&node, &csr, now).unwrap());
    });
    let issued = rate("  issue, RSA-2048 by RSA-2048 (key, certificate)", patience, || {
        black_box(rsa.issue(&server, Algorithm::Rsa2048, now).unwrap());
    });
    share(issued, 1.0 / (1.0 / sign_rsa + 1.0 / make_rsa));
    let leaf = ec.issue(&server, Algorithm::EcdsaP256, now).unwrap().leaf;
    let presented = certificates(&leaf.chain_pem).unwrap();
    rate("  verify a server's chain", patience, || {
        verify(
            &presented[0],
            &[],
            ec.root(),
            &Role::Server("api.example.com"),
            now,
            &|_| false,
        )
        .unwrap();
    });
    rate("  read who the peer is", patience, || {
        black_box(Peer::read(&presented[0]).unwrap());
    });

    println!("revocation");
    let folder = tempfile::tempdir().unwrap();
    for (authority, name, bare) in [(&ec, "P-256", sign), (&rsa, "RSA-2048", sign_rsa)] {
        let leaf = authority.issue(&server, Algorithm::EcdsaP256, now).unwrap().leaf;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("issuer.pem"), encode_certificates([authority.certificate()])).unwrap();
        std::fs::write(path("leaf.pem"), &leaf.certificate_pem).unwrap();
        let made = std::process::Command::new("openssl")
            .args([
                "ocsp",
                "-issuer",
                "issuer.pem",
                "-cert",
                "leaf.pem",
                "-reqout",
                "question.der",
            ])
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(made.success(), "openssl makes the question");
        let question = std::fs::read(path("question.der")).unwrap();
        let answered = rate(
            &format!("  OCSP answer with a nonce, signed by {name}"),
            patience,
            || {
                black_box(answer(&[authority], &question, now, DAY, &|_, _| OcspStatus::Good));
            },
        );
        share(answered, bare);
    }
    let count = if quick { 100 } else { 10_000 };
    let record = Certificate::new(&ec, &server, &leaf, "ann", now)
        .revoke(Reason::KeyCompromise, "ann", now)
        .unwrap();
    let records: Vec<_> = (0..count)
        .map(|serial| Certificate {
            serial: format!("{:032x}", (0x40_u128 << 120) | serial),
            ..record.clone()
        })
        .collect();
    let bytes = ec.crl(&records, 1, now, DAY).unwrap().der.len();
    rate(&format!("  list of {count} revoked ({bytes} bytes)"), patience, || {
        black_box(ec.crl(&records, 1, now, DAY).unwrap());
    });
}
