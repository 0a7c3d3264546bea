//! Authorities that others made, with the names that others give them.

use jiff::Timestamp;
use vault::pki::{Algorithm, Authority, Certificate, OcspStatus, Purpose, Reason, answer, certificates};

use super::tools::{DAY, Files, Said, noon, openssl, openssl_with, root, service};

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256";
const CA: &str = "basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
";

/// A root and an intermediate by OpenSSL, each with its kind of key: the chain, and the intermediate's key. `subject`
/// and `extensions` are the intermediate's.
fn made(root_kind: &str, subject: &str, kind: &str, extensions: &str) -> (String, String) {
    let files = Files::new();
    let [root, root_key, own, own_key, csr] =
        ["root", "root.key", "own", "own.key", "csr"].map(|name| files.name(name));
    let line = format!("req -x509 {root_kind} -nodes -keyout {root_key} -out {root} -days 3650 -sha384 -subj");
    openssl_with(&line, &["/DC=com/DC=example/O=Example, Inc./CN=Example Root"]).accepted();
    let line = format!("req -new {kind} -nodes -keyout {own_key} -out {csr} -utf8 -multivalue-rdn -subj");
    openssl_with(&line, &[subject]).accepted();
    let extensions = files.write("extensions", extensions);
    let line =
        format!("x509 -req -in {csr} -CA {root} -CAkey {root_key} -CAcreateserial -days 365 -out {own} -extfile");
    openssl_with(&line, &[&extensions]).accepted();
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    (read(&own) + &read(&root), read(&own_key))
}

/// All that an authority does, by OpenSSL's judgement.
fn works(authority: &Authority) {
    let now = Timestamp::now();
    let files = Files::new();
    let request = service(&["api.example.com"], Purpose::Server);
    let good = authority.issue(&request, Algorithm::EcdsaP256, now).unwrap();
    let bad = authority.issue(&request, Algorithm::EcdsaP256, now).unwrap();
    let record = Certificate::new(authority, &request, &bad.leaf, "ann", now);
    let record = record.revoke(Reason::KeyCompromise, "ann", now).unwrap();
    let list = files.write("crl.pem", authority.crl([&record], 1, now, DAY).unwrap().pem);
    let root = files.write("root.pem", authority.root_pem());
    let chain = files.write("chain.pem", authority.chain_pem());
    let check = |leaf: &str| -> Said {
        let leaf = files.write("leaf.pem", leaf);
        openssl(format!(
            "verify -crl_check -CRLfile {list} -CAfile {root} -untrusted {chain} {leaf}"
        ))
    };
    check(&good.leaf.certificate_pem).accepted();
    check(&bad.leaf.certificate_pem).refused("revoked");

    // Byte by byte, as TLS compares them.
    let presented = certificates(&good.leaf.chain_pem).unwrap();
    let role = vault::pki::Role::Server("api.example.com");
    vault::pki::verify(&presented[0], &presented[1..], authority.root(), &role, now, &|_| false).unwrap();

    let issuer = files.write("issuer.pem", vault::pki::encode_certificates([authority.certificate()]));
    let leaf = files.write("leaf.pem", &bad.leaf.certificate_pem);
    let question = files.name("question.der");
    openssl(format!("ocsp -issuer {issuer} -cert {leaf} -reqout {question}")).accepted();
    let question = std::fs::read(&question).unwrap();
    let response = answer(&[authority], &question, now, DAY, &|_, serial| {
        if serial == record.serial {
            OcspStatus::from(&record)
        } else {
            OcspStatus::Unknown
        }
    });
    let response = files.write("response.der", response);
    let line =
        format!("ocsp -respin {response} -issuer {issuer} -cert {leaf} -CAfile {root} -verify_other {chain} -no_nonce");
    let said = openssl(&line).accepted();
    assert!(
        said.contains("Response verify OK") && said.contains("leaf.pem: revoked"),
        "{said}"
    );
}

