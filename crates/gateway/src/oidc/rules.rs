//! Who somebody is here, by what an identity provider says of them.

use std::str::FromStr;

use api::auth::Role;
use serde_json::Value;

use super::verify::Claims;

/// Longest name, in bytes.
const NAME_MAX: usize = 63;

/// Gives a role to whom it is about. Rules have an order; the first that fits counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRule {
    /// Claim and value. `None`: it is about everybody.
    claim: Option<(String, String)>,
    role: Role,
}

impl FromStr for RoleRule {
    type Err = String;

    /// `groups=gpu-admins:admin`, `email=ada@lab.example:operator`, or `*:viewer`.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("'{text}' isn't CLAIM=VALUE:ROLE, such as groups=gpu-admins:admin, or *:ROLE");
        let (who, role) = text.rsplit_once(':').ok_or_else(refuse)?;
        let role = role.parse()?;
        let claim = match (who, who.split_once('=')) {
            ("*", _) => None,
            (_, Some((claim, value))) if !claim.is_empty() && !value.is_empty() => {
                Some((claim.to_owned(), value.to_owned()))
            }
            _ => return Err(refuse()),
        };
        Ok(Self { claim, role })
    }
}

impl RoleRule {
    fn fits(&self, claims: &Claims) -> bool {
        let Some((claim, value)) = &self.claim else {
            return true;
        };
        if claim == "email" && !email_verified(claims) {
            return false;
        }
        let same = |told: &Value| match told {
            Value::String(told) => told == value,
            Value::Bool(_) | Value::Number(_) => serde_json::from_str::<Value>(value).is_ok_and(|value| value == *told),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match claims.get(claim) {
            Some(Value::Array(several)) => several.iter().any(same),
            Some(one) => same(one),
            None => false,
        }
    }
}

/// The role of somebody. `None`: no rule is about them.
#[must_use]
pub fn role(rules: &[RoleRule], claims: &Claims) -> Option<Role> {
    rules.iter().find(|rule| rule.fits(claims)).map(|rule| rule.role)
}

/// Whether the provider says that the address is theirs. At some, anybody can enter any address for themselves.
fn email_verified(claims: &Claims) -> bool {
    match claims.get("email_verified") {
        Some(Value::Bool(verified)) => *verified,
        Some(Value::String(verified)) => verified == "true",
        _ => false,
    }
}

/// What people are called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameClaim {
    /// Their address, where the provider has made sure that it is theirs.
    #[default]
    Email,
    /// What they are called at the provider.
    PreferredUsername,
    /// The provider's own id of them.
    Sub,
}

impl NameClaim {
    /// The claim.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::PreferredUsername => "preferred_username",
            Self::Sub => "sub",
        }
    }
}

impl FromStr for NameClaim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Email, Self::PreferredUsername, Self::Sub]
            .into_iter()
            .find(|claim| claim.name() == text)
            .ok_or_else(|| format!("'{text}' names nobody (accepted: email, preferred_username, sub)"))
    }
}

/// What somebody is called here: `ada@lab.example` is `ada-lab.example`.
///
/// Two people may come to the same name. That gives neither anything of the other's: roles are given by claims, and
/// tokens are told apart by their ids, in the audit log too; only whose work it is, is told by the name.
///
/// # Errors
/// Why they can't be called anything, in words.
pub fn name(by: NameClaim, claims: &Claims) -> Result<String, String> {
    let claim = by.name();
    let told = claims.get(claim).and_then(Value::as_str);
    let told = told.ok_or_else(|| format!("the identity provider doesn't tell the claim '{claim}'"))?;
    if by == NameClaim::Email && !email_verified(claims) {
        return Err("the identity provider doesn't say that the address is verified".to_owned());
    }
    legal(told).ok_or_else(|| format!("no name can be made of the claim '{claim}'"))
}

/// The nearest legal name ([`api::id::check_name`]). `None`: nothing is left of it.
fn legal(text: &str) -> Option<String> {
    let fitting = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' => c,
        _ => '-',
    };
    let outer = |c: char| matches!(c, '-' | '.');
    let mapped: String = text.chars().map(fitting).collect();
    let begun: String = mapped.trim_start_matches(outer).chars().take(NAME_MAX).collect();
    let name = begun.trim_end_matches(outer);
    api::id::check_name(name).is_ok().then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rules: Vec<RoleRule> = [
            "groups=gpu-admins:admin",
            "email=ada@lab.example:operator",
            "urn:x=a:b:operator",
        ]
        .iter()
        .map(|rule| rule.parse().unwrap())
        .collect();
        let role = |value| role(&rules, &claims(value));
        let ada = |verified: Value| json!({"email": "ada@lab.example", "email_verified": verified});
        assert_eq!(role(json!({"groups": ["x", "gpu-admins"]})), Some(Role::Admin));
        assert_eq!(role(json!({"groups": "gpu-admins"})), Some(Role::Admin));
        assert_eq!(role(json!({"groups": "gpu-admins2"})), None);
        assert_eq!(role(ada(json!(true))), Some(Role::Operator));
        for not in [json!(false), json!("false"), Value::Null, json!(1)] {
            assert_eq!(role(ada(not.clone())), None, "{not}");
        }
        assert_eq!(role(json!({"urn:x": "a:b"})), Some(Role::Operator));
        let staff: RoleRule = "staff=true:operator".parse().unwrap();
        for (told, fits) in [
            (json!(true), true),
            (json!("true"), true),
            (json!(1), false),
            (Value::Null, false),
        ] {
            assert_eq!(staff.fits(&claims(json!({ "staff": told }))), fits, "{told}");
        }
        let all: RoleRule = "*:viewer".parse().unwrap();
        assert_eq!(super::role(&[all], &claims(json!({}))), Some(Role::Viewer));
        for bad in [
            "*",
            "viewer",
            "*:root",
            "*:node",
            "=x:admin",
            "groups=:admin",
            "groups:admin",
        ] {
            assert!(bad.parse::<RoleRule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_made_legal() {
        for (told, name) in [
            ("ada@lab.example", Some("ada-lab.example")),
            ("Ada.Lovelace", Some("ada.lovelace")),
            ("auth0|5f7c", Some("auth0-5f7c")),
            ("..ada--", Some("ada")),
            ("\u{1b}[2Jada", Some("2jada")),
            ("@@@", None),
            ("", None),
        ] {
            assert_eq!(legal(told).as_deref(), name, "{told}");
        }
        let long = legal(&format!("{}.{}", "a".repeat(62), "b")).unwrap();
        assert_eq!(long, "a".repeat(62));
        let unverified = claims(json!({"email": "ada@lab.example", "sub": "7"}));
        assert!(name(NameClaim::Email, &unverified).is_err());
        assert_eq!(name(NameClaim::Sub, &unverified).unwrap(), "7");
    }
}
