//! Lists of revoked certificates and OCSP, judged by OpenSSL and webpki.

use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::UnixTime;
use vault::pki::{Algorithm, Authority, Certificate, Issued, OcspStatus, Purpose, Reason, answer, certificates};

use super::{
    server::Server,
    tools::{DAY, Files, intermediate, noon, openssl, root, service},
};

struct Fleet {
    authority: Authority,
    issued: Vec<Issued>,
    records: Vec<Certificate>,
}

/// Certificates of which each second one is revoked, each for another reason.
fn fleet(authority: Authority, now: Timestamp) -> Fleet {
    let mut issued = Vec::new();
    let mut records = Vec::new();
    for reason in Reason::ALL {
        for revoked in [false, true] {
            let request = service(&["a.b"], Purpose::Server);
            let one = authority.issue(&request, Algorithm::EcdsaP256, now).unwrap();
            let record = Certificate::new(&authority, &request, &one.leaf, "ann", now);
            records.push(if revoked {
                record.revoke(reason, "ann", now + DAY).unwrap()
            } else {
                record
            });
            issued.push(one);
        }
    }
    Fleet {
        authority,
        issued,
        records,
    }
}

/// A root's, an intermediate's, and those of both kinds of keys.
fn fleets(now: Timestamp) -> Vec<Fleet> {
    let ec = root(now);
    let rsa = Authority::new_root("RSA root", Algorithm::Rsa2048, 3650 * DAY, now).unwrap();
    let p384 = Authority::new_intermediate(&rsa, "P-384", Algorithm::EcdsaP384, 365 * DAY, now).unwrap();
    let below = intermediate(&ec, now);
    [ec, rsa, p384, below]
        .into_iter()
        .map(|authority| fleet(authority, now))
        .collect()
}

#[test]
fn openssl_reads_the_list_and_refuses_what_is_on_it() {
    let files = Files::new();
    let now = noon() + 2 * DAY;
    for Fleet {
        authority,
        issued,
        records,
    } in fleets(noon())
    {
        let list = authority.crl(&records, 7, now, 3 * DAY).unwrap();
        let pem = files.write("crl.pem", &list.pem);
        let der = files.write("crl.der", &list.der);
        let chain = files.write("chain.pem", authority.chain_pem());
        let root = files.write("root.pem", authority.root_pem());
        let text = openssl(format!("crl -in {pem} -noout -text -CAfile {chain}")).accepted();
        assert!(text.contains("verify OK"), "{text}");
        assert_eq!(
            text,
            openssl(format!("crl -in {der} -inform DER -noout -text -CAfile {chain}")).accepted()
        );
        assert!(text.contains("Version 2"), "{text}");
        assert!(text.contains("CRL Number: \n                7"), "{text}");
        assert!(text.contains("Last Update: Nov 24 11:55:00 2026 GMT"), "{text}");
        assert!(text.contains("Next Update: Nov 27 12:00:00 2026 GMT"), "{text}");
        assert_eq!(
            text.matches("Revocation Date: Nov 23 12:00:00 2026 GMT").count(),
            Reason::ALL.len()
        );
        for reason in [
            "Key Compromise",
            "Affiliation Changed",
            "Superseded",
            "Cessation Of Operation",
            "Privilege Withdrawn",
        ] {
            assert!(text.contains(reason), "{text}");
        }
        // None given is none written.
        assert_eq!(text.matches("Reason Code").count(), Reason::ALL.len() - 1);

        let check = |leaf: &Issued, at: Timestamp| {
            let own = files.write("leaf.pem", &leaf.leaf.certificate_pem);
            let trust = format!("-crl_check -CRLfile {pem} -CAfile {root} -untrusted {chain}");
            openssl(format!("verify {trust} -attime {} {own}", at.as_second()))
        };
        for (one, record) in issued.iter().zip(&records) {
            let said = check(one, now);
            match record.revoked {
                None => drop(said.accepted()),
                Some(_) => said.refused("certificate revoked"),
            }
        }
        check(&issued[0], now + 4 * DAY).refused("CRL has expired");
    }
}