#[test]
fn authorities_of_any_name_and_key_work() {
    let bare = "basicConstraints=critical,CA:TRUE";
    for (root, subject, kind, extensions) in [
        ("-newkey rsa:3072", "/CN=Fleet CA", EC, CA),
        (EC, "/DC=com/DC=example/CN=No more than it must say", EC, bare),
        (
            EC,
            "/C=DE/O=Example/OU=Infrastructure/OU=GPU/OU=Fleet/CN=Fleet CA",
            EC,
            CA,
        ),
        (EC, "/DC=com/DC=example/DC=corp/CN=Fleet CA", EC, CA),
        (EC, "/O=Example/CN=Fleet CA+serialNumber=7", EC, CA),
        (EC, "/O=Bücher GmbH/CN=Größe", EC, CA),
        (EC, "/CN=P-384", "-newkey ec -pkeyopt ec_paramgen_curve:P-384", CA),
        (EC, "/DC=com/DC=example/CN=RSA", "-newkey rsa:2048", CA),
    ] {
        let (chain, key) = made(root, subject, kind, extensions);
        let imported = Authority::import(&chain, &key, Timestamp::now());
        let authority = imported.unwrap_or_else(|error| panic!("{subject}: {error}"));
        works(&authority);
        let again = Authority::load(&authority.chain_pem(), authority.key().clone()).unwrap();
        assert_eq!(again.id(), authority.id());
    }
}

#[test]
fn an_imported_root_works_and_has_authorities_below_it() {
    let files = Files::new();
    let (pem, key) = (files.name("root.pem"), files.name("root.key"));
    let line = format!("req -x509 {EC} -nodes -keyout {key} -out {pem} -days 3650 -subj /DC=com/DC=example/CN=R");
    openssl(&line).accepted();
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let now = Timestamp::now();
    let root = Authority::import(&read(&pem), &read(&key), now).unwrap();
    works(&root);
    let below = Authority::new_intermediate(&root, "below", Algorithm::EcdsaP256, 300 * DAY, now).unwrap();
    works(&below);
    assert_eq!(below.fingerprint(), root.fingerprint());
    let error = root.renew_root(3650 * DAY, now).unwrap_err();
    assert!(error.to_string().contains("where it was made"), "{error}");
}

#[test]
fn authorities_that_cant_do_it_are_refused() {
    for (kind, extensions, why) in [
        (EC, "basicConstraints=critical,CA:FALSE", "isn't an authority"),
        (EC, "subjectKeyIdentifier=hash", "isn't an authority"),
        (
            EC,
            "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature,cRLSign",
            "may not sign certificates",
        ),
        (
            EC,
            "basicConstraints=CA:TRUE\nkeyUsage=keyCertSign",
            "may not sign lists",
        ),
        (EC, "basicConstraints=CA:TRUE\nextendedKeyUsage=serverAuth", "purpose"),
        (
            EC,
            "basicConstraints=CA:TRUE\nnameConstraints=critical,permitted;URI:.example.com",
            "isn't accepted",
        ),
        ("-newkey ed25519", CA, "P-256"),
        ("-newkey ec -pkeyopt ec_paramgen_curve:P-521", CA, "P-256"),
        ("-newkey rsa:1024", CA, "2048"),
    ] {
        let (chain, key) = made(EC, "/CN=x", kind, extensions);
        let error = Authority::import(&chain, &key, Timestamp::now()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.field().is_some(), "{error}");
    }
}

#[test]
fn an_authority_from_the_future_or_the_past_is_refused() {
    let root = root(noon());
    let (chain, key) = (root.chain_pem(), root.key().to_pem());
    for at in [noon() - DAY, noon() + 4000 * DAY] {
        let error = Authority::import(&chain, &key, at).unwrap_err();
        assert!(error.to_string().contains("is valid from"), "{error}");
    }
    Authority::import(&chain, &key, noon()).unwrap();
}
