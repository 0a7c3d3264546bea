//! Certificates on the command line, judged by OpenSSL.

use std::{os::unix::fs::MetadataExt, path::Path, process::Command};

use serde_json::{Value, json};

use crate::world::{Fleet, Home};

/// What OpenSSL says.
#[track_caller]
fn openssl(home: &Home, line: &str) -> String {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(home.path(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {line}: {said}");
    said
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_certificate_is_issued_rotated_and_revoked() {
    let fleet = Fleet::start();
    let home = fleet.home();
    assert_eq!(home.run("cert list").ok(), "No certificates.");
    let issued = home
        .run("cert issue api --san api.lab.example --san 10.0.0.7 --out tls --json")
        .json();
    assert_eq!(issued["name"], "api");
    assert!(!issued.to_string().contains("PRIVATE KEY"), "{issued}");
    let file = |name: &str| home.path("tls").join(name);
    assert_eq!(issued["files"]["key"], "tls/api.key");
    assert_eq!(std::fs::metadata(file("api.key")).unwrap().mode() & 0o777, 0o600);

    let verify = "verify -CAfile tls/ca.crt -untrusted tls/api.chain.crt";
    openssl(&home, &format!("{verify} -verify_hostname api.lab.example tls/api.crt"));
    openssl(&home, &format!("{verify} -verify_ip 10.0.0.7 tls/api.crt"));
    let public = openssl(&home, "x509 -in tls/api.crt -noout -pubkey");
    assert_eq!(openssl(&home, "pkey -in tls/api.key -pubout"), public);
    assert!(openssl(&home, "x509 -in tls/api.crt -noout -text").contains("prime256v1"));
    assert_eq!(home.run("cert ca").out, read(&file("ca.crt")));
    let fingerprint = home.run("cert ca --fingerprint").ok().to_owned();
    let theirs = openssl(&home, "x509 -in tls/ca.crt -noout -fingerprint -sha256");
    let theirs = theirs.trim().rsplit('=').next().unwrap().replace(':', "");
    assert!(theirs.eq_ignore_ascii_case(&fingerprint), "{theirs} {fingerprint}");

    // A key is never replaced unasked, and a name isn't given twice.
    let key = read(&file("api.key"));
    let refused = home.run("cert issue api --san api.lab.example --out tls");
    refused.failed(8, "api.key is there already");
    home.run("cert issue api --san api.lab.example --out other")
        .failed(8, "ALREADY_EXISTS");
    assert_eq!(std::fs::read_dir(home.path("other")).unwrap().count(), 0);
    assert_eq!(read(&file("api.key")), key);

    home.run("cert rotate api").failed(8, "--force");
    let rotated = home.run("cert rotate api --force --out tls");
    assert!(
        rotated.ok().contains("tls/api.key") && rotated.err.contains("ends in "),
        "{rotated:?}"
    );
    assert_ne!(read(&file("api.key")), key);
    assert_eq!(read(&file("api.key.old")), key);
    openssl(&home, &format!("{verify} tls/api.crt"));
    openssl(&home, &format!("{verify} tls/api.crt.old"));
    let listed = home.run("cert list --json").json();
    let mut statuses: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["status"].as_str().unwrap())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, ["replaced", "valid"]);
    assert_eq!(home.run("cert list --expiring 1d --json").json(), json!([]));
    assert!(
        home.run("cert list --all -o name").ok().lines().count() > 2,
        "the gateway's own is there too"
    );

    let serial = openssl(&home, "x509 -in tls/api.crt -noout -serial");
    let serial = serial.trim().rsplit('=').next().unwrap().to_owned();
    let unasked = home.run("cert revoke api --reason key-compromise");
    assert!(
        unasked.failed(2, "--yes").contains(&serial.to_lowercase()),
        "{unasked:?}"
    );
    let revoked = home.run("cert revoke api --reason key-compromise --yes --json").json();
    assert_eq!(revoked["status"], "revoked");
    assert!(
        serial.eq_ignore_ascii_case(revoked["serial"].as_str().unwrap()),
        "{serial}: {revoked}"
    );
    std::fs::write(home.path("crl.pem"), home.run("cert crl").ok()).unwrap();
    assert!(openssl(&home, "crl -in crl.pem -noout -text").contains(&serial));
    assert_eq!(home.run("cert crl --json").json()["revoked"], 1);
    home.run("cert revoke api --yes").failed(8, "CONFLICT");
    let old = openssl(&home, "x509 -in tls/api.crt.old -noout -serial");
    let old = old.trim().rsplit('=').next().unwrap().to_owned();
    assert!(
        home.run(&format!("cert revoke {old} --yes")).ok().contains("revoked"),
        "by serial number, as OpenSSL writes it"
    );
}

#[test]
fn without_a_folder_chain_and_key_are_printed() {
    let fleet = Fleet::start();
    let home = fleet.home();
    let done = home.run(
        "cert issue old-client --san old.lab.example --algorithm rsa --key-size 3072 --purpose client --validity 1h",
    );
    std::fs::write(home.path("both.pem"), done.ok()).unwrap();
    assert!(done.out.starts_with("-----BEGIN CERTIFICATE-----"), "{done:?}");
    assert!(done.err.contains("private key is part of this output"), "{done:?}");
    assert!(!done.err.contains("PRIVATE"), "{done:?}");
    let text = openssl(&home, "x509 -in both.pem -noout -text");
    assert!(
        text.contains("3072 bit") && text.contains("TLS Web Client Authentication"),
        "{text}"
    );
    assert!(!text.contains("TLS Web Server Authentication"), "{text}");
    openssl(&home, "pkey -in both.pem -noout");
    let json = home.run("cert issue other --san other.lab.example --json").json();
    for field in ["certificate", "chain", "key", "authority"] {
        assert!(json[field].as_str().unwrap().starts_with("-----BEGIN "), "{field}");
    }
    assert_eq!(json["info"]["name"], "other");
}

#[test]
fn what_cannot_be_is_refused_before_anything_changes() {
    let fleet = Fleet::start();
    let home = fleet.home();
    home.write("file", "");
    home.write("foreign/ca.crt", "another authority\n");
    for (line, status, part) in [
        ("cert issue Api --san a.example", 2, "as in DNS"),
        ("cert issue api", 2, "--san"),
        (
            "cert issue api --san not_a_name!",
            2,
            "neither a DNS name nor an IP address",
        ),
        ("cert issue api --san 10.0.0.300", 2, "INVALID_ARGUMENT"),
        ("cert issue api --san a.example --validity 0s", 2, "at once"),
        ("cert issue api --san a.example --validity 36500d", 2, "outlive"),
        ("cert issue api --san a.example --validity soon", 2, "accepted:"),
        ("cert issue api --san a.example --algorithm ed448", 2, "ecdsa, rsa"),
        ("cert issue api --san a.example --key-size 2048", 2, "256, 384"),
        (
            "cert issue api --san a.example --algorithm rsa --key-size 1024",
            2,
            "2048, 3072, 4096",
        ),
        ("cert issue api --san a.example --out file", 2, "--out"),
        (
            "cert issue api --san a.example --out foreign",
            8,
            "isn't this fleet's authority",
        ),
        ("cert issue ca --san a.example --out tls", 2, "ca.crt"),
        ("cert issue api --san a.example --force", 2, "--out"),
        ("cert rotate api", 3, "NOT_FOUND"),
        ("cert revoke api", 3, "NOT_FOUND"),
        ("cert revoke 00ff --yes", 3, "NOT_FOUND"),
        ("cert revoke api --reason boredom", 2, "key-compromise"),
        ("cert list --expiring soon", 2, "accepted:"),
    ] {
        home.run(line).failed(status, part);
    }
    assert_eq!(home.run("cert list --json").json(), json!([]));
    let told: Value =
        serde_json::from_str(&home.run("cert issue api --san a.example --out foreign --json").err).unwrap();
    assert_eq!(told["error"]["code"], "ALREADY_EXISTS");
    assert_eq!(std::fs::read_dir(home.path("foreign")).unwrap().count(), 1);
}
