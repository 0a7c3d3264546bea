//! Secrets, their versions, and what seals them.

use api::{
    Timestamp,
    op::{SecretContent, SecretInfo, SecretVersionInfo, SecretVersionState, VaultStatus},
    secret::SecretValue,
    time,
};
use serde::Serialize;

use super::{
    Grid, Page, Render,
    cells::{ago, dash, moment},
};

/// A secret with its value, as programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretShown<'a> {
    name: &'a str,
    namespace: &'a str,
    version: u32,
    value: Shown<'a>,
    /// How `value` is written: `text` or `base64`.
    encoding: &'static str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

/// A value as text, or as base64 where it is none.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Text(&'a str),
    Bytes(&'a SecretValue),
}

impl<'a> From<&'a SecretContent> for SecretShown<'a> {
    fn from(content: &'a SecretContent) -> Self {
        let (value, encoding) = match content.value.expose_text() {
            Some(text) => (Shown::Text(text), "text"),
            None => (Shown::Bytes(&content.value), "base64"),
        };
        Self {
            name: &content.name,
            namespace: &content.namespace,
            version: content.version,
            value,
            encoding,
            created_at: content.created_at,
            expires_at: content.expires_at,
        }
    }
}

impl Render for SecretShown<'_> {
    /// What is known beside the value; the value itself is printed as it is.
    fn render(&self, page: &mut Page) {
        page.line(format!("{}/{} version {}", self.namespace, self.name, self.version));
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.to_owned()]
    }
}

impl Render for Vec<SecretInfo> {
    fn render(&self, page: &mut Page) {
        if self.is_empty() {
            page.line("No secrets.");
            return;
        }
        let mut grid = Grid::new([
            "NAME",
            "NAMESPACE",
            "VERSION",
            "READABLE",
            "UPDATED",
            "BY",
            "EXPIRES",
            "DESCRIPTION",
        ]);
        for secret in self {
            grid.row([
                secret.name.clone(),
                secret.namespace.clone(),
                dash(secret.version),
                secret.versions.to_string(),
                time::relative(secret.updated_at, page.now()),
                secret.updated_by.clone(),
                expiry(secret.expires_at, page.now()),
                dash(secret.description.as_deref()),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|secret| secret.name.clone()).collect()
    }
}

impl Render for SecretInfo {
    fn render(&self, page: &mut Page) {
        page.line(secret_at(self, page.now()));
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.clone()]
    }
}

/// At which version a secret is: `prod/db is at version 3 (expires in 90d); 2 older ones can be read`.
pub(crate) fn secret_at(info: &SecretInfo, now: Timestamp) -> String {
    let mut text = format!("{}/{}", info.namespace, info.name);
    match info.version {
        Some(version) => text.push_str(&format!(" is at version {version}")),
        None => text.push_str(" has no version that can be read"),
    }
    if let Some(at) = info.expires_at {
        text.push_str(&format!(" (expires {})", ago(Some(at), now)));
    }
    match info.versions.saturating_sub(1) {
        0 => {}
        1 => text.push_str("; 1 older one can be read"),
        n => text.push_str(&format!("; {n} older ones can be read")),
    }
    text
}

impl Render for Vec<SecretVersionInfo> {
    fn render(&self, page: &mut Page) {
        let mut grid = Grid::new(["VERSION", "STATE", "CREATED", "BY", "EXPIRES"]);
        for version in self {
            let state = match version.state {
                SecretVersionState::Readable if version.current => "current",
                SecretVersionState::Readable => "readable",
                SecretVersionState::Expired => "expired",
                SecretVersionState::Destroyed => "destroyed",
            };
            grid.row([
                version.version.to_string(),
                state.to_owned(),
                moment(version.created_at, page.now()),
                version.created_by.clone(),
                expiry(version.expires_at, page.now()),
            ]);
        }
        page.grid(&grid);
    }

    fn names(&self) -> Vec<String> {
        self.iter().map(|version| version.version.to_string()).collect()
    }
}

impl Render for VaultStatus {
    fn render(&self, page: &mut Page) {
        page.fields([
            ("Master key", self.key.clone()),
            ("From", self.source.clone()),
            ("Keys it seals", self.sealed.to_string()),
        ]);
        if self.sealed_by_old > 0 {
            page.line(format!(
                "A change of the master key is under way: {} keys are still sealed by the one before it.",
                self.sealed_by_old
            ));
        }
    }

    fn names(&self) -> Vec<String> {
        vec![self.key.clone()]
    }
}

fn expiry(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "never".to_owned(), |at| ago(Some(at), now))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn content(value: &[u8]) -> SecretContent {
        SecretContent {
            name: "db".to_owned(),
            namespace: "prod".to_owned(),
            version: 3,
            value: value.to_vec().into(),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
        }
    }

    #[test]
    fn text_is_text_and_bytes_are_base64() {
        let shown = |value: &[u8]| serde_json::to_value(SecretShown::from(&content(value))).unwrap();
        assert_eq!(
            shown(b"p\xc3\xa4ss\n"),
            json!({"name": "db", "namespace": "prod", "version": 3, "value": "p\u{e4}ss\n", "encoding": "text",
                "createdAt": "1970-01-01T00:00:00Z", "expiresAt": null})
        );
        let bytes = shown(b"\xff\0");
        assert_eq!(
            (&bytes["value"], &bytes["encoding"]),
            (&json!("/wA="), &json!("base64"))
        );
    }

    #[test]
    fn what_looks_like_something_else_stays_text_in_yaml() {
        for value in [
            "yes", "0x1f", "null", "~", "1e3", " a", "a ", "a\n", "a\n\n", "- a", "# a", "a: b", "\"", "'", "\t", "|",
        ] {
            let yaml = serde_saphyr::to_string(&SecretShown::from(&content(value.as_bytes()))).unwrap();
            let back: Value = serde_saphyr::from_str(&yaml).unwrap();
            assert_eq!(back["value"], json!(value), "{yaml}");
        }
    }
}
