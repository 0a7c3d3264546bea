//! Operations on nodes.

use api::{
    ApiError, ErrorCode, NodeName, Reason,
    auth::Role,
    id::check_name,
    node::{Node, NodeDetail, NodeView},
    op::{
        DrainRequest, JoinRequest, Joined, LabelRequest, NodeCert, NodeCertRequest, NodeFilter, NodeRef, RemoveRequest,
        TaintRequest,
    },
};

use vault::pki::Certificate;

use super::{App, cert_ops::sign_for_node, face::Call, views};
use crate::{
    auth::{self, Kind},
    decide::nodes,
    draft::{Draft, node_event},
    hub::now,
    view::{Versioned, View, gone},
};

/// Most labels or taints of a node, and longest label value.
const LABELS_MAX: usize = 128;
const LABEL_VALUE_MAX: usize = 256;

/// What a join token that has ended is answered.
fn expired() -> ApiError {
    ApiError::new(ErrorCode::AuthFailed, "the join token has expired")
        .because(Reason::TokenExpired)
        .hint("make a new one: clawbernetes auth join-token")
}

/// The name with as much of the suffix as tells it apart: many machines may come with one name.
fn free_name(wanted: &NodeName, suffix: &str, taken: impl Fn(&NodeName) -> bool) -> Option<NodeName> {
    let stem: String = wanted.as_str().chars().take(40).collect();
    let stem = stem.trim_end_matches(['-', '.']);
    (4..=suffix.len())
        .map(|length| NodeName::new(format!("{stem}-{}", &suffix[..length])))
        .find(|name| !taken(name))
}

/// `node.join`
pub async fn join(call: Call, request: JoinRequest) -> Result<Joined, ApiError> {
    check_name(request.name.as_str())
        .map_err(|e| ApiError::invalid("name", format!("'{}' is no name of a node: {e}", request.name)))?;
    request.secret.as_deref().map_or(Ok(()), auth::check_secret)?;
    let suffix = auth::new_id()?;
    let (mut joined, mut certificate) = (None, None);
    call.app
        .hub
        .decide(|view| {
            // Asked again, because the first answer was lost: it is known, and nothing is used up.
            if let Some(secret) = &request.secret {
                let (_, hash) = auth::credential(Kind::Node, "", secret);
                if let Some(node) = view.nodes().find(|node| node.credential_hash == hash) {
                    let (credential, _) = auth::credential(Kind::Node, node.name.as_str(), secret);
                    joined = Some((node.name.clone(), credential));
                    let Some(csr) = &request.certificate_request else {
                        return Ok(None);
                    };
                    let (cert, record) = sign_for_node(&call.app.trust, &node.name, csr, &call.actor(), now())?;
                    certificate = Some(cert);
                    let mut draft = Draft::new();
                    draft.node_unchanged(node);
                    draft.put_cert(None, &record);
                    return Ok(Some(draft));
                }
            }
            let token = view.join_token(&call.identity.token_id);
            // It may have ended since the call came in; the store lets go of it before the view hears of that.
            if token.is_some_and(|token| token.expires_at <= now()) {
                return Err(expired());
            }
            if token.is_some_and(|token| token.uses_left == Some(0)) {
                return Err(ApiError::new(ErrorCode::AuthFailed, "the join token has been used up")
                    .because(Reason::TokenUsedUp)
                    .hint("make a new one: clawbernetes auth join-token"));
            }
            let name = match (view.node(&request.name).is_some(), request.exact) {
                (false, _) => request.name.clone(),
                (true, true) => {
                    return Err(ApiError {
                        field: Some("name".to_owned()),
                        ..ApiError::new(
                            ErrorCode::AlreadyExists,
                            format!("a node named '{}' exists", request.name),
                        )
                    }
                    .hint(format!(
                        "choose another --name, or first: clawbernetes node remove {}",
                        request.name
                    )));
                }
                (true, false) => free_name(&request.name, &suffix, |name| view.node(name).is_some())
                    .ok_or_else(|| ApiError::conflict(format!("no name like '{}' is free", request.name)))?,
            };
            // A joiner's token ended between its check and now.
            if token.is_none() && call.identity.role == Role::Joiner {
                return Err(expired());
            }
            let (credential, hash) = match &request.secret {
                Some(secret) => auth::credential(Kind::Node, name.as_str(), secret),
                None => auth::mint(Kind::Node, name.as_str())?,
            };
            let (node, event) = nodes::joined(&name, hash, &call.actor(), now());
            let mut draft = Draft::new();
            draft.put_node(None, &node);
            certificate = match &request.certificate_request {
                Some(csr) => {
                    let (cert, record) = sign_for_node(&call.app.trust, &name, csr, &call.actor(), now())?;
                    draft.put_cert(None, &record);
                    Some(cert)
                }
                None => None,
            };
            draft.event(view.revision(), event);
            // An admin's own token lets nodes in as well, and isn't used up.
            if let Some(token) = token {
                draft.use_join_token(token);
            }
            joined = Some((name, credential));
            Ok(Some(draft))
        })
        .await?;
    let (name, credential) = joined.ok_or_else(|| ApiError::internal("no node was made"))?;
    Ok(Joined {
        name,
        credential,
        certificate,
    })
}

