//! An identity provider of this process: its document, its keys, and logins for command lines (RFC 8628).

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use vault::pki::{self, PrivateKey};

/// As what the fleet is known to it.
pub const CLIENT: &str = "gpu-fleet";

/// A key that it signs with.
pub struct Key {
    kid: String,
    algorithm: Algorithm,
    signs: EncodingKey,
}

impl Key {
    pub fn rsa(kid: &str) -> Self {
        let key = PrivateKey::generate(pki::Algorithm::Rsa2048).unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::RS256,
            signs: EncodingKey::from_rsa_pem(key.to_pem().as_bytes()).unwrap(),
        }
    }

    pub fn ec(kid: &str) -> Self {
        let key = PrivateKey::generate(pki::Algorithm::EcdsaP256).unwrap();
        Self {
            kid: kid.to_owned(),
            algorithm: Algorithm::ES256,
            signs: EncodingKey::from_ec_pem(key.to_pem().as_bytes()).unwrap(),
        }
    }

    /// Its public part.
    pub fn shown(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.signs, self.algorithm).unwrap();
        key.common.key_id = Some(self.kid.clone());
        serde_json::to_value(key).unwrap()
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signs).unwrap()
    }
}

/// What it shows and answers.
pub struct State {
    pub keys: Vec<Value>,
    /// What the token endpoint answers, one after the other; the last one again and again.
    pub answers: VecDeque<(u16, Value)>,
    /// Whether it has logins for command lines.
    pub device: bool,
    /// Seconds that its codes work.
    pub expires_in: u64,
    /// What it was asked: paths and bodies.
    pub asked: Vec<(String, String)>,
    stopped: bool,
}

/// The provider.
pub struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: Option<JoinHandle<()>>,
}

impl Provider {
    pub fn start(key: &Key) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            keys: vec![key.shown()],
            answers: VecDeque::new(),
            device: true,
            expires_in: 600,
            asked: Vec::new(),
            stopped: false,
        }));
        let shared = Arc::clone(&state);
        let serving = std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if lock(&shared).stopped {
                    return;
                }
                serve(socket, address, &shared);
            }
        });
        Self {
            address,
            state,
            serving: Some(serving),
        }
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// From now on whoever logs in gets this ID token.
    pub fn grants(&self, id_token: &str) {
        self.state().answers = [(200, json!({"access_token": "x", "id_token": id_token}))].into();
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|(asked, _)| asked == path).count()
    }

    /// What it says of Ada, with these claims in place of its own; those that are null are left out.
    pub fn claims(&self, others: Value) -> Value {
        let now = api::Timestamp::now().as_second();
        let mut claims = json!({
            "iss": self.issuer(), "aud": CLIENT, "sub": "u-7", "iat": now, "exp": now + 300,
            "email": "ada@lab.example", "email_verified": true, "groups": ["lab", "gpu-users"],
        });
        let all = claims.as_object_mut().unwrap();
        for (name, value) in others.as_object().unwrap() {
            all.insert(name.clone(), value.clone());
        }
        all.retain(|_, value| !value.is_null());
        claims
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.state().stopped = true;
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut socket: TcpStream, address: SocketAddr, state: &Mutex<State>) {
    let Some((path, body)) = read(&mut socket) else { return };
    let (status, answer) = answer(&path, address, &mut lock(state));
    lock(state).asked.push((path, body));
    let text = answer.to_string();
    let _ = write!(
        socket,
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    );
}

/// The path and the body of a request.
fn read(socket: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()));
            }
        }
        match socket.read(&mut chunk) {
            Ok(count @ 1..) => bytes.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
}

fn answer(path: &str, address: SocketAddr, state: &mut State) -> (u16, Value) {
    let at = |path: &str| format!("http://{address}{path}");
    match path {
        "/.well-known/openid-configuration" => {
            let mut document = json!({"issuer": at(""), "jwks_uri": at("/keys"), "token_endpoint": at("/token")});
            if state.device {
                document["device_authorization_endpoint"] = json!(at("/device"));
            }
            (200, document)
        }
        "/keys" => (200, json!({"keys": state.keys})),
        "/device" => (
            200,
            json!({
                "device_code": "d-1", "user_code": "WDJB-MJHT", "verification_uri": at("/activate"),
                "verification_uri_complete": at("/activate?user_code=WDJB-MJHT"),
                "expires_in": state.expires_in, "interval": 0,
            }),
        ),
        "/token" if state.answers.len() > 1 => state.answers.pop_front().unwrap(),
        "/token" => state.answers.front().cloned().unwrap(),
        _ => (404, json!({})),
    }
}
