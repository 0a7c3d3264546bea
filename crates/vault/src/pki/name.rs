//! What certificates are called, and the names that they prove.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use super::error::Error;

/// The longest name, characters: a DNS label's length, and within the 64 of a certificate's common name.
const NAME_MAX: usize = 63;
/// The longest DNS name, characters (RFC 1035).
const DNS_MAX: usize = 253;
/// The longest part of a DNS name, characters (RFC 1035).
const LABEL_MAX: usize = 63;

/// What a certificate is called: its common name, and its key in lists.
///
/// 1–63 lower-case letters, digits, `-` and `.`, with letters or digits at both ends: the rule for names of nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |rule| {
            Err(Error::Name {
                given: clip(text),
                rule,
            })
        };
        if !(1..=NAME_MAX).contains(&text.len()) {
            return refuse("it has 1 to 63 characters");
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        {
            return refuse("it has lower-case letters, digits, '-' and '.' only");
        }
        if text.starts_with(['-', '.']) || text.ends_with(['-', '.']) {
            return refuse("it has letters or digits at both ends");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subject alternative name: what a client may call the server by.
///
/// As text, `gpu.example.com`, `*.example.com`, `10.0.0.7` or `2001:db8::7`. A DNS name is kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum San {
    /// A DNS name; with a leading `*.` it stands for any one label in that place. Made by parsing only.
    Dns(DnsName),
    /// An address.
    Ip(IpAddr),
}

/// A DNS name that was checked: letters, digits and hyphens, no trailing dot, lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for San {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let name = text.to_ascii_lowercase();
        match dns_rule(&name) {
            None => Ok(Self::Dns(DnsName(name))),
            Some(rule) => Err(Error::San {
                given: clip(text),
                rule,
            }),
        }
    }
}

/// The rule that a name in lower case breaks as a DNS name, if any.
fn dns_rule(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > DNS_MAX {
        return Some("it has 1 to 253 characters");
    }
    if !name.is_ascii() {
        return Some("other scripts are written as xn--…");
    }
    if name.ends_with('.') {
        return Some("it is written without the dot at the end");
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    if host.contains('*') {
        return Some("'*' stands at the beginning only, for one whole label");
    }
    if host.len() < name.len() && !host.contains('.') {
        // Clients refuse these: `*.com` would be everybody.
        return Some("after '*.' there are at least two labels");
    }
    for label in host.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return Some("each label has 1 to 63 characters");
        }
        if !label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Some("labels have letters, digits and '-' only");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Some("labels have letters or digits at both ends");
        }
    }
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|b| b.is_ascii_digit()) {
        // Else a mistyped address would be a name that nothing ever matches.
        return Some("the last label of a DNS name isn't a number, and it isn't an address");
    }
    None
}

impl TryFrom<String> for San {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<San> for String {
    fn from(san: San) -> Self {
        san.to_string()
    }
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name.as_str()),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// Keeps an error short, whatever was given.
fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(80).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "gpu-7", "rack1.gpu-7", "0x"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        for bad in ["", "Gpu", "-a", "a.", "a b", "ä", "a/b", "a\n", &"a".repeat(64)] {
            let error = bad.parse::<Name>().unwrap_err();
            assert_eq!(error.field(), Some("name"), "{bad}");
        }
    }

    #[test]
    fn sans_are_dns_names_or_addresses() {
        for good in [
            "localhost",
            "gpu.example.com",
            "*.example.com",
            "xn--bcher-kva.example",
            "1a.2b",
            "3.example",
            "10.0.0.7",
            "2001:db8::7",
        ] {
            assert_eq!(good.parse::<San>().unwrap().to_string(), good);
        }
        assert_eq!("GPU.Example.com".parse::<San>().unwrap().to_string(), "gpu.example.com");
        let long = format!("{}.com", "a.".repeat(126));
        let label = format!("{}.com", "a".repeat(64));
        for bad in [
            "",
            ".",
            "a..b",
            "a.b.",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a b",
            "http://a.b",
            "a.b:443",
            "me@a.b",
            "[::1]",
            "300.1.1.1",
            "10.0.0",
            "7",
            "*",
            "*.com",
            "a.*.com",
            "*a.example.com",
            "*.*.example.com",
            "bücher.example",
            "a\0.b",
            &long,
            &label,
        ] {
            let error = bad.parse::<San>().unwrap_err();
            assert_eq!(error.field(), Some("san"), "{bad}");
        }
    }

    #[test]
    fn what_is_stored_is_checked_when_read() {
        let san: San = serde_json::from_str("\"*.example.com\"").unwrap();
        assert_eq!(serde_json::to_string(&san).unwrap(), "\"*.example.com\"");
        serde_json::from_str::<San>("\"a b\"").unwrap_err();
        serde_json::from_str::<Name>("\"A\"").unwrap_err();
    }
}
