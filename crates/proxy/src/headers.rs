//! What changes in a message's head on its way. Pure.
//!
//! What concerns one connection only (RFC 9110, section 7.6.1) goes no further. The client's address is appended to
//! `X-Forwarded-For`, and to `Forwarded` where there is one; `X-Forwarded-Proto` and `X-Forwarded-Host` are set unless
//! somebody before us did. Whoever must not trust its clients' words takes the last address only.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{HeaderMap, Method, Uri, Version};

use crate::answer::Failure;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A client's address, as it is told to endpoints.
#[derive(Debug)]
pub struct Origin {
    ip: IpAddr,
    /// Of `X-Forwarded-For`, where nobody was before.
    alone: Option<HeaderValue>,
}

impl Origin {
    pub fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Origin {
            ip,
            alone: HeaderValue::from_str(&ip.to_string()).ok(),
        }
    }
}

/// How a request is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By HTTP/1.1.
    Plain,
    /// By HTTP/1.1, on a connection that may become something else.
    Upgrade,
    /// By HTTP/2, which gRPC needs.
    Grpc,
}

/// Makes a request's head what its endpoint gets.
///
/// # Errors
/// Why it can't be passed on.
pub fn outgoing(parts: &mut Parts, client: &Origin) -> Result<Way, Failure> {
    if parts.method == Method::CONNECT {
        return Err(Failure::Method);
    }
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Failure::Malformed("there is more than one Content-Length"));
    }
    host(parts)?;
    let headers = &mut parts.headers;
    let upgrade = (parts.version == Version::HTTP_11).then(|| upgrade(headers)).flatten();
    let trailers = headers
        .get(TE)
        .is_some_and(|value| has_token(value.as_bytes(), b"trailers"));
    strip(headers);
    // The client was told to go on by us when its body was first asked for; the endpoint gets it without asking.
    headers.remove(EXPECT);
    forwarded(headers, client);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|value| is_grpc(value.as_bytes()));
    let way = match upgrade {
        Some(protocol) => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol);
            Way::Upgrade
        }
        None if grpc => {
            parts.uri = absolute(&parts.uri, headers)?;
            headers.remove(HOST);
            Way::Grpc
        }
        None => {
            if parts.version == Version::HTTP_2 {
                join_cookies(headers);
            }
            Way::Plain
        }
    };
    parts.version = if way == Way::Grpc {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    Ok(way)
}

/// Makes an answer's head what its client gets. `switching`: the connection changes its protocol.
pub fn incoming(headers: &mut HeaderMap, switching: bool) {
    let protocol = if switching { headers.remove(UPGRADE) } else { None };
    strip(headers);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Brings the host into `Host` and the request's target into origin form.
fn host(parts: &mut Parts) -> Result<(), Failure> {
    if parts.headers.get_all(HOST).iter().nth(1).is_some() {
        return Err(Failure::Malformed("there is more than one Host"));
    }
    if let Some(authority) = parts.uri.authority() {
        // Of both, the target counts (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1).
        let text = authority.as_str();
        let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let host = HeaderValue::from_str(text).map_err(|_| Failure::Malformed("the host can't be read"))?;
        parts.headers.insert(HOST, host);
        let path = parts.uri.path_and_query().cloned();
        let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    } else if parts.version > Version::HTTP_10 && !parts.headers.contains_key(HOST) {
        return Err(Failure::Malformed("there is no Host"));
    }
    Ok(())
}

/// The target as HTTP/2 wants it.
fn absolute(uri: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
    let unreadable = Failure::Malformed("the host can't be read");
    let host = headers.get(HOST).ok_or(Failure::Malformed("there is no Host"))?;
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| unreadable)?;
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    Uri::from_parts(parts).map_err(|_| unreadable)
}

/// The protocol that a client wants to change to, if it may: not to HTTP/2 in the clear, by which requests would come to
/// the endpoint that nobody here has seen.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .any(|value| has_token(value.as_bytes(), b"upgrade"));
    (asked && !has_token(protocol.as_bytes(), b"h2c")).then(|| protocol.clone())
}

/// Removes what concerns one connection only.
fn strip(headers: &mut HeaderMap) {
    let mut any = false;
    for name in headers.keys() {
        any |= is_hop_by_hop(name);
    }
    if !any {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        // By these a request would change its meaning behind us.
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
];

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

fn forwarded(headers: &mut HeaderMap, client: &Origin) {
    if headers.contains_key(X_FORWARDED_FOR) {
        append(headers, X_FORWARDED_FOR, &client.ip.to_string());
    } else if let Some(alone) = &client.alone {
        headers.insert(X_FORWARDED_FOR, alone.clone());
    }
    if headers.contains_key(FORWARDED) {
        let ip = client.ip;
        let node = if ip.is_ipv6() {
            format!("for=\"[{ip}]\"")
        } else {
            format!("for={ip}")
        };
        append(headers, FORWARDED, &node);
    }
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Adds to the end of a list, in one line.
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut list = join(headers, &name, b", ");
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item.as_bytes());
    // Made of values and an address: it is one.
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, value);
    }
}

/// HTTP/2 may cut cookies into lines; HTTP/1.1 has one (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_some() {
        let joined = join(headers, &COOKIE, b"; ");
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
            headers.insert(COOKIE, value);
        }
    }
}

