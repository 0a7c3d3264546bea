//! What relying parties fetch, asked for and judged by OpenSSL.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::json;

use crate::fixture::Fixture;

fn openssl(folder: &Path, words: &str) -> Output {
    let out = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(folder)
        .output()
        .expect("openssl is installed (scripts/test does it)");
    println!(
        "openssl {words}\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

/// Runs openssl where it may wait for the gateway, which runs on this runtime.
async fn off(folder: &Path, words: String) -> String {
    let folder = folder.to_owned();
    let out = tokio::task::spawn_blocking(move || openssl(&folder, &words))
        .await
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_learns_of_a_revocation() {
    let fixture = Fixture::start().await;
    let files = tempfile::tempdir().unwrap();
    let at = |name: &str| files.path().join(name);
    let issued = fixture
        .admin("cert.issue", &json!({"name": "api", "sans": ["api.lab", "10.0.0.7"]}))
        .await;
    assert_eq!(issued.status, 200, "{issued:?}");
    let text = |field: &str| issued.body[field].as_str().unwrap().to_owned();
    std::fs::write(at("api.crt"), text("certificate")).unwrap();
    std::fs::write(at("ca.crt"), text("authority")).unwrap();
    let listed = fixture.send("GET", "/pki/ca.pem", None, b"", "").await;
    assert_eq!(listed.body.as_str(), Some(text("authority").as_str()));

    let ask = format!(
        "ocsp -issuer ca.crt -CAfile ca.crt -cert api.crt -url http://{}/pki/ocsp",
        fixture.gateway.address
    );
    let said = off(files.path(), ask.clone()).await;
    assert!(
        said.contains("Response verify OK") && said.contains("api.crt: good"),
        "{said}"
    );

    let list = async |name: &str| {
        let crl = fixture.send("GET", "/pki/crl.pem", None, b"", "").await;
        std::fs::write(at(name), crl.body.as_str().unwrap()).unwrap();
    };
    list("before.crl").await;
    let check = |crl: &str| format!("verify -CAfile ca.crt -CRLfile {crl} -crl_check api.crt");
    let said = off(files.path(), check("before.crl")).await;
    assert!(said.contains("api.crt: OK"), "{said}");

    let serial = issued.body["info"]["serial"].as_str().unwrap();
    let revoked = fixture
        .admin("cert.revoke", &json!({"name": serial, "reason": "key-compromise"}))
        .await;
    assert_eq!(revoked.body["status"], "revoked", "{revoked:?}");
    let again = fixture.admin("cert.revoke", &json!({"name": "api"})).await;
    assert_eq!(again.code(), "CONFLICT");
    let said = off(files.path(), ask).await;
    assert!(
        said.contains("api.crt: revoked") && said.contains("keyCompromise"),
        "{said}"
    );
    list("after.crl").await;
    let said = off(files.path(), check("after.crl")).await;
    assert!(said.contains("certificate revoked"), "{said}");

    // The name is free again; the gateway's own certificate never was on the list.
    let renewed = fixture
        .admin("cert.issue", &json!({"name": "api", "sans": ["api.lab"]}))
        .await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_an_answer_that_says_so() {
    let fixture = Fixture::start().await;
    let malformed = fixture.send("POST", "/pki/ocsp", None, b"nonsense", "").await;
    assert_eq!(
        malformed.status, 200,
        "as RFC 6960 has it: the answer says what is wrong"
    );
    let path = "/pki/ocsp/not-base64";
    assert_eq!(fixture.send("GET", path, None, b"", "").await.status, 400);
    fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_where_to_learn_of_revocations_if_told() {
    let options = gateway::Options {
        trust: gateway::trust::Options {
            url: Some("http://gpu-head.lab:9000/".to_owned()),
            ..Default::default()
        },
        ..gateway::Options::default()
    };
    let fixture = Fixture::with(options).await;
    let files = tempfile::tempdir().unwrap();
    let issued = fixture
        .admin("cert.issue", &json!({"name": "api", "sans": ["api.lab"]}))
        .await;
    std::fs::write(
        files.path().join("api.crt"),
        issued.body["certificate"].as_str().unwrap(),
    )
    .unwrap();
    let text = off(files.path(), "x509 -in api.crt -noout -text".to_owned()).await;
    assert!(text.contains("URI:http://gpu-head.lab:9000/pki/crl.der"), "{text}");
    assert!(text.contains("OCSP - URI:http://gpu-head.lab:9000/pki/ocsp"), "{text}");
    fixture.gateway.stop().await;
}
