//! A gateway's address.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use api::{ApiError, ErrorCode};
use hyper::Uri;

/// A gateway's address, taken apart. `ws://` and `http://` name the same port, and so do `wss://` and `https://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Whether it is called by TLS.
    pub(crate) tls: bool,
    /// Path before `/api`, without a slash at its end; usually empty.
    pub(crate) prefix: String,
}

impl Endpoint {
    /// Reads `wss://host:port`, `ws://host:port` (or `https`, `http`), or `host:port`, which is called by TLS unless it is
    /// this machine.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for anything else.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let refuse = |why: &str| {
            ApiError::new(
                ErrorCode::InvalidArgument,
                format!("'{text}' is no gateway's address: {why}"),
            )
            .hint("write it as wss://host:9000")
        };
        let named = text.contains("://");
        let full = if named { text.to_owned() } else { format!("ws://{text}") };
        let uri: Uri = full.parse().map_err(|_| refuse("it can't be read as a URL"))?;
        let tls = match uri.scheme_str() {
            Some("ws" | "http") => false,
            Some("wss" | "https") => true,
            _ => return Err(refuse("it begins with neither wss:// nor ws://")),
        };
        let authority = uri.authority().ok_or_else(|| refuse("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refuse("a user name has no place in it; tokens are given with --token"));
        }
        if uri.query().is_some() {
            return Err(refuse("it holds a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(refuse("it names no host"));
        }
        let port = match (authority.port_u16(), authority.as_str().ends_with(':')) {
            (Some(port), _) if port > 0 => port,
            (None, false) if authority.port().is_none() && !has_port(authority.as_str()) => {
                if tls {
                    443
                } else {
                    80
                }
            }
            _ => return Err(refuse("its port is no number from 1 to 65535")),
        };
        let host = host.to_owned();
        Ok(Self {
            tls: tls || (!named && !is_loopback(&host)),
            host,
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether it is on this very machine.
    pub(crate) fn loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// `host:port`, as in the header `Host`.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Where to connect, in order. `localhost` needs no resolver.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if self.host == "localhost" {
            return Ok(vec![
                (Ipv4Addr::LOCALHOST, self.port).into(),
                (Ipv6Addr::LOCALHOST, self.port).into(),
            ]);
        }
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![(address, self.port).into()]);
        }
        Ok(tokio::net::lookup_host((self.host.as_str(), self.port))
            .await?
            .collect())
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether an authority has something after its host's colon.
fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_all_their_forms() {
        for (text, shown) in [
            ("ws://localhost:9000", "ws://localhost:9000"),
            ("http://127.0.0.1:9000/", "ws://127.0.0.1:9000"),
            ("gpu-head:9100", "wss://gpu-head:9100"),
            ("localhost:9100", "ws://localhost:9100"),
            ("https://proxy.lab", "wss://proxy.lab:443"),
            ("wss://[::1]:9000", "wss://[::1]:9000"),
            ("ws://[::1]:9000", "ws://[::1]:9000"),
            ("http://proxy.lab/claws/", "ws://proxy.lab:80/claws"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, part) in [
            ("ftp://host", "neither"),
            ("ws://", "URL"),
            ("ws://host:99999", "port"),
            ("ws://host:0", "port"),
            ("ws://user:pw@host:1", "user"),
            ("ws://host:1/?a=b", "query"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument);
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        assert!(Endpoint::parse("localhost:1").unwrap().loopback());
        assert!(Endpoint::parse("ws://127.0.0.2:1").unwrap().loopback());
        assert!(Endpoint::parse("ws://[::1]:1").unwrap().loopback());
        assert!(!Endpoint::parse("ws://localhost.example:1").unwrap().loopback());
        assert!(!Endpoint::parse("ws://10.0.0.1:1").unwrap().loopback());
    }
}
