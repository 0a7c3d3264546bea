//! Who this node is: `identity.json` in its data folder, made by joining.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName, Reason,
    error::ErrorBody,
    op::{JoinRequest, Joined, NodeCert, NodeCertRequest, NodeCertify, NodeJoin, Operation, path},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use serde::{Deserialize, Serialize};

use vault::tls::{self, Trust};

use super::{
    Address, AgentError,
    certificate::{self, Certificate},
    channel,
    http::{self, HttpError},
};

const FILE: &str = "identity.json";

/// The secret of a node that is about to join, until it has.
const JOINING: &str = "joining.secret";

/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// How long joining may take.
const JOIN_LIMIT: Duration = Duration::from_secs(30);

/// Who a node is. The credential is its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its name.
    pub name: NodeName,
    /// What it proves itself with.
    pub credential: String,
    /// Where its gateway is.
    pub gateway: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .field("gateway", &self.gateway)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity in a data folder. `None`: this node has never joined.
    ///
    /// # Errors
    /// The file can't be read, or isn't an identity.
    pub fn load(data: &Path) -> Result<Option<Self>, AgentError> {
        let file = data.join(FILE);
        let failed = |source| AgentError::Data {
            path: file.clone(),
            source,
        };
        match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| failed(e.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Keeps it, readable by its owner alone; on disk when this returns.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, data: &Path) -> Result<(), AgentError> {
        let file = data.join(FILE);
        let saved = serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|text| write_private(data, FILE, &text));
        saved.map_err(|source| AgentError::Data { path: file, source })?;
        // The secret is in the identity now. Where it can't be removed it does no harm.
        let _ = fs::remove_file(data.join(JOINING));
        Ok(())
    }
}

/// Writes a file that only its owner can read; on disk when this returns.
pub(super) fn write_private(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    out.write_all(text)?;
    out.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// The secret that a node will prove itself with once it has joined: kept before it asks, so that whoever asks again
/// after an answer was lost is known.
///
/// # Errors
/// It can't be read or written.
pub(super) fn joining_secret(data: &Path) -> Result<String, AgentError> {
    let file = data.join(JOINING);
    let secret = || -> io::Result<String> {
        match fs::read_to_string(&file) {
            // One that was cut short is of no use.
            Ok(secret) if secret.len() == SECRET_BYTES * 2 => return Ok(secret),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut random = [0; SECRET_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        write_private(data, JOINING, secret.as_bytes())?;
        Ok(secret)
    };
    secret().map_err(|source| AgentError::Data { path: file, source })
}

/// How a node joins.
pub(super) struct Joining<'a> {
    /// Where.
    pub(super) gateway: &'a Address,
    /// The join token, with the fingerprint of the fleet's root where it has one.
    pub(super) token: &'a str,
    /// The name that it wants.
    pub(super) name: NodeName,
    /// It insists on the name; otherwise the gateway may give it a longer one.
    pub(super) exact: bool,
    /// See [`joining_secret`].
    pub(super) secret: String,
    /// Whom it trusts, if not by the token's fingerprint.
    pub(super) authority: Option<&'a Path>,
}

/// Makes this node known to a gateway, and gets its certificate.
///
/// # Errors
/// The gateway doesn't answer, isn't the one that the token is of, or doesn't want this node.
pub(super) async fn join(joining: Joining<'_>) -> Result<(Identity, Certificate), AgentError> {
    let Joining {
        gateway,
        token,
        name,
        exact,
        secret,
        authority,
    } = joining;
    let refuse = |error: ApiError| AgentError::Join {
        gateway: gateway.to_string(),
        error: Box::new(error),
    };
    let (token, fingerprint) = split(token);
    let csr =
        certificate::request().map_err(|e| refuse(ApiError::internal("no key can be made").cause(e.to_string())))?;
    let config = match gateway.tls() {
        false => None,
        true => {
            let trust = trust(fingerprint, authority).map_err(refuse)?;
            let config = tls::client_config(&trust, None);
            let config = config.map_err(|e| refuse(ApiError::internal("TLS can't be set up").cause(e.to_string())))?;
            Some(Arc::new(config))
        }
    };
    let asked = JoinRequest {
        name,
        exact,
        secret: Some(secret),
        certificate_request: Some(csr.request_pem.clone()),
    };
    let body = serde_json::to_vec(&asked).map_err(|e| refuse(ApiError::internal(e.to_string())))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path(NodeJoin::NAME))
        .header(header::HOST, gateway.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| refuse(ApiError::invalid("join", e.to_string())))?;
    let exchange = async {
        {
            let stream = channel::connect(gateway, config.as_ref()).await?;
            http::over(&gateway.to_string(), stream, request).await
        }
    };
    let (status, body) = match tokio::time::timeout(JOIN_LIMIT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(HttpError::Channel(error))) => return Err(refuse(error.to_api())),
        Ok(Err(error)) => return Err(refuse(unreachable_gateway(gateway, &error))),
        Err(_) => {
            let message = format!(
                "the gateway at {gateway} didn't answer within {} s",
                JOIN_LIMIT.as_secs()
            );
            return Err(refuse(ApiError::new(ErrorCode::TimedOut, message)));
        }
    };
    if !status.is_success() {
        let error = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error);
        return Err(refuse(error.unwrap_or_else(|_| {
            ApiError::internal(format!("{gateway} answered with status {status}"))
                .hint("check that this is the address of a Clawbernetes gateway")
        })));
    }
    let joined: Joined = serde_json::from_slice(&body)
        .map_err(|e| refuse(ApiError::internal("the gateway's answer can't be read").cause(e.to_string())))?;
    let given = joined
        .certificate
        .ok_or_else(|| refuse(ApiError::internal("the gateway gave no certificate")))?;
    let certificate = Certificate::new(given, &csr.key, certificate::jitter(&joined.name))
        .map_err(|e| refuse(ApiError::internal("the gateway's certificate can't be used").cause(e.to_string())))?;
    // What is trusted from now on is what the token speaks of, and nothing that anybody put in between.
    if let Some(fingerprint) = fingerprint
        && certificate.fingerprint().as_deref() != Some(fingerprint)
    {
        let message = "the gateway's authority isn't the one that the token is of";
        return Err(refuse(
            ApiError::new(ErrorCode::AuthFailed, message)
                .because(Reason::CertificateForeign)
                .hint("get a new token from the gateway itself: clawbernetes auth join-token"),
        ));
    }
    let identity = Identity {
        name: joined.name,
        credential: joined.credential,
        gateway: gateway.to_string(),
    };
    Ok((identity, certificate))
}

