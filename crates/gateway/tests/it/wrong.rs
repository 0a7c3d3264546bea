//! Wrong credentials, wrong certificates, and both at once: each is refused, and told for what it is.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use api::{Timestamp, op::NODE_SESSION_PATH};
use gateway::{
    Gateway, Limits, Options,
    trust::{self, AuthorityFiles},
};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use vault::{
    pki::{self, Algorithm, Authority, Csr, Issued, PrivateKey, Purpose, Request, San, Subject, Validity},
    tls::{self, Own, Shown, Trouble, Trust},
};

use crate::fixture::{Fixture, frame};

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);

fn hours_from_now(hours: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + hours * 3600).unwrap()
}

/// An authority whose key the test has too, as one from outside.
fn authority(name: &str) -> Authority {
    // Old enough to have issued what has expired.
    Authority::new_root(name, Algorithm::EcdsaP256, 1000 * HOUR, hours_from_now(-100)).unwrap()
}

fn node(name: &str) -> Subject {
    Subject::Node(name.parse().unwrap())
}

fn service(san: &str, purpose: Purpose) -> Subject {
    let sans = vec![san.parse::<San>().unwrap()];
    Subject::Service {
        name: "service".parse().unwrap(),
        sans,
        purpose,
    }
}

/// A certificate that holds for an hour, from so many hours from now.
fn issue(authority: &Authority, subject: Subject, from: i64) -> Issued {
    let request = Request {
        subject,
        validity: Validity::Exactly(HOUR),
    };
    authority
        .issue(&request, Algorithm::EcdsaP256, hours_from_now(from))
        .unwrap()
}

/// A certificate and its key.
#[derive(Clone)]
struct Papers {
    chain: String,
    key: PrivateKey,
}

impl From<Issued> for Papers {
    fn from(issued: Issued) -> Self {
        Self {
            chain: issued.leaf.chain_pem,
            key: issued.key,
        }
    }
}

impl Papers {
    fn serial(&self) -> String {
        pki::Peer::read(&pki::certificates(&self.chain).unwrap()[0])
            .unwrap()
            .serial
    }
}

/// A gateway whose authority the test holds, and the nodes `n1` and `n2` with their certificates.
struct World {
    fixture: Fixture,
    authority: Authority,
    nodes: [(String, Papers); 2],
    _files: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let authority = authority("Fleet");
        let files = tempfile::tempdir().unwrap();
        let (chain, key) = (files.path().join("ca.pem"), files.path().join("ca.key"));
        std::fs::write(&chain, authority.chain_pem()).unwrap();
        std::fs::write(&key, authority.key().to_pem().as_bytes()).unwrap();
        let fixture = Fixture::with(Options {
            trust: trust::Options {
                authority: Some(AuthorityFiles { chain, key }),
                ..trust::Options::default()
            },
            limits: Limits {
                failure_burst: 1e9,
                ..Limits::default()
            },
            ..Options::default()
        })
        .await;
        let nodes = [join(&fixture, "n1").await, join(&fixture, "n2").await];
        Self {
            fixture,
            authority,
            nodes,
            _files: files,
        }
    }

    fn config(&self, own: Option<&Papers>) -> rustls::ClientConfig {
        let own = own.map(|papers| Own {
            chain: pki::certificates(&papers.chain).unwrap(),
            key: &papers.key,
        });
        tls::client_config(&Trust::Root(self.authority.root().clone()), own).unwrap()
    }

    /// One request over TLS; the status and the error's reason, or what TLS found wrong.
    async fn over_tls(&self, own: Option<&Papers>, request: &str) -> Result<(u16, String), Option<Trouble>> {
        let exchange = async {
            let stream = TcpStream::connect(self.fixture.gateway.address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let connector = TlsConnector::from(Arc::new(self.config(own)));
            let mut stream = connector.connect(name, stream).await?;
            stream.write_all(request.as_bytes()).await?;
            read_answer(&mut stream).await
        };
        let answer = tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("an answer in time");
        answer.map_err(|error| tls::trouble_of(&error))
    }
}

