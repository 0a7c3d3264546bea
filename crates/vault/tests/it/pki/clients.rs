//! TLS with our certificates: curl, Python, OpenSSL and rustls as clients, and rustls and OpenSSL as servers.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
};
use vault::pki::{Algorithm, Authority, Certificate, Csr, Issued, Leaf, PrivateKey, Purpose, Reason, certificates};

use super::{
    server::Server,
    tools::{DAY, Files, Said, intermediate, node, openssl, root, run, service},
};

fn key_der(key: &PrivateKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.pkcs8_der().to_vec()).unwrap()
}

fn server_config(issued: &Issued) -> ServerConfig {
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates(&issued.leaf.chain_pem).unwrap(), key_der(&issued.key))
        .unwrap()
}

/// A server that wants its clients' certificates to be `authority`'s own, and not revoked.
fn mutual(issued: &Issued, authority: &Authority, revoked: &[Certificate]) -> ServerConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut trusted = RootCertStore::empty();
    trusted.add(authority.certificate().clone()).unwrap();
    let list = authority.crl(revoked, 1, Timestamp::now(), DAY).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), Arc::clone(&provider))
        .with_crls([CertificateRevocationListDer::from(list.der)])
        .build()
        .unwrap();
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&issued.leaf.chain_pem).unwrap(), key_der(&issued.key))
        .unwrap()
}

/// Asks by rustls; the answer's body.
fn ask(
    port: u16,
    host: &str,
    root: &CertificateDer<'static>,
    own: Option<(&Leaf, &PrivateKey)>,
) -> Result<String, std::io::Error> {
    let mut trusted = RootCertStore::empty();
    trusted.add(root.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((leaf, key)) => builder
            .with_client_auth_cert(certificates(&leaf.chain_pem).unwrap(), key_der(key))
            .unwrap(),
    };
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut stream = StreamOwned::new(connection, stream);
    write!(stream, "GET / HTTP/1.0\r\nhost: {host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer
        .split_once("\r\n\r\n")
        .map_or(String::new(), |(_, body)| body.to_owned()))
}

fn curl(port: u16, host: &str, root: &str, more: &[&str]) -> Said {
    let url = format!("https://{host}:{port}/");
    let resolve = format!("{host}:{port}:127.0.0.1");
    let arguments = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "20",
        "--cacert",
        root,
    ];
    run(
        "curl",
        &[&arguments[..], &["--resolve", &resolve], more, &[&url]].concat(),
    )
}

/// Asks by Python's `ssl`, with the strict rules that are its default since 3.13.
fn python(port: u16, host: &str, root: &str) -> Said {
    const SCRIPT: &str = "
import socket, ssl, sys
port, host, root = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection(('127.0.0.1', int(port)), timeout=20) as plain:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        print(tls.makefile().read())
";
    run("python3", &["-c", SCRIPT, &port.to_string(), host, root])
}

fn s_client(port: u16, host: &str, root: &str) -> Said {
    let connect = format!("127.0.0.1:{port}");
    let name = if host.parse::<std::net::IpAddr>().is_ok() {
        "-verify_ip"
    } else {
        "-verify_hostname"
    };
    openssl(format!(
        "s_client -connect {connect} -CAfile {root} -verify_return_error {name} {host} -brief"
    ))
}

#[test]
fn each_client_accepts_and_refuses_a_server_as_it_should() {
    let now = Timestamp::now();
    let files = Files::new();
    let authority = root(now);
    let below = intermediate(&authority, now);
    let root_pem = files.write("root.pem", authority.root_pem());
    let stranger = root(now);
    let stranger_pem = files.write("stranger.pem", stranger.root_pem());
    let sans = ["localhost", "api.example.com", "127.0.0.1"];
    for (authority, algorithm) in [
        (&authority, Algorithm::EcdsaP256),
        (&below, Algorithm::EcdsaP384),
        (&below, Algorithm::Rsa2048),
    ] {
        let issued = authority
            .issue(&service(&sans, Purpose::Server), algorithm, now)
            .unwrap();
        let server = Server::https(server_config(&issued));
        let port = server.port();
        for host in sans {
            assert!(curl(port, host, &root_pem, &[]).accepted().ends_with("someone"));
            assert!(python(port, host, &root_pem).accepted().contains("someone"));
            s_client(port, host, &root_pem).accepted();
            assert_eq!(ask(port, host, authority.root(), None).unwrap(), "someone");
        }
        let wrong = "web.example.com";
        curl(port, wrong, &root_pem, &[]).refused("name");
        python(port, wrong, &root_pem).refused("hostname mismatch");
        s_client(port, wrong, &root_pem).refused("hostname mismatch");
        assert!(
            ask(port, wrong, authority.root(), None)
                .unwrap_err()
                .to_string()
                .contains("not valid for name")
        );

        curl(port, "localhost", &stranger_pem, &[]).refused("certificate");
        python(port, "localhost", &stranger_pem).refused("certificate verify failed");
        s_client(port, "localhost", &stranger_pem).refused("verify");
        let error = ask(port, "localhost", stranger.root(), None).unwrap_err().to_string();
        assert!(
            error.contains("BadSignature") || error.contains("UnknownIssuer"),
            "{error}"
        );
    }
}