/// `node.certify`: the node's next certificate; the ones before hold until their end.
pub async fn certify(call: Call, request: NodeCertRequest) -> Result<NodeCert, ApiError> {
    let name = NodeName::new(&call.identity.name);
    let at = now();
    let mut given = None;
    call.app
        .hub
        .decide(|view| {
            let node = view.node(&name).ok_or_else(|| gone(name.as_str()))?;
            let by = format!("node:{name}");
            let (cert, record) = sign_for_node(&call.app.trust, &name, &request.request, &by, at)?;
            let mut draft = Draft::new();
            // A node that is removed at this moment gets none.
            draft.node_unchanged(node);
            draft.put_cert(None, &record);
            for old in view.certs_of_node(&name) {
                if old.replaced_by.is_none() && old.revoked.is_none() {
                    draft.put_cert(
                        Some(old.revision),
                        &Certificate::clone(old).replaced(&record.serial, None, at),
                    );
                }
            }
            given = Some(cert);
            Ok(Some(draft))
        })
        .await?;
    given.ok_or_else(|| ApiError::internal("no certificate was made"))
}

/// `node.list`
pub async fn list(call: Call, filter: NodeFilter) -> Result<Vec<NodeView>, ApiError> {
    let app = &call.app;
    let view = app.hub.view();
    let fits = |node: &NodeView| {
        let model = |g: &api::node::GpuView| {
            filter
                .gpu_type
                .as_ref()
                .is_none_or(|wanted| scheduler::model_matches(&g.model, wanted))
        };
        (!filter.available || node.gpus_free > 0) && (filter.gpu_type.is_none() || node.gpus.iter().any(model))
    };
    Ok(view
        .nodes()
        .map(|n| views::node(&view, &app.live, n))
        .filter(fits)
        .collect())
}

/// `node.get`
pub async fn get(call: Call, request: NodeRef) -> Result<NodeDetail, ApiError> {
    let view = call.app.hub.view();
    let mut detail = views::detail(&view, &call.app.live, view.find_node(&request.id)?, now());
    let reaches = |id: &api::WorkloadId| view.workload(id).is_some_and(|w| call.identity.reaches(&w.namespace));
    detail.workloads.retain(reaches);
    Ok(detail)
}

/// Changes a node by a decision, and shows it as it is then.
async fn change(
    app: &App,
    id: &str,
    mut decide: impl FnMut(&View, &Versioned<Node>) -> Result<Option<Draft>, ApiError>,
) -> Result<NodeDetail, ApiError> {
    let mut name = None;
    app.hub
        .decide(|view| {
            let node = view.find_node(id)?;
            name = Some(node.name.clone());
            decide(view, node)
        })
        .await?;
    let view = app.hub.view();
    let node = name
        .and_then(|name| view.node(&name))
        .ok_or_else(|| crate::view::gone(id))?;
    Ok(views::detail(&view, &app.live, node, now()))
}

/// `node.drain`
pub async fn drain(call: Call, request: DrainRequest) -> Result<NodeDetail, ApiError> {
    let by = call.actor();
    change(&call.app, &request.id, |_, node| {
        Ok(Some(nodes::drain(node, request.force, request.timeout, &by, now())))
    })
    .await
}

/// `node.undrain`
pub async fn undrain(call: Call, request: NodeRef) -> Result<NodeDetail, ApiError> {
    let by = call.actor();
    change(&call.app, &request.id, |_, node| Ok(nodes::undrain(node, &by, now()))).await
}