/// Reads an answer to its end, or to the beginning of a WebSocket.
async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<(u16, String)> {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status: u16 = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        if let Some((_, body)) = text.split_once("\r\n\r\n") {
            let body = body
                .lines()
                .find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|v| !v.is_number()));
            let reason = body
                .as_ref()
                .map(|body| body["error"]["reason"].as_str().unwrap_or("").to_owned());
            if status == 101 || reason.is_some() {
                return Ok((status, reason.unwrap_or_default()));
            }
        }
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::other(format!("it ended: {text}")));
        }
    }
}

async fn join(fixture: &Fixture, name: &str) -> (String, Papers) {
    let csr = Csr::new(Algorithm::EcdsaP256).unwrap();
    let wish = json!({"name": name, "exact": true, "certificateRequest": csr.request_pem});
    let joined = fixture.admin("node.join", &wish).await;
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{joined:?}")).to_owned();
    let papers = Papers {
        chain: text(&joined.body["certificate"]["chain"]),
        key: csr.key,
    };
    (text(&joined.body["credential"]), papers)
}

fn header(token: &str) -> String {
    match token {
        "" => String::new(),
        token => format!("authorization: Bearer {token}\r\n"),
    }
}

fn session(token: &str) -> String {
    format!(
        "GET {NODE_SESSION_PATH} HTTP/1.1\r\nhost: test\r\n{}connection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        header(token)
    )
}

fn call(operation: &str, token: &str) -> String {
    format!(
        "POST {} HTTP/1.1\r\nhost: test\r\n{}content-length: 2\r\n\r\n{{}}",
        api::op::path(operation),
        header(token)
    )
}

