//! Operations on certificates, and what relying parties fetch: the authority, the list of revoked ones, OCSP.

use std::{sync::Arc, time::Duration};

use api::{
    ApiError, NodeName, Timestamp,
    op::{
        CertAlgorithm, CertAuthority, CertFilter, CertInfo, CertIssueRequest, CertPurpose, CertRevocations,
        CertRevokeRequest, CertRotateRequest, CertStatus, Empty, IssuedCert, NodeCert, RevocationReason,
    },
    time,
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use vault::pki::{
    self, Algorithm, Certificate, Issued, Kind, Leaf, OcspStatus, Purpose, Reason, Request, Status, Subject, Validity,
    answer as ocsp_answer, encode_certificates,
};

use super::{App, face::Call};
use crate::{
    draft::Draft,
    hub::now,
    trust::Trust,
    view::{Versioned, View},
};

/// How long a list of revoked certificates counts, and an answer about one: after a revocation, the time until
/// whoever keeps them notices.
const REVOCATIONS_VALID: Duration = Duration::from_secs(24 * 3_600);
const OCSP_VALID: Duration = Duration::from_secs(3_600);
/// How long a node's certificate holds; it is renewed when two thirds of that are over.
const NODE_VALIDITY: Duration = Duration::from_secs(30 * 86_400);

/// What can't be issued, for a caller.
pub fn refused(error: &pki::Error) -> ApiError {
    match error.field() {
        Some(field) => ApiError::invalid(field, error.to_string()),
        None => ApiError::internal("the certificate can't be issued").cause(error.to_string()),
    }
}

/// `cert.issue`
pub async fn issue(call: Call, request: CertIssueRequest) -> Result<IssuedCert, ApiError> {
    api::secret::check_secret_name("name", &request.name)?;
    let family = match request.algorithm {
        CertAlgorithm::Ecdsa => "ecdsa",
        CertAlgorithm::Rsa => "rsa",
    };
    let algorithm = Algorithm::parse(family, request.key_size).map_err(|e| refused(&e))?;
    let sans: Result<_, _> = request.sans.iter().map(|san| san.parse::<pki::San>()).collect();
    let asked = Request {
        subject: Subject::Service {
            name: request.name.parse().map_err(|e| refused(&e))?,
            sans: sans.map_err(|e| refused(&e))?,
            purpose: match request.purpose {
                CertPurpose::Both => Purpose::Both,
                CertPurpose::Server => Purpose::Server,
                CertPurpose::Client => Purpose::Client,
            },
        },
        validity: Validity::Exactly(request.validity.duration()),
    };
    let (trust, at, by) = (&call.app.trust, now(), call.actor());
    let issued = make(trust, &asked, algorithm, at).await?;
    let record = Certificate::new(&trust.authority, &asked, &issued.leaf, &by, at);
    call.app
        .hub
        .decide(|view| {
            if let Some(there) = newest(view, &request.name)
                && !matches!(there.status(at), Status::Expired | Status::Revoked)
            {
                return Err(ApiError::new(
                    api::ErrorCode::AlreadyExists,
                    format!(
                        "there is a certificate '{}', valid until {}",
                        request.name, there.not_after
                    ),
                )
                .hint(format!(
                    "clawbernetes cert rotate {0} --force, or cert revoke {0} first",
                    request.name
                )));
            }
            let mut draft = Draft::new();
            draft.put_cert(None, &record);
            Ok(Some(draft))
        })
        .await?;
    Ok(handed_out(trust, &record, &issued, at))
}

/// Makes a key and a certificate for it, apart from what serves sockets: a long RSA key takes seconds.
async fn make(trust: &Arc<Trust>, asked: &Request, algorithm: Algorithm, at: Timestamp) -> Result<Issued, ApiError> {
    let (trust, asked) = (Arc::clone(trust), asked.clone());
    let made = tokio::task::spawn_blocking(move || trust.authority.issue(&asked, algorithm, at)).await;
    made.map_err(|e| ApiError::internal("the certificate wasn't made").cause(e.to_string()))?
        .map_err(|e| refused(&e))
}

fn handed_out(trust: &Trust, record: &Certificate, issued: &Issued, at: Timestamp) -> IssuedCert {
    IssuedCert {
        info: info(record, at),
        certificate: issued.leaf.certificate_pem.clone(),
        chain: issued.leaf.chain_pem.clone(),
        key: issued.key.to_pem().to_string(),
        authority: trust.authority.root_pem(),
    }
}

/// The newest of the services' certificates of a name.
fn newest<'a>(view: &'a View, name: &str) -> Option<&'a Versioned<Certificate>> {
    let named = view
        .certs()
        .filter(|cert| cert.kind == Kind::Service && cert.name.as_str() == name);
    named.max_by_key(|cert| (cert.replaced_by.is_none(), cert.issued_at))
}

fn missing(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no certificate '{name}'")).hint("clawbernetes cert list")
}

