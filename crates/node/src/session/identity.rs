//! Who this node is: `identity.json` in its data folder, made by joining.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use api::{
    ApiError, ErrorCode, NodeName,
    error::ErrorBody,
    op::{JoinRequest, Joined, NodeJoin, Operation, path},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header};
use serde::{Deserialize, Serialize};

use super::{Address, AgentError, http};

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
fn write_private(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
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

/// Makes this node known to a gateway.
///
/// `exact`: it insists on the name; otherwise the gateway may give it a longer one. `secret`: see [`joining_secret`].
///
/// # Errors
/// The gateway doesn't answer or doesn't want it.
pub(super) async fn join(
    gateway: &Address,
    token: &str,
    name: NodeName,
    exact: bool,
    secret: String,
) -> Result<Identity, AgentError> {
    let authority = gateway.authority();
    let refuse = |error: ApiError| AgentError::Join {
        gateway: gateway.to_string(),
        error: Box::new(error),
    };
    let asked = JoinRequest {
        name,
        exact,
        secret: Some(secret),
        certificate_request: None,
    };
    let body = serde_json::to_vec(&asked).map_err(|e| refuse(ApiError::internal(e.to_string())))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path(NodeJoin::NAME))
        .header(header::HOST, &authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| refuse(ApiError::invalid("join", e.to_string())))?;
    let (status, body) = match tokio::time::timeout(JOIN_LIMIT, http::send(&authority, request)).await {
        Ok(Ok(answer)) => answer,
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
    Ok(Identity {
        name: joined.name,
        credential: joined.credential,
        gateway: gateway.to_string(),
    })
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