#[test]
fn each_client_refuses_what_expired_and_what_isnt_a_server() {
    let now = Timestamp::now();
    let files = Files::new();
    let past = now - 100 * DAY;
    let authority = root(past);
    let root_pem = files.write("root.pem", authority.root_pem());
    let expired = authority
        .issue(&service(&["localhost"], Purpose::Server), Algorithm::EcdsaP256, past)
        .unwrap();
    let client = authority
        .issue(&service(&["localhost"], Purpose::Client), Algorithm::EcdsaP256, now)
        .unwrap();
    for (issued, words, rustls) in [(expired, "expired", "Expired"), (client, "purpose", "InvalidPurpose")] {
        let server = Server::https(server_config(&issued));
        let port = server.port();
        curl(port, "localhost", &root_pem, &[]).refused(words);
        python(port, "localhost", &root_pem).refused(words);
        s_client(port, "localhost", &root_pem).refused(words);
        let error = ask(port, "localhost", authority.root(), None).unwrap_err();
        assert!(format!("{error:?}").contains(rustls), "{error:?}");
    }
}

#[test]
fn mutual_tls_lets_in_the_nodes_of_this_very_authority() {
    let now = Timestamp::now();
    let files = Files::new();
    let authority = root(now);
    let below = intermediate(&authority, now);
    let beside = Authority::new_intermediate(&authority, "beside", Algorithm::EcdsaP256, 30 * DAY, now).unwrap();
    let request = service(&["localhost"], Purpose::Server);
    let gateway = below.issue(&request, Algorithm::EcdsaP256, now).unwrap();

    let join = |authority: &Authority, called: &str| {
        let csr = Csr::new(Algorithm::EcdsaP256).unwrap();
        let leaf = authority.sign(&node(called), &csr.request_pem, now).unwrap();
        (leaf, csr.key)
    };
    let good = join(&below, "gpu-7");
    let removed = join(&below, "gpu-8");
    let elsewhere = join(&beside, "gpu-7");
    let stranger = join(&root(now), "gpu-7");
    let not_a_client = below.issue(&request, Algorithm::EcdsaP256, now).unwrap();
    let service_client = below
        .issue(&service(&[], Purpose::Client), Algorithm::EcdsaP256, now)
        .unwrap();

    let record = Certificate::new(&below, &node("gpu-8"), &removed.0, "ann", now);
    let record = record.revoke(Reason::CessationOfOperation, "ann", now).unwrap();
    let server = Server::https(mutual(&gateway, &below, &[record]));
    let port = server.port();
    let ask = |own| ask(port, "localhost", authority.root(), own);
    assert_eq!(ask(Some((&good.0, &good.1))).unwrap(), "gpu-7");
    assert_eq!(
        ask(Some((&service_client.leaf, &service_client.key))).unwrap(),
        "no node"
    );
    for (who, own) in [
        ("without a certificate", None),
        ("revoked", Some((&removed.0, &removed.1))),
        ("issued beside", Some((&elsewhere.0, &elsewhere.1))),
        ("a stranger", Some((&stranger.0, &stranger.1))),
        ("a server", Some((&not_a_client.leaf, &not_a_client.key))),
    ] {
        let refused = ask(own);
        assert!(refused.is_err(), "{who}: {refused:?}");
    }

    let root_pem = files.write("root.pem", authority.root_pem());
    let curl = |leaf: &Leaf, key: &PrivateKey| {
        let leaf = files.write("own.pem", &leaf.chain_pem);
        let key = files.write("own.key", key.to_pem().as_bytes());
        curl(port, "localhost", &root_pem, &["--cert", &leaf, "--key", &key])
    };
    assert!(curl(&good.0, &good.1).accepted().ends_with("gpu-7"));
    curl(&removed.0, &removed.1).refused("revoked");
    curl(&elsewhere.0, &elsewhere.1).refused("unknown");
}

/// `openssl s_server`, killed when it is dropped.
struct OpensslServer {
    child: Child,
    port: u16,
}

impl OpensslServer {
    fn start(certificate: &str, chain: &str, key: &str) -> Self {
        let mut child = Command::new("openssl")
            .args([
                "s_server",
                "-accept",
                "127.0.0.1:0",
                "-cert",
                certificate,
                "-cert_chain",
                chain,
                "-key",
                key,
                "-www",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs openssl, which can't be run: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next().expect("s_server ended").unwrap();
            if let Some(address) = line.strip_prefix("ACCEPT ") {
                break address.rsplit_once(':').unwrap().1.parse().unwrap();
            }
        };
        // What it prints on must stay open.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for OpensslServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_rustls_client_accepts_our_certificate_at_an_openssl_server() {
    let now = Timestamp::now();
    let files = Files::new();
    let authority = root(now);
    let below = intermediate(&authority, now);
    let issued = below
        .issue(&service(&["localhost"], Purpose::Server), Algorithm::Rsa2048, now)
        .unwrap();
    let leaf = files.write("leaf.pem", &issued.leaf.certificate_pem);
    let chain = files.write("chain.pem", vault::pki::encode_certificates(below.intermediates()));
    let key = files.write("key.pem", issued.key.to_pem().as_bytes());
    let server = OpensslServer::start(&leaf, &chain, &key);
    assert!(
        ask(server.port, "localhost", authority.root(), None)
            .unwrap()
            .contains("s_server")
    );
    ask(server.port, "localhost", root(now).root(), None).unwrap_err();
}