fn join(headers: &HeaderMap, name: &HeaderName, between: &[u8]) -> Vec<u8> {
    let mut list = Vec::new();
    for value in headers.get_all(name) {
        if !list.is_empty() {
            list.extend_from_slice(between);
        }
        list.extend_from_slice(value.as_bytes());
    }
    list
}

fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|&byte| byte == b',')
        .map(|item| item.split(|&byte| byte == b';').next().unwrap_or_default())
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// `application/grpc`, `application/grpc+proto`, …; not `application/grpc-web`, which is made for HTTP/1.1.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.split_at_checked(GRPC.len()).is_some_and(|(begin, rest)| {
        begin.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    /// A head from its lines: `GET /path`, then `name: value`.
    fn head(version: Version, lines: &[&str]) -> Parts {
        let (method, uri) = lines[0].split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for line in &lines[1..] {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn passed(version: Version, lines: &[&str]) -> Result<(Way, Vec<String>), Failure> {
        let mut parts = head(version, lines);
        let way = outgoing(&mut parts, &Origin::new(CLIENT))?;
        let mut text: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        text.sort();
        text.insert(0, format!("{} {}", parts.method, parts.uri));
        Ok((way, text))
    }

    fn plain(lines: &[&str]) -> Vec<String> {
        let (way, lines) = passed(Version::HTTP_11, lines).unwrap();
        assert_eq!(way, Way::Plain);
        lines
    }

    #[test]
    fn what_concerns_one_connection_goes_no_further() {
        let lines = plain(&[
            "GET /a?b",
            "host: x",
            "connection: close, X-Private, host",
            "x-private: 1",
            "keep-alive: timeout=5",
            "proxy-authorization: Basic eA==",
            "te: gzip",
            "expect: 100-continue",
            "upgrade: h2c",
            "http2-settings: AAA",
            "accept: */*",
        ]);
        let want = [
            "GET /a?b",
            "accept: */*",
            "host: x",
            "x-forwarded-for: 10.0.0.7",
            "x-forwarded-host: x",
            "x-forwarded-proto: http",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn the_client_is_appended_to_those_before() {
        let lines = plain(&[
            "GET /",
            "host: x",
            "x-forwarded-for: 1.1.1.1",
            "x-forwarded-for: 2.2.2.2, 3.3.3.3",
            "x-forwarded-proto: https",
            "x-forwarded-host: y",
            "forwarded: for=1.1.1.1;proto=https",
        ]);
        let want = [
            "GET /",
            "forwarded: for=1.1.1.1;proto=https, for=10.0.0.7",
            "host: x",
            "x-forwarded-for: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.7",
            "x-forwarded-host: y",
            "x-forwarded-proto: https",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn the_targets_host_counts() {
        let lines = plain(&["GET http://user:pw@real:80/a", "host: other"]);
        assert_eq!(lines[..2], ["GET /a", "host: real:80"]);
        let (_, lines) = passed(Version::HTTP_2, &["GET http://real/a", "cookie: a=1", "cookie: b=2"]).unwrap();
        assert_eq!(lines[..3], ["GET /a", "cookie: a=1; b=2", "host: real"]);
        assert_eq!(plain(&["OPTIONS *", "host: x"])[0], "OPTIONS *");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let refused = |version, lines: &[&str]| passed(version, lines).unwrap_err().status().as_u16();
        assert_eq!(refused(Version::HTTP_11, &["GET /"]), 400);
        assert_eq!(refused(Version::HTTP_11, &["GET /", "host: a", "host: b"]), 400);
        let twice = ["POST http://a/", "content-length: 1", "content-length: 1"];
        assert_eq!(refused(Version::HTTP_2, &twice), 400);
        assert_eq!(refused(Version::HTTP_11, &["CONNECT a:1", "host: a:1"]), 405);
        assert!(passed(Version::HTTP_10, &["GET /"]).is_ok());
    }

    #[test]
    fn upgrades_are_passed_on_but_for_http2() {
        let ask = |protocol: &str, version| {
            let protocol = format!("upgrade: {protocol}");
            let lines = ["GET /", "host: x", "connection: keep-alive, Upgrade", &protocol];
            passed(version, &lines).unwrap()
        };
        let (way, lines) = ask("websocket", Version::HTTP_11);
        assert_eq!(way, Way::Upgrade);
        assert!(lines.contains(&"connection: upgrade".to_owned()) && lines.contains(&"upgrade: websocket".to_owned()));
        assert_eq!(ask("h2c", Version::HTTP_11).0, Way::Plain);
        assert_eq!(ask("websocket", Version::HTTP_10).0, Way::Plain);
        assert_eq!(
            passed(Version::HTTP_11, &["GET /", "host: x", "upgrade: websocket"])
                .unwrap()
                .0,
            Way::Plain
        );
    }

    #[test]
    fn grpc_goes_by_http2() {
        let ask = |kind: &str| {
            let kind = format!("content-type: {kind}");
            passed(Version::HTTP_2, &["POST http://x/p.S/M", "te: trailers", &kind]).unwrap()
        };
        let (way, lines) = ask("application/grpc+proto");
        assert_eq!((way, lines[0].as_str()), (Way::Grpc, "POST http://x/p.S/M"));
        assert!(lines.contains(&"te: trailers".to_owned()));
        assert!(!lines.iter().any(|line| line.starts_with("host:")));
        assert_eq!(ask("application/grpc").0, Way::Grpc);
        assert_eq!(ask("application/grpc-web").0, Way::Plain);
        assert_eq!(ask("application/json").0, Way::Plain);
    }
}