/// `cert.list`
pub async fn list(call: Call, filter: CertFilter) -> Result<Vec<CertInfo>, ApiError> {
    let at = now();
    let horizon = filter.expiring.map(|within| time::after(at, within));
    let view = call.app.hub.view();
    let mut found: Vec<CertInfo> = view
        .certs()
        .filter(|cert| filter.all || cert.kind == Kind::Service)
        .filter(|cert| {
            horizon.is_none_or(|horizon| {
                cert.not_after <= horizon && matches!(cert.status(at), Status::Valid | Status::Expiring)
            })
        })
        .map(|cert| info(cert, at))
        .collect();
    drop(view);
    if filter.all {
        let own = own(&call.app.trust, at);
        if horizon.is_none_or(|horizon| own.not_after <= horizon) {
            found.push(own);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name).then(b.not_before.cmp(&a.not_before)));
    Ok(found)
}

/// The gateway's own, which is kept in memory alone.
fn own(trust: &Trust, at: Timestamp) -> CertInfo {
    let leaf: Leaf = trust.own.leaf();
    let request = trust.own.request();
    let mut own = info(
        &Certificate::new(&trust.authority, &request, &leaf, "gateway", leaf.not_before),
        at,
    );
    own.purpose = CertPurpose::Server;
    own
}

/// `cert.rotate`
pub async fn rotate(call: Call, request: CertRotateRequest) -> Result<IssuedCert, ApiError> {
    let (trust, at, by) = (&call.app.trust, now(), call.actor());
    let old = {
        let view = call.app.hub.view();
        newest(&view, &request.name)
            .ok_or_else(|| missing(&request.name))?
            .clone()
    };
    let may = |old: &Certificate| {
        old.may_rotate(request.force, at).map_err(|e| {
            ApiError::conflict(e.to_string()).hint(format!("clawbernetes cert rotate {} --force", request.name))
        })
    };
    may(&old)?;
    let asked = old.renewal();
    let issued = make(trust, &asked, old.algorithm, at).await?;
    let record = Certificate::new(&trust.authority, &asked, &issued.leaf, &by, at);
    call.app
        .hub
        .decide(|view| {
            let old = newest(view, &request.name).ok_or_else(|| missing(&request.name))?;
            may(old)?;
            let revoke_by = request.revoke_old.then_some(by.as_str());
            let replaced = Certificate::clone(old).replaced(&record.serial, revoke_by, at);
            let mut draft = Draft::new();
            draft.put_cert(Some(old.revision), &replaced);
            draft.put_cert(None, &record);
            Ok(Some(draft))
        })
        .await?;
    Ok(handed_out(trust, &record, &issued, at))
}

/// `cert.revoke`
pub async fn revoke(call: Call, request: CertRevokeRequest) -> Result<CertInfo, ApiError> {
    let (at, by) = (now(), call.actor());
    let reason = match request.reason {
        RevocationReason::Unspecified => Reason::Unspecified,
        RevocationReason::KeyCompromise => Reason::KeyCompromise,
        RevocationReason::Superseded => Reason::Superseded,
        RevocationReason::CessationOfOperation => Reason::CessationOfOperation,
    };
    let (mut revoked, mut node) = (None, None);
    call.app
        .hub
        .decide(|view| {
            let cert = newest(view, &request.name).or_else(|| view.cert(&request.name));
            let cert = cert.ok_or_else(|| missing(&request.name))?;
            let record = Certificate::clone(cert).revoke(reason, &by, at);
            let record = record.map_err(|e| ApiError::conflict(e.to_string()))?;
            let mut draft = Draft::new();
            draft.put_cert(Some(cert.revision), &record);
            node = (record.kind == Kind::Node).then(|| NodeName::new(record.name.as_str()));
            revoked = Some(info(&record, at));
            Ok(Some(draft))
        })
        .await?;
    // Whoever has the key may have a session open; the node itself comes again with another certificate.
    if let Some(node) = node {
        call.app.live.end(&node);
    }
    revoked.ok_or_else(|| ApiError::internal("no certificate was revoked"))
}

/// `cert.ca`
pub async fn ca(call: Call, _: Empty) -> Result<CertAuthority, ApiError> {
    let authority = &call.app.trust.authority;
    // Its own certificate and those above it, but for the root.
    let between = match authority.intermediates() {
        [] => String::new(),
        all => encode_certificates(all),
    };
    Ok(CertAuthority {
        certificate: authority.root_pem(),
        intermediates: between,
        fingerprint: authority.fingerprint(),
        not_after: authority.not_after(),
    })
}

/// `cert.crl`
pub async fn crl(call: Call, _: Empty) -> Result<CertRevocations, ApiError> {
    let (crl, number, revoked) = sign_crl(&call.app)?;
    Ok(CertRevocations {
        crl: crl.pem,
        number,
        revoked,
        this_update: crl.this_update,
        next_update: crl.next_update,
    })
}