/// Tokens of the operators' kind, each wrong in its own way, and the reason for which it is refused.
async fn wrong_tokens(fixture: &Fixture) -> Vec<(String, &'static str)> {
    let create = async |expires: Value| {
        let wish = json!({"name": "brief", "role": "admin", "expires": expires});
        fixture.admin("auth.token.create", &wish).await.body
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let expired = text(&create(json!("1ms")).await["token"]);
    let revoked = create(json!("1h")).await;
    fixture.admin("auth.token.revoke", &json!({"id": revoked["id"]})).await;
    let good = fixture.gateway.admin_token.clone().unwrap();
    let (id, _) = good.rsplit_once('_').unwrap();
    let removed = join(fixture, "removed").await.0;
    assert_eq!(
        fixture.admin("node.remove", &json!({"id": "removed"})).await.status,
        200
    );
    let ended = async {
        while fixture
            .post("gateway.ping", Some(&expired), &json!({}), "")
            .await
            .status
            == 200
        {}
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("it expires");
    vec![
        ("nonsense".to_owned(), "token-malformed"),
        ("cbx_a_b".to_owned(), "token-malformed"),
        (format!("cbt_0123456789ab_{}", "0".repeat(64)), "token-unknown"),
        (format!("{id}_{}", "0".repeat(64)), "token-unknown"),
        (removed, "token-unknown"),
        (expired, "token-expired"),
        (text(&revoked["token"]), "token-revoked"),
    ]
}

/// What must come of a request over TLS.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    In,
    /// The gateway says so.
    Told(&'static str),
    /// TLS says so.
    Tls(Trouble),
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pair_of_wrong_things_has_its_reason() {
    let world = World::start().await;
    let (fixture, fleet) = (&world.fixture, &world.authority);
    let [(credential, own), (_, other)] = &world.nodes;
    let revoked = join(fixture, "n3").await;
    let answer = fixture.admin("cert.revoke", &json!({"name": revoked.1.serial()})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let removed = join(fixture, "n4").await;
    assert_eq!(fixture.admin("node.remove", &json!({"id": "n4"})).await.status, 200);
    let certificates: Vec<(&str, Option<Papers>, Comes)> = vec![
        ("its own", Some(own.clone()), Comes::In),
        ("none", None, Comes::Told("certificate-missing")),
        ("another's", Some(other.clone()), Comes::Told("certificate-wrong-name")),
        (
            "a service's",
            Some(issue(fleet, service("a.example", Purpose::Client), 0).into()),
            Comes::Told("certificate-wrong-use"),
        ),
        ("revoked", Some(revoked.1), Comes::Told("certificate-revoked")),
        ("a removed node's", Some(removed.1), Comes::Told("certificate-revoked")),
        // Signed by the right key, and in no record: as if it had been taken back.
        (
            "unheard of",
            Some(issue(fleet, node("n1"), 0).into()),
            Comes::Told("certificate-revoked"),
        ),
        (
            "expired",
            Some(issue(fleet, node("n1"), -2).into()),
            Comes::Tls(Trouble::Expired),
        ),
        // TLS has one alert for what isn't valid now, be it early or late (RFC 8446, section 6.2).
        (
            "not yet valid",
            Some(issue(fleet, node("n1"), 2).into()),
            Comes::Tls(Trouble::Expired),
        ),
        (
            "foreign",
            Some(issue(&authority("Foreign"), node("n1"), 0).into()),
            Comes::Tls(Trouble::Foreign),
        ),
        // Of the same name, with another key.
        (
            "forged",
            Some(issue(&authority("Fleet"), node("n1"), 0).into()),
            Comes::Tls(Trouble::Malformed),
        ),
        (
            "a server's",
            Some(issue(fleet, service("a.example", Purpose::Server), 0).into()),
            Comes::Tls(Trouble::WrongUse),
        ),
    ];
    let mut tokens = vec![(credential.clone(), "")];
    tokens.extend(wrong_tokens(fixture).await);
    for (what, papers, alone) in &certificates {
        let mut told = 0;
        for (token, wrong) in &tokens {
            let came = world.over_tls(papers.as_ref(), &session(token)).await;
            let expected = match (alone, *wrong) {
                (Comes::Tls(trouble), _) => Err(Some(*trouble)),
                (_, wrong) if !wrong.is_empty() => Ok((401, wrong.to_owned())),
                (Comes::In, _) => Ok((101, String::new())),
                (Comes::Told(reason), _) => Ok((401, (*reason).to_owned())),
            };
            // Where the gateway hangs up before the request is read, the alert may be lost with the connection.
            told += usize::from(came == expected);
            let lost = matches!(alone, Comes::Tls(_)) && came == Err(None);
            assert!(
                came == expected || lost,
                "{what} with {token} ({wrong}): {came:?}, not {expected:?}"
            );
        }
        // A wrong signature has no alert that is for certificates alone.
        assert!(told > 0 || *what == "forged", "{what} is never told");
        // An operator's call needs a token; with a good one, a certificate that TLS takes changes nothing.
        let admin = fixture.gateway.admin_token.as_deref().unwrap();
        let came = world.over_tls(papers.as_ref(), &call("gateway.ping", admin)).await;
        assert_eq!(
            came.is_ok_and(|came| came.0 == 200),
            !matches!(alone, Comes::Tls(_)),
            "{what}"
        );
        let came = world.over_tls(papers.as_ref(), &call("node.list", "")).await;
        let expected = match alone {
            Comes::Tls(_) => continue,
            Comes::In => (403, "certificate-wrong-use"),
            Comes::Told("certificate-missing") => (401, "token-missing"),
            Comes::Told("certificate-wrong-name") => (403, "certificate-wrong-use"),
            Comes::Told(reason) => (401, *reason),
        };
        assert_eq!(came, Ok((expected.0, expected.1.to_owned())), "{what}, alone");
    }
    for (token, wrong) in &tokens[1..] {
        let plain = fixture.post("node.list", Some(token), &json!({}), "").await;
        assert_eq!(
            (plain.status, &plain.body["error"]["reason"]),
            (401, &json!(wrong)),
            "{token}"
        );
    }
    world.fixture.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_that_is_over_says_why() {
    let fixture = Fixture::start().await;
    let make = async |wish: Value| {
        let made = fixture.admin("auth.join-token", &wish).await;
        made.body["token"].as_str().unwrap().to_owned()
    };
    let ask = async |token: &str, name: &str| {
        let wish = json!({"name": name, "exact": true});
        let answer = fixture.post("node.join", Some(token), &wish, "").await;
        (
            answer.status,
            answer.body["error"]["reason"].as_str().unwrap_or("").to_owned(),
        )
    };
    let once = make(json!({"expires": "1h", "uses": 1})).await;
    assert_eq!(ask(&once, "n1").await.0, 200);
    assert_eq!(ask(&once, "n2").await, (401, "token-used-up".to_owned()));
    let brief = make(json!({"expires": "50ms"})).await;
    let mut joined = 0;
    let refused = tokio::time::timeout(PATIENCE, async {
        loop {
            joined += 1;
            let (status, reason) = ask(&brief, &format!("b{joined}")).await;
            if status != 200 {
                break (status, reason);
            }
        }
    });
    // Expired ones are forgotten after a while.
    let refused = refused.await.expect("it expires");
    assert!(
        refused.0 == 401 && matches!(&*refused.1, "token-expired" | "token-unknown"),
        "{refused:?}"
    );
    fixture.gateway.stop().await;
}

/// A server that shows this certificate to whoever comes.
async fn server(papers: &Papers, authority: &Authority) -> SocketAddr {
    let mut chain = pki::certificates(&papers.chain).unwrap();
    chain.push(authority.root().clone());
    let shown = Arc::new(Shown::new(chain, &papers.key).unwrap());
    let config = tls::server_config(shown, authority.certificate().clone()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // What it comes to is seen at the other end.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.write_all(b"here").await;
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_takes_no_wrong_server() {
    let (fleet, foreign) = (authority("Fleet"), authority("Foreign"));
    let own = |purpose| service("127.0.0.1", purpose);
    let forged = authority("Fleet");
    for (what, issuer, subject, from, expected) in [
        ("right", &fleet, own(Purpose::Server), 0, Ok(())),
        ("expired", &fleet, own(Purpose::Server), -2, Err(Some(Trouble::Expired))),
        (
            "early",
            &fleet,
            own(Purpose::Server),
            2,
            Err(Some(Trouble::NotYetValid)),
        ),
        (
            "misnamed",
            &fleet,
            service("10.9.8.7", Purpose::Server),
            0,
            Err(Some(Trouble::WrongName)),
        ),
        (
            "a client's",
            &fleet,
            own(Purpose::Client),
            0,
            Err(Some(Trouble::WrongUse)),
        ),
        ("a node's", &fleet, node("n1"), 0, Err(Some(Trouble::WrongUse))),
        (
            "foreign",
            &foreign,
            own(Purpose::Server),
            0,
            Err(Some(Trouble::Foreign)),
        ),
        (
            "forged",
            &forged,
            own(Purpose::Server),
            0,
            Err(Some(Trouble::Malformed)),
        ),
    ] {
        let address = server(&issue(issuer, subject, from).into(), issuer).await;
        for trust in [
            Trust::Root(fleet.root().clone()),
            Trust::Fingerprint(fleet.fingerprint()),
        ] {
            let connector = TlsConnector::from(Arc::new(tls::client_config(&trust, None).unwrap()));
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let came = connector.connect(name, stream).await.map(|_| ());
            let came = came.map_err(|error| tls::trouble_of(&error));
            // Of the right name, with a signature by another key; by its fingerprint it is known to be another.
            let expected = match &trust {
                Trust::Fingerprint(_) if what == "forged" => Err(Some(Trouble::Foreign)),
                _ => expected,
            };
            assert_eq!(came, expected, "{what}, by {trust:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_elsewhere_speaks_in_the_clear() {
    let addresses = if_addrs::get_if_addrs().unwrap();
    let Some(address) = addresses
        .iter()
        .map(if_addrs::Interface::ip)
        .find(|ip| ip.is_ipv4() && !ip.is_loopback())
    else {
        eprintln!("this machine has no address but its own: calls from elsewhere can't be tried");
        return;
    };
    for insecure in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(Options {
            listen: ([0, 0, 0, 0], 0).into(),
            data: data.path().to_owned(),
            trust: trust::Options {
                insecure,
                ..trust::Options::default()
            },
            ..Options::default()
        })
        .await
        .unwrap();
        let token = gateway.admin_token.clone().unwrap();
        let at = SocketAddr::new(address, gateway.address.port());
        let (_, fingerprint) = token.rsplit_once('.').expect("a token that names its authority");
        let refused = (403, "tls-required".to_owned());
        let fine = (200, String::new());
        let plain = async |at: SocketAddr, request: String| {
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            tokio::time::timeout(PATIENCE, read_answer(&mut stream))
                .await
                .expect("an answer")
                .unwrap()
        };
        let elsewhere = plain(at, call("gateway.ping", &token)).await;
        assert_eq!(elsewhere, if insecure { fine.clone() } else { refused.clone() });
        if !insecure {
            for operation in ["cert.ca", "secret.list", "node.join", "event.watch"] {
                assert_eq!(plain(at, call(operation, &token)).await, refused, "{operation}");
            }
            assert_eq!(plain(at, session("")).await, refused);
        }
        let here = SocketAddr::from(([127, 0, 0, 1], at.port()));
        assert_eq!(plain(here, call("gateway.ping", &token)).await, fine);

        let trust = Trust::Fingerprint(fingerprint.to_owned());
        let connector = TlsConnector::from(Arc::new(tls::client_config(&trust, None).unwrap()));
        let stream = TcpStream::connect(at).await.unwrap();
        let mut stream = connector.connect(ServerName::from(address), stream).await.unwrap();
        stream.write_all(call("gateway.ping", &token).as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap(), fine);
        gateway.stop().await;
    }
}

/// Whether a word comes before the end.
async fn comes(stream: &mut (impl AsyncReadExt + Unpin), said: &mut Vec<u8>, word: &str) -> bool {
    let reading = async {
        while !String::from_utf8_lossy(said).contains(word) {
            if stream.read_buf(said).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("it neither comes nor ends")
}

/// When the gateway is told something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    /// Before a node that was let in says its first word.
    BeforeHello,
    /// Once its session has begun.
    AfterWelcome,
}

/// The session of `n1` over TLS ends when this is done.
async fn ends_after(world: &World, operation: &str, request: &Value, told: Told) {
    let (credential, own) = &world.nodes[0];
    let stream = TcpStream::connect(world.fixture.gateway.address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(world.config(Some(own))));
    let mut stream = connector
        .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
        .await
        .unwrap();
    stream.write_all(session(credential).as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().0, 101);
    let tell = async || {
        let answer = world.fixture.admin(operation, request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    if told == Told::BeforeHello {
        tell().await;
    }
    let hello = json!({ "type": "hello", "protocol": api::wire::PROTOCOL, "name": "n1", "labels": {}, "jobs": [], "inventory": {
        "hostname": "h", "cpu": 4, "memoryTotalBytes": 1 << 30, "arch": "x86_64", "agentVersion": "0",
        "cpuModel": null, "os": null, "kernel": null, "bootId": null, "gpus": [], "links": [], "notes": [],
        "engines": [{ "kind": "native", "version": null, "limitations": [] }],
    }});
    stream.write_all(&frame(&hello.to_string())).await.unwrap();
    let mut said = Vec::new();
    if told == Told::AfterWelcome {
        let welcome = comes(&mut stream, &mut said, "welcome").await;
        assert!(welcome, "{}", String::from_utf8_lossy(&said));
        tell().await;
    }
    // It ends: nothing that could come holds these words.
    assert!(!comes(&mut stream, &mut said, "no such words").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_nodes_session_ends() {
    for told in [Told::BeforeHello, Told::AfterWelcome] {
        let world = World::start().await;
        ends_after(&world, "node.remove", &json!({"id": "n1", "force": true}), told).await;
        world.fixture.gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_certificate() {
    for told in [Told::BeforeHello, Told::AfterWelcome] {
        let world = World::start().await;
        let serial = world.nodes[0].1.serial();
        ends_after(&world, "cert.revoke", &json!({"name": serial}), told).await;
        world.fixture.gateway.stop().await;
    }
}