#[test]
fn webpki_reads_the_list_and_refuses_what_is_on_it() {
    let now = noon() + 2 * DAY;
    for Fleet {
        authority,
        issued,
        records,
    } in fleets(noon())
    {
        let list = authority.crl(&records, 1, now, DAY).unwrap();
        let list: webpki::CertRevocationList<'_> =
            webpki::BorrowedCertRevocationList::from_der(&list.der).unwrap().into();
        let lists = [&list];
        let root = [webpki::anchor_from_trusted_cert(authority.root()).unwrap()];
        for (one, record) in issued.iter().zip(&records) {
            let chain = certificates(&one.leaf.chain_pem).unwrap();
            let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
            let options = webpki::RevocationOptionsBuilder::new(&lists)
                .unwrap()
                .with_depth(webpki::RevocationCheckDepth::EndEntity)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build();
            let verified = leaf.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &root,
                &chain[1..],
                UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap())),
                webpki::KeyUsage::server_auth(),
                Some(options),
                None,
            );
            assert_eq!(
                verified.err(),
                record.revoked.as_ref().map(|_| webpki::Error::CertRevoked)
            );
        }
    }
}

#[test]
fn a_list_holds_this_authoritys_and_forgets_what_expired() {
    let files = Files::new();
    let Fleet { authority, records, .. } = fleet(root(noon()), noon());
    let count = |records: &[Certificate], now| {
        let list = authority.crl(records, 1, now, 3 * DAY).unwrap();
        let pem = files.write("crl.pem", list.pem);
        openssl(format!("crl -in {pem} -noout -text"))
            .accepted()
            .matches("Serial Number")
            .count()
    };
    let end = records[0].not_after;
    assert_eq!(count(&records, noon()), Reason::ALL.len());
    // On one list after its end, as RFC 5280 wants.
    assert_eq!(count(&records, end + 2 * DAY), Reason::ALL.len());
    assert_eq!(count(&records, end + 4 * DAY), 0);
    assert_eq!(count(&fleet(root(noon()), noon()).records, noon()), 0);
    assert_eq!(count(&[], noon()), 0);
    let twice: Vec<_> = records.iter().chain(&records).cloned().collect();
    assert_eq!(count(&twice, noon()), Reason::ALL.len());
    authority.crl([], 1, noon(), Duration::ZERO).unwrap_err();
}

#[test]
fn a_renewed_root_revokes_what_the_old_one_issued() {
    let files = Files::new();
    let Fleet {
        authority: old,
        issued,
        records,
    } = fleet(root(noon()), noon());
    let now = noon() + 2 * DAY;
    let new = old.renew_root(3650 * DAY, now).unwrap();
    let list = files.write("crl.pem", new.crl(&records, 2, now, DAY).unwrap().pem);
    for trusted in [&old, &new] {
        let root = files.write("root.pem", trusted.root_pem());
        for (one, record) in issued.iter().zip(&records) {
            let leaf = files.write("leaf.pem", &one.leaf.certificate_pem);
            let trust = format!("-crl_check -CRLfile {list} -CAfile {root} -attime {}", now.as_second());
            let said = openssl(format!("verify {trust} {leaf}"));
            match record.revoked {
                None => drop(said.accepted()),
                Some(_) => said.refused("certificate revoked"),
            }
        }
    }
}

fn status(records: &[Certificate]) -> impl Fn(&Authority, &str) -> OcspStatus + '_ {
    move |authority, serial| {
        let found = records
            .iter()
            .find(|record| record.authority == authority.id() && record.serial == serial);
        found.map_or(OcspStatus::Unknown, OcspStatus::from)
    }
}