/// The list as of now. Its number is the store's revision, which grows with whatever changes.
fn sign_crl(app: &App) -> Result<(pki::Crl, u64, u32), ApiError> {
    let (certs, number): (Vec<Versioned<Certificate>>, u64) = {
        let view = app.hub.view();
        (
            view.certs().filter(|c| c.revoked.is_some()).cloned().collect(),
            view.revision().0,
        )
    };
    let at = now();
    let revoked = certs.iter().filter(|c| c.not_after >= at).count() as u32;
    let listed = certs.iter().map(|c| &**c);
    let crl = app.trust.authority.crl(listed, number, at, REVOCATIONS_VALID);
    Ok((crl.map_err(|e| refused(&e))?, number, revoked))
}

fn info(cert: &Certificate, at: Timestamp) -> CertInfo {
    CertInfo {
        name: cert.name.to_string(),
        serial: cert.serial.clone(),
        status: match cert.status(at) {
            Status::Valid => CertStatus::Valid,
            Status::Expiring => CertStatus::Expiring,
            Status::Expired => CertStatus::Expired,
            Status::Revoked => CertStatus::Revoked,
            Status::Replaced => CertStatus::Replaced,
        },
        sans: cert.sans.iter().map(ToString::to_string).collect(),
        algorithm: cert.algorithm.to_string(),
        purpose: match cert.purpose {
            Purpose::Server => CertPurpose::Server,
            Purpose::Client => CertPurpose::Client,
            Purpose::Both => CertPurpose::Both,
        },
        fingerprint: cert.fingerprint.clone(),
        not_before: cert.not_before,
        not_after: cert.not_after,
        renew_at: cert.due_at(),
        issued_by: cert.issued_by.clone(),
        revoked_at: cert.revoked.as_ref().map(|r| r.at),
        revoked_for: cert.revoked.as_ref().map(|r| r.reason.to_string()),
    }
}

/// A node's certificate, for a key of its own making, and the record to keep of it.
///
/// # Errors
/// `INVALID_ARGUMENT`: the signing request can't be accepted.
pub fn sign_for_node(
    trust: &Trust,
    node: &NodeName,
    request: &str,
    by: &str,
    at: Timestamp,
) -> Result<(NodeCert, Certificate), ApiError> {
    let wrong = |error: &pki::Error| ApiError::invalid("request", error.to_string());
    let asked = Request {
        subject: Subject::Node(node.as_str().parse().map_err(|e| wrong(&e))?),
        validity: Validity::AtMost(NODE_VALIDITY),
    };
    let leaf = trust.authority.sign(&asked, request, at).map_err(|e| wrong(&e))?;
    let record = Certificate::new(&trust.authority, &asked, &leaf, by, at);
    let cert = NodeCert {
        chain: leaf.chain_pem,
        authority: trust.authority.root_pem(),
        not_after: leaf.not_after,
    };
    Ok((cert, record))
}

/// What anybody may fetch: it is signed, or public.
pub fn routes(router: Router<Arc<App>>) -> Router<Arc<App>> {
    router
        .route("/pki/ca.pem", get(ca_pem))
        .route("/pki/crl.der", get(crl_der))
        .route("/pki/crl.pem", get(crl_pem))
        .route("/pki/ocsp", axum::routing::post(ocsp_post))
        .route("/pki/ocsp/{*request}", get(ocsp_get))
}

async fn ca_pem(State(app): State<Arc<App>>) -> Response {
    let kind = "application/x-pem-file";
    ([(header::CONTENT_TYPE, kind)], app.trust.authority.root_pem()).into_response()
}

async fn crl_der(State(app): State<Arc<App>>) -> Response {
    match sign_crl(&app) {
        Ok((crl, ..)) => ([(header::CONTENT_TYPE, "application/pkix-crl")], crl.der).into_response(),
        Err(error) => super::face::Failed(error).into_response(),
    }
}

async fn crl_pem(State(app): State<Arc<App>>) -> Response {
    match sign_crl(&app) {
        Ok((crl, ..)) => ([(header::CONTENT_TYPE, "application/x-pem-file")], crl.pem).into_response(),
        Err(error) => super::face::Failed(error).into_response(),
    }
}

async fn ocsp_post(State(app): State<Arc<App>>, request: Bytes) -> Response {
    ocsp(&app, &request)
}

async fn ocsp_get(State(app): State<Arc<App>>, Path(request): Path<String>) -> Response {
    match BASE64_STANDARD.decode(request.trim_start_matches('/')) {
        Ok(request) => ocsp(&app, &request),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

fn ocsp(app: &App, request: &[u8]) -> Response {
    let view = app.hub.view();
    let status = |_: &pki::Authority, serial: &str| match view.cert(serial) {
        None if serial == app.trust.own.leaf().serial => OcspStatus::Good,
        None => OcspStatus::Unknown,
        Some(cert) => match &cert.revoked {
            Some(revoked) => OcspStatus::Revoked {
                at: revoked.at,
                reason: revoked.reason,
            },
            None => OcspStatus::Good,
        },
    };
    let answer = ocsp_answer(&[&app.trust.authority], request, now(), OCSP_VALID, &status);
    ([(header::CONTENT_TYPE, "application/ocsp-response")], answer).into_response()
}