/// A label's or taint's key: `team`, `topology.example.com/rack`.
fn check_key(key: &str) -> Result<(), ApiError> {
    let fits = (1..=128).contains(&key.len())
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    if fits {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "set",
            format!("'{}' is no key (letters, digits, - _ . /)", key.escape_debug()),
        ))
    }
}

fn check_value(value: &str) -> Result<(), ApiError> {
    if value.len() <= LABEL_VALUE_MAX && !value.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(ApiError::invalid(
            "set",
            format!("a value has at most {LABEL_VALUE_MAX} characters and no control characters"),
        ))
    }
}

/// `node.label`
pub async fn label(call: Call, request: LabelRequest) -> Result<NodeDetail, ApiError> {
    for (key, value) in &request.set {
        check_key(key)?;
        check_value(value)?;
    }
    let by = call.actor();
    change(&call.app, &request.id, |_, node| {
        let mut new = Node::clone(node);
        new.labels.extend(request.set.clone());
        new.labels.retain(|key, _| !request.remove.contains(key));
        edited(node, new, "Labelled", "labels", &by)
    })
    .await
}

/// `node.taint`
pub async fn taint(call: Call, request: TaintRequest) -> Result<NodeDetail, ApiError> {
    for taint in &request.set {
        check_key(&taint.key)?;
        check_value(&taint.value)?;
    }
    let by = call.actor();
    change(&call.app, &request.id, |_, node| {
        let mut new = Node::clone(node);
        new.taints.retain(|t| {
            !request.remove.contains(&t.key) && !request.set.iter().any(|s| s.key == t.key && s.effect == t.effect)
        });
        new.taints.extend(request.set.iter().cloned());
        edited(node, new, "Tainted", "taints", &by)
    })
    .await
}

fn edited(node: &Versioned<Node>, new: Node, reason: &str, what: &str, by: &str) -> Result<Option<Draft>, ApiError> {
    if new == **node {
        return Ok(None);
    }
    if new.labels.len() > LABELS_MAX || new.taints.len() > LABELS_MAX {
        return Err(ApiError::invalid(
            "set",
            format!("a node has at most {LABELS_MAX} {what}"),
        ));
    }
    let mut draft = Draft::new();
    draft.put_node(Some(node.revision), &new);
    let message = format!("the {what} of {} changed", node.name);
    draft.event(
        node.revision,
        node_event(&node.name, reason, message, by, api::event::Severity::Info, now()),
    );
    Ok(Some(draft))
}

/// `node.remove`
pub async fn remove(call: Call, request: RemoveRequest) -> Result<NodeDetail, ApiError> {
    let app = &call.app;
    let by = call.actor();
    let mut drained = false;
    app.hub
        .decide(|view| {
            let node = view.find_node(&request.id)?;
            nodes::may_remove(view, node, request.force)?;
            drained = node.drain.is_none();
            Ok(drained.then(|| nodes::drain(node, false, None, &by, now())))
        })
        .await?;
    let mut removed = None;
    let done = app
        .hub
        .decide(|view| {
            let node = view.find_node(&request.id)?;
            removed = Some(views::detail(view, &app.live, node, now()));
            nodes::remove(view, node, request.force, &by, now()).map(Some)
        })
        .await;
    if let Err(error) = done {
        if drained {
            // It was only drained to be removed.
            let undo = |view: &View| Ok(nodes::undrain(view.find_node(&request.id)?, &by, now()));
            app.hub.decide(undo).await?;
        }
        return Err(error);
    }
    let removed = removed.ok_or_else(|| crate::view::gone(&request.id))?;
    app.live.remove(&removed.view.name);
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_gets_as_much_as_tells_it_apart() {
        let wanted = NodeName::new("gpu".to_owned());
        let name = |taken: &[&str]| {
            let name = free_name(&wanted, "0a1b2c3d4e5f", |name| taken.contains(&name.as_str()))?;
            Some(name.as_str().to_owned())
        };
        assert_eq!(name(&[]).as_deref(), Some("gpu-0a1b"));
        assert_eq!(name(&["gpu-0a1b", "gpu-0a1b2"]).as_deref(), Some("gpu-0a1b2c"));
        let all: Vec<String> = (4..=12).map(|n| format!("gpu-{}", &"0a1b2c3d4e5f"[..n])).collect();
        assert_eq!(name(&all.iter().map(String::as_str).collect::<Vec<_>>()), None);
    }
}