#[test]
fn openssl_asks_by_ocsp_and_believes_the_answer() {
    let now = Timestamp::now();
    let issued_at = now - 2 * DAY;
    for Fleet {
        authority,
        issued,
        records,
    } in fleets(issued_at)
    {
        let files = Files::new();
        let chain = files.write("chain.pem", authority.chain_pem());
        let issuer = files.write("issuer.pem", vault::pki::encode_certificates([authority.certificate()]));
        let root_pem = files.write("root.pem", authority.root_pem());
        // Another authority before it, as after a renewal.
        let before = root(issued_at);
        // Issued, but on nobody's record.
        let unknown = authority
            .issue(&service(&["a.b"], Purpose::Server), Algorithm::EcdsaP256, now)
            .unwrap();
        let kept = records.clone();
        let server = Server::http(
            move |request| answer(&[&before, &authority], request, Timestamp::now(), DAY, &status(&kept)),
            "application/ocsp-response",
        );
        let url = format!("http://127.0.0.1:{}/", server.port());
        let ask = |one: &Issued, more: &str| {
            let leaf = files.write("leaf.pem", &one.leaf.certificate_pem);
            let trust = format!("-issuer {issuer} -CAfile {root_pem} -verify_other {chain}");
            openssl(format!("ocsp -url {url} {trust} {more} -cert {leaf}")).accepted()
        };
        for (one, record) in issued.iter().zip(&records) {
            let said = ask(one, "");
            assert!(said.contains("Response verify OK"), "{said}");
            assert!(!said.to_lowercase().contains("nonce"), "{said}");
            match &record.revoked {
                None => assert!(said.contains("leaf.pem: good"), "{said}"),
                Some(revocation) => {
                    assert!(said.contains("leaf.pem: revoked"), "{said}");
                    let code = revocation.reason.as_str().replace("-", "");
                    let said = said.to_lowercase();
                    match revocation.reason {
                        // This version of OpenSSL has no word for it.
                        Reason::PrivilegeWithdrawn => assert!(said.contains("reason: "), "{said}"),
                        Reason::Unspecified => assert!(!said.contains("reason"), "{said}"),
                        _ => assert!(said.contains(&format!("reason: {code}")), "{said}"),
                    }
                }
            }
        }
        for hash in ["-sha256", "-sha384", "-sha512"] {
            let said = ask(&issued[1], hash);
            assert!(said.contains("revoked"), "{said}");
        }
        assert!(ask(&unknown, "").contains("leaf.pem: unknown"));
        assert!(ask(&issued[0], "-no_nonce").contains("good"));
        // Several at once.
        let second = files.write("second.pem", &issued[1].leaf.certificate_pem);
        let said = ask(&issued[0], &format!("-cert {second}"));
        assert!(
            said.contains("leaf.pem: good") && said.contains("second.pem: revoked"),
            "{said}"
        );
    }
}

#[test]
fn what_isnt_ours_or_isnt_a_question_is_told_so() {
    let files = Files::new();
    let Fleet {
        authority,
        issued,
        records,
    } = fleet(root(noon()), noon());
    let stranger = root(noon());
    let issuer = files.write("issuer.pem", stranger.root_pem());
    let leaf = files.write("leaf.pem", &issued[0].leaf.certificate_pem);
    let path = files.name("request.der");
    openssl(format!("ocsp -issuer {issuer} -cert {leaf} -reqout {path}")).accepted();
    let respond = |request: &[u8]| {
        let answer = answer(&[&authority], request, noon(), DAY, &status(&records));
        let path = files.write("answer.der", answer);
        openssl(format!("ocsp -respin {path} -resp_text -noverify")).text
    };
    let request = std::fs::read(&path).unwrap();
    let said = respond(&request);
    assert!(said.contains("unauthorized (6)"), "{said}");
    for request in [
        &b""[..],
        b"x",
        &[0x30, 0],
        &request[..request.len() - 1],
        &[&request[..], b"\0"].concat(),
        &vec![0x30; 100_000],
    ] {
        let said = respond(request);
        assert!(said.contains("malformedrequest (1)"), "{said}");
    }
}

#[test]
fn openssl_refuses_an_answer_by_someone_else() {
    let files = Files::new();
    let now = Timestamp::now();
    let Fleet {
        authority,
        issued,
        records,
    } = fleet(root(now), now);
    let issuer = files.write("issuer.pem", authority.root_pem());
    let leaf = files.write("leaf.pem", &issued[1].leaf.certificate_pem);
    let path = files.name("request.der");
    openssl(format!("ocsp -issuer {issuer} -cert {leaf} -reqout {path}")).accepted();
    let request = std::fs::read(&path).unwrap();
    let good = answer(&[&authority], &request, now, DAY, &status(&records));
    let check = |answer: &[u8], words: &str| {
        let answer = files.write("answer.der", answer);
        let said = openssl(format!(
            "ocsp -reqin {path} -respin {answer} -issuer {issuer} -CAfile {issuer}"
        ));
        assert!(said.text.contains(words), "{words}? {}", said.text);
    };
    check(&good, "Response verify OK");
    let mut torn = good.clone();
    // In the middle of the signed part.
    torn[100] ^= 1;
    check(&torn, "verif");
    let at = good.windows(5).position(|window| window == b"\x18\x0f202").unwrap();
    let mut dated = good;
    dated[at + 2] = b'3';
    check(&dated, "Response Verify Failure");
}
