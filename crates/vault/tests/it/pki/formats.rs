//! What stands in certificates, as OpenSSL reads it.

use vault::pki::{Algorithm, Authority, Csr, Endpoints, PrivateKey, Purpose};

use super::tools::{DAY, Files, intermediate, node, noon, openssl, root, service};

const ALGORITHMS: [(Algorithm, &str); 5] = [
    (Algorithm::EcdsaP256, "ASN1 OID: prime256v1"),
    (Algorithm::EcdsaP384, "ASN1 OID: secp384r1"),
    (Algorithm::Rsa2048, "Public-Key: (2048 bit)"),
    (Algorithm::Rsa3072, "Public-Key: (3072 bit)"),
    (Algorithm::Rsa4096, "Public-Key: (4096 bit)"),
];

/// The lines of `openssl x509 -text` that follow a heading, up to the next line that isn't further in.
fn section(text: &str, heading: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains(heading));
    let first = lines.next().unwrap_or_else(|| panic!("no '{heading}' in {text}"));
    let depth = first.len() - first.trim_start().len();
    let inner = lines.take_while(|line| line.len() - line.trim_start().len() > depth);
    std::iter::once(first)
        .chain(inner)
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_server_certificate_says_what_it_should() {
    let files = Files::new();
    let endpoints = Endpoints::new("http://gw:9000/pki/crl", "http://gw:9000/pki/ocsp").unwrap();
    let root = root(noon()).with_endpoints(endpoints);
    let request = service(
        &["api.example.com", "*.api.example.com", "10.0.0.7", "2001:db8::7"],
        Purpose::Server,
    );
    for (algorithm, key) in ALGORITHMS {
        let issued = root.issue(&request, algorithm, noon()).unwrap();
        let pem = files.write("leaf.pem", &issued.leaf.certificate_pem);
        let text = openssl(format!("x509 -in {pem} -noout -text -fingerprint -sha256 -serial")).accepted();
        assert!(text.contains("Version: 3"), "{text}");
        assert!(text.contains("Issuer: CN = Test root"), "{text}");
        assert!(text.contains("Subject: CN = api"), "{text}");
        assert!(text.contains("Not Before: Nov 22 11:55:00 2026 GMT"), "{text}");
        assert!(text.contains("Not After : Feb 20 12:00:00 2027 GMT"), "{text}");
        assert!(text.contains(key), "{text}");
        assert!(
            text.contains(&format!("serial={}", issued.leaf.serial.to_uppercase())),
            "{text}"
        );
        let fingerprint = text.lines().find(|line| line.contains("Fingerprint=")).unwrap();
        let fingerprint = fingerprint.split_once('=').unwrap().1.replace(':', "").to_lowercase();
        assert_eq!(fingerprint, issued.leaf.fingerprint);
        assert_eq!(
            section(&text, "Subject Alternative Name"),
            "X509v3 Subject Alternative Name:\nDNS:api.example.com, DNS:*.api.example.com, IP Address:10.0.0.7, \
             IP Address:2001:DB8:0:0:0:0:0:7"
        );
        let usage = if algorithm.family() == "rsa" {
            "Digital Signature, Key Encipherment"
        } else {
            "Digital Signature"
        };
        assert_eq!(
            section(&text, "X509v3 Key Usage"),
            format!("X509v3 Key Usage: critical\n{usage}")
        );
        assert_eq!(
            section(&text, "Extended Key Usage"),
            "X509v3 Extended Key Usage:\nTLS Web Server Authentication"
        );
        assert_eq!(
            section(&text, "Basic Constraints"),
            "X509v3 Basic Constraints: critical\nCA:FALSE"
        );
        assert!(section(&text, "Authority Information Access").contains("OCSP - URI:http://gw:9000/pki/ocsp"));
        assert!(section(&text, "CRL Distribution Points").contains("URI:http://gw:9000/pki/crl"));
        let issuer_id = section(&text, "Authority Key Identifier")
            .split_once('\n')
            .unwrap()
            .1
            .to_owned();
        let root_pem = files.write("root.pem", root.root_pem());
        let root_text = openssl(format!("x509 -in {root_pem} -noout -text")).accepted();
        let root_id = section(&root_text, "Subject Key Identifier")
            .split_once('\n')
            .unwrap()
            .1
            .to_owned();
        assert_eq!(issuer_id, root_id);

        let key = files.write("key.pem", issued.key.to_pem().as_bytes());
        let public = openssl(format!("pkey -in {key} -pubout")).accepted();
        assert_eq!(public, openssl(format!("x509 -in {pem} -noout -pubkey")).accepted());
        openssl(format!("pkey -in {key} -check -noout")).accepted();
    }
}

