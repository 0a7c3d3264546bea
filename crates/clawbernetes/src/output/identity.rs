//! Gateways, identities and tokens.

use api::{
    auth::{Identity, TokenInfo},
    op::{NewJoinToken, NewToken, Ping},
    time,
};
use serde::Serialize;

use super::{
    Grid, Page, Render,
    cells::{ago, size, span_of},
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
        page.fields([
            ("Name", self.name.clone()),
            ("Role", self.role.to_string()),
            ("Token", self.token_id.clone()),
            ("Expires", expiry(self.expires_at, page)),
        ]);
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

fn expiry(at: Option<api::Timestamp>, page: &Page) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(Some(at), page.now()))
}

impl Render for Vec<TokenInfo> {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(["ID", "NAME", "ROLE", "CREATED", "BY", "EXPIRES"]);
        for token in self {
            grid.row([
                token.id.clone(),
                token.name.clone(),
                token.role.to_string(),
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
        page.line(format!("revoked {} ({}, {})", self.id, self.name, self.role));
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
