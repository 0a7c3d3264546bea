//! Gateways, identities and tokens.

use api::{
    auth::{Identity, Role, Scope, TokenInfo},
    op::{NewJoinToken, NewToken, Ping},
    time,
};
use serde::Serialize;

use super::{
    Grid, Page, Render,
    cells::{ago, moment, or_dash, size, span_of},
};

/// A gateway's answer to a ping, and how it came.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reported {
    /// Where it answered.
    pub(crate) gateway: String,
    /// From request to answer, in milliseconds, connecting included.
    pub(crate) round_trip_ms: f64,
    /// The answer.
    #[serde(flatten)]
    pub(crate) ping: Ping,
}

impl Render for Reported {
    fn render(&self, page: &mut Page) {
        let ping = &self.ping;
        page.fields([
            ("Gateway", self.gateway.clone()),
            ("Round trip", format!("{:.1} ms", self.round_trip_ms)),
            ("Version", ping.version.clone()),
            ("Leader", if ping.leader { "yes".to_owned() } else { "no".to_owned() }),
            (
                "Store",
                format!(
                    "{}, revision {}, {}",
                    ping.store,
                    ping.revision,
                    size(Some(api::Size(ping.store_bytes)))
                ),
            ),
            ("Up", span_of(time::between(ping.started_at, ping.now))),
        ]);
    }

    fn names(&self) -> Vec<String> {
        vec![self.gateway.clone()]
    }
}

impl Render for Identity {
    fn render(&self, page: &mut Page) {
        page.fields(identity_fields(self, page));
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

/// Who somebody is, what they may do, where, and until when.
pub(crate) fn identity_fields(identity: &Identity, page: &Page) -> Vec<(&'static str, String)> {
    let scopes = Scope::GIVEN.into_iter().filter(|(_, scope)| identity.allows(*scope));
    let scopes: Vec<&str> = scopes.map(|(name, _)| name).collect();
    let expires = identity.expires_at.map(|at| moment(at, page.now()));
    vec![
        ("Identity", identity.name.clone()),
        ("Role", identity.role.to_string()),
        ("Scopes", or_dash(scopes.join(", "))),
        ("Bound to", bound(identity.namespace.as_deref())),
        ("Token id", identity.token_id.clone()),
        ("Expires", expires.unwrap_or_else(|| "never".to_owned())),
    ]
}

/// The namespace that a token is bound to, in words.
fn bound(namespace: Option<&str>) -> String {
    namespace.map_or_else(
        || "no namespace".to_owned(),
        |namespace| format!("namespace {namespace}"),
    )
}

/// `operator`, or `custom: read, read-secrets`.
fn role(token: &TokenInfo) -> String {
    if token.role != Role::Custom {
        return token.role.to_string();
    }
    let given = Scope::GIVEN
        .into_iter()
        .filter(|(_, scope)| token.scopes.contains(scope));
    let names: Vec<&str> = given.map(|(name, _)| name).collect();
    format!("{}: {}", token.role, names.join(", "))
}

fn expiry(at: Option<api::Timestamp>, page: &Page) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(Some(at), page.now()))
}

impl Render for Vec<TokenInfo> {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(["ID", "NAME", "ROLE", "NAMESPACE", "CREATED", "BY", "EXPIRES"]);
        for token in self {
            grid.row([
                token.id.clone(),
                token.name.clone(),
                role(token),
                token.namespace.clone().unwrap_or_else(|| "all".to_owned()),
                ago(Some(token.created_at), page.now()),
                token.created_by.clone(),
                expiry(token.expires_at, page),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|token| token.id.clone()).collect()
    }
}

impl Render for TokenInfo {
    fn render(&self, page: &mut Page) {
        page.line(format!("revoked {} ({}, {})", self.id, self.name, role(self)));
    }

    fn names(&self) -> Vec<String> {
        vec![self.id.clone()]
    }
}

impl Render for NewToken {
    /// The token alone: it can go straight into a variable.
    fn render(&self, page: &mut Page) {
        page.line(&self.token);
    }

    fn names(&self) -> Vec<String> {
        vec![self.info.id.clone()]
    }
}

impl Render for NewJoinToken {
    /// The token alone: it can go straight into a variable.
    fn render(&self, page: &mut Page) {
        page.line(&self.token);
    }

    fn names(&self) -> Vec<String> {
        vec![self.token.clone()]
    }
}