/// A token, and the fingerprint of the fleet's root behind it. `None`: it has none.
fn split(token: &str) -> (&str, Option<&str>) {
    match token.rsplit_once('.') {
        Some((token, fingerprint)) if fingerprint.len() == 64 => (token, Some(fingerprint)),
        _ => (token, None),
    }
}

/// Whom a node that joins trusts.
fn trust(fingerprint: Option<&str>, authority: Option<&Path>) -> Result<Trust, ApiError> {
    let Some(file) = authority else {
        return Ok(fingerprint.map_or(Trust::System, |fingerprint| Trust::Fingerprint(fingerprint.to_owned())));
    };
    let unusable = |cause: String| {
        ApiError::invalid("ca", format!("{} holds no authority's certificate", file.display())).cause(cause)
    };
    let text = fs::read_to_string(file).map_err(|e| unusable(e.to_string()))?;
    let root = vault::pki::certificates(&text).map_err(|e| unusable(e.to_string()))?;
    let root = root
        .into_iter()
        .next_back()
        .ok_or_else(|| unusable("it is empty".to_owned()))?;
    Ok(Trust::Root(root))
}

/// The answer to [`NodeCertify`]: a new certificate for this node. `config`: how TLS is spoken, with the old certificate
/// where it still holds.
///
/// # Errors
/// The gateway doesn't answer or doesn't give one.
pub(super) async fn certify(
    gateway: &Address,
    identity: &Identity,
    config: Option<&Arc<rustls::ClientConfig>>,
) -> Result<Certificate, ApiError> {
    let csr = certificate::request().map_err(|e| ApiError::internal("no key can be made").cause(e.to_string()))?;
    let asked = NodeCertRequest {
        request: csr.request_pem.clone(),
    };
    let body = serde_json::to_vec(&asked).map_err(|e| ApiError::internal(e.to_string()))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path(NodeCertify::NAME))
        .header(header::HOST, gateway.authority())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", identity.credential))
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let exchange = async {
        {
            let stream = channel::connect(gateway, config).await?;
            http::over(&gateway.to_string(), stream, request).await
        }
    };
    let (status, body) = match tokio::time::timeout(JOIN_LIMIT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(HttpError::Channel(error))) => return Err(error.to_api()),
        Ok(Err(error)) => return Err(unreachable_gateway(gateway, &error)),
        Err(_) => return Err(ApiError::new(ErrorCode::TimedOut, "the gateway didn't answer in time")),
    };
    if !status.is_success() {
        let error = serde_json::from_slice::<ErrorBody>(&body).map(|body| body.error);
        return Err(error.unwrap_or_else(|_| ApiError::internal(format!("{gateway} answered with status {status}"))));
    }
    let unusable = |cause: String| ApiError::internal("the gateway's answer can't be used").cause(cause);
    let given: NodeCert = serde_json::from_slice(&body).map_err(|e| unusable(e.to_string()))?;
    Certificate::new(given, &csr.key, certificate::jitter(&identity.name)).map_err(|e| unusable(e.to_string()))
}

fn unreachable_gateway(gateway: &Address, error: &http::HttpError) -> ApiError {
    let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    ApiError::new(
        ErrorCode::ConnectionRefused,
        format!("the gateway at {gateway} can't be reached"),
    )
    .cause(cause)
    .hint("start it with: clawbernetes gateway serve")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_identity_is_kept_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Identity::load(folder.path()).unwrap().is_none());
        let identity = Identity {
            name: NodeName::new("gpu-1"),
            credential: "secret".to_owned(),
            gateway: "ws://localhost:9000".to_owned(),
        };
        identity.save(folder.path()).unwrap();
        identity.save(folder.path()).unwrap();
        assert_eq!(Identity::load(folder.path()).unwrap(), Some(identity.clone()));
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{identity:?}").contains("secret"));
        fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Identity::load(folder.path()).is_err());
    }
}