#[test]
fn authorities_say_what_they_may_do() {
    let files = Files::new();
    let root = root(noon());
    let between = intermediate(&root, noon());
    let text = |pem: String| openssl(format!("x509 -in {} -noout -text", files.write("ca.pem", pem))).accepted();
    let root_text = text(root.root_pem());
    let between_text = text(vault::pki::encode_certificates([between.certificate()]));
    for (text, path_length) in [(&root_text, 1), (&between_text, 0)] {
        let constraints = format!("X509v3 Basic Constraints: critical\nCA:TRUE, pathlen:{path_length}");
        assert_eq!(section(text, "Basic Constraints"), constraints);
        let usage = "X509v3 Key Usage: critical\nDigital Signature, Certificate Sign, CRL Sign";
        assert_eq!(section(text, "X509v3 Key Usage"), usage);
    }
    let id = |text: &str, which: &str| section(text, which).split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        id(&between_text, "Authority Key Identifier"),
        id(&root_text, "Subject Key Identifier")
    );
    let pem = files.write("root.pem", root.root_pem());
    let printed = openssl(format!("x509 -in {pem} -noout -sha256 -fingerprint")).accepted();
    let printed = printed
        .trim()
        .rsplit_once('=')
        .unwrap()
        .1
        .replace(':', "")
        .to_lowercase();
    assert_eq!(printed, root.fingerprint());
    assert_eq!(printed, between.fingerprint());
}

#[test]
fn a_nodes_request_is_one_for_openssl_and_openssls_is_one_for_us() {
    let files = Files::new();
    let root = root(noon());
    for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Rsa2048] {
        let csr = Csr::new(algorithm).unwrap();
        let pem = files.write("node.csr", &csr.request_pem);
        openssl(format!("req -in {pem} -verify -noout")).accepted();
        let leaf = root.sign(&node("gpu-7"), &csr.request_pem, noon()).unwrap();
        assert_eq!(leaf.algorithm, algorithm);
        let pem = files.write("node.pem", &leaf.certificate_pem);
        let text = openssl(format!("x509 -in {pem} -noout -text")).accepted();
        assert!(
            section(&text, "Alternative Name").ends_with("URI:clawbernetes://node/gpu-7"),
            "{text}"
        );
        assert!(
            section(&text, "Extended Key Usage").ends_with("\nTLS Web Client Authentication"),
            "{text}"
        );
        let key = files.write("node.key", csr.key.to_pem().as_bytes());
        let public = openssl(format!("pkey -in {key} -pubout")).accepted();
        assert_eq!(public, openssl(format!("x509 -in {pem} -noout -pubkey")).accepted());
    }

    // Whatever it asks for, it gets what we decide.
    let key = files.name("their.key");
    let csr = files.name("their.csr");
    for kind in [
        "-newkey ec -pkeyopt ec_paramgen_curve:P-256",
        "-newkey ec -pkeyopt ec_paramgen_curve:P-384",
        "-newkey rsa:2048",
    ] {
        let asks = "-subj /CN=root/O=evil -addext basicConstraints=CA:TRUE -addext subjectAltName=DNS:bank.example";
        openssl(format!("req -new -nodes -keyout {key} -out {csr} {kind} {asks}")).accepted();
        let request = std::fs::read_to_string(&csr).unwrap();
        let leaf = root.sign(&node("gpu-7"), &request, noon()).unwrap();
        let pem = files.write("their.pem", &leaf.certificate_pem);
        let text = openssl(format!("x509 -in {pem} -noout -text")).accepted();
        assert!(
            text.contains("Subject: CN = gpu-7") && text.contains("CA:FALSE"),
            "{text}"
        );
        assert!(!text.contains("bank.example") && !text.contains("evil"), "{text}");
    }
    for unsupported in [
        "-newkey ec -pkeyopt ec_paramgen_curve:P-521",
        "-newkey rsa:1024",
        "-newkey ed25519",
    ] {
        openssl(format!(
            "req -new -nodes -keyout {key} -out {csr} -subj /CN=x {unsupported}"
        ))
        .accepted();
        let request = std::fs::read_to_string(&csr).unwrap();
        let error = root.sign(&node("gpu-7"), &request, noon()).unwrap_err();
        assert_eq!(error.field(), Some("csr"), "{error}");
        assert!(error.to_string().contains("2048, 3072 and 4096"), "{error}");
    }
}

#[test]
fn keys_of_openssl_are_read_in_each_form() {
    let files = Files::new();
    let key = files.name("key.pem");
    let old = files.name("old.pem");
    for (kind, algorithm) in [
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", Algorithm::EcdsaP256),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384", Algorithm::EcdsaP384),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:3072", Algorithm::Rsa3072),
    ] {
        openssl(format!("genpkey {kind} -out {key}")).accepted();
        openssl(format!("pkey -in {key} -traditional -out {old}")).accepted();
        let read = |path: &str| PrivateKey::from_pem(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(read(&key).algorithm(), algorithm);
        assert_eq!(read(&old).pkcs8_der(), read(&key).pkcs8_der());
    }
    for other in ["X25519", "ED25519", "RSA -pkeyopt rsa_keygen_bits:1024"] {
        openssl(format!("genpkey -algorithm {other} -out {key}")).accepted();
        PrivateKey::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap_err();
    }
    let encrypted = "-pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:x";
    openssl(format!("genpkey -algorithm EC {encrypted} -out {key}")).accepted();
    PrivateKey::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap_err();
}

#[test]
fn years_past_2049_are_written_as_openssl_reads_them() {
    let files = Files::new();
    let long = Authority::new_root("long", Algorithm::EcdsaP256, 30 * 365 * DAY, noon()).unwrap();
    let pem = files.write("long.pem", long.root_pem());
    let text = openssl(format!("x509 -in {pem} -noout -enddate")).accepted();
    assert!(text.contains("Nov 14 12:00:00 2056 GMT"), "{text}");
}
