//! Where the gateway is.

use std::{fmt, str::FromStr};

/// The port where an address names none.
const PORT: u16 = 9000;

/// A gateway's address, read from `ws://host:port`, `http://host:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It asks for an encrypted connection.
    #[error("'{0}' asks for an encrypted connection, which this version doesn't speak (use ws://)")]
    Encrypted(String),
    /// It isn't an address.
    #[error("'{0}' is no gateway address (accepted: ws://host:port)")]
    Malformed(String),
}

impl Address {
    /// Host and port, as sockets want them: `[::1]:9000`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let rest = match text.split_once("://") {
            None => text,
            Some(("ws" | "http", rest)) => rest,
            Some(("wss" | "https", _)) => return Err(AddressError::Encrypted(text.to_owned())),
            Some(_) => return Err(malformed()),
        };
        let authority: hyper::http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| malformed())?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(malformed());
        }
        if authority.port().is_none() && authority.as_str() != authority.host() {
            return Err(malformed());
        }
        Ok(Self {
            host: authority.host().to_owned(),
            port: match authority.port() {
                Some(port) => port.as_str().parse().map_err(|_| malformed())?,
                None => PORT,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, wanted) in [
            ("ws://localhost:9000", "ws://localhost:9000"),
            ("http://10.0.0.1:80/", "ws://10.0.0.1:80"),
            ("gateway", "ws://gateway:9000"),
            ("[::1]:7", "ws://[::1]:7"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), wanted, "{text}");
        }
        for bad in [
            "",
            "ws://",
            "ftp://x",
            "ws://a b",
            "ws://x:99999",
            "user@host:1",
            "host/path",
        ] {
            assert!(
                matches!(bad.parse::<Address>(), Err(AddressError::Malformed(_))),
                "{bad}"
            );
        }
        assert!(matches!("wss://x".parse::<Address>(), Err(AddressError::Encrypted(_))));
    }
}
