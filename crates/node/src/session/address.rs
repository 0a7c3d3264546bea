//! Where the gateway is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// The port where an address names none.
const PORT: u16 = 9000;

/// A gateway's address, read from `wss://host:port`, `ws://host:port` (`https` and `http` mean the same) or `host:port`,
/// which is encrypted unless the host is this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    tls: bool,
}

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It isn't an address.
    #[error("'{0}' is no gateway address (accepted: wss://host:port, ws://host:port)")]
    Malformed(String),
}

impl Address {
    /// Host and port, as sockets want them: `[::1]:9000`.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The host's name or address, without brackets: what a certificate must be for.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn loopback(&self) -> bool {
        loopback(self.host())
    }
}

impl Address {
    /// Where jobs of this machine listen for what the gateway sends them: at the loopback where the gateway is there, else
    /// everywhere.
    #[must_use]
    pub fn bind(&self) -> IpAddr {
        let at = if self.loopback() {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        at.into()
    }
}

fn loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("ws" | "http", rest)) => (Some(false), rest),
            Some(("wss" | "https", rest)) => (Some(true), rest),
            Some(_) => return Err(malformed()),
        };
        let authority: hyper::http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| malformed())?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(malformed());
        }
        if authority.port().is_none() && authority.as_str() != authority.host() {
            return Err(malformed());
        }
        let host = authority.host().to_owned();
        let own = loopback(host.trim_start_matches('[').trim_end_matches(']'));
        Ok(Self {
            tls: tls.unwrap_or(!own),
            host,
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
            ("https://10.0.0.1:443/", "wss://10.0.0.1:443"),
            ("gateway", "wss://gateway:9000"),
            ("localhost", "ws://localhost:9000"),
            ("[::1]:7", "ws://[::1]:7"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), wanted, "{text}");
        }
        assert_eq!("wss://[::1]:7".parse::<Address>().unwrap().host(), "::1");
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
    }
}
