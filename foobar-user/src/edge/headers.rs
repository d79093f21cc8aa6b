//! Headers that end here: hop-by-hop ones in both directions (RFC 9110 7.6.1), and what a client claims about its origin.
//! What replaces the claims: `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded` (RFC 7239).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of one hop.
const HOP: [HeaderName; 7] = [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What is said about one client; made once a connection.
pub(crate) struct Origin {
    address: HeaderValue,
    node: String,
    domain: String,
    forwarded: HeaderValue,
}

impl Origin {
    /// The client at `address`, asking for `domain` as a rule.
    pub(crate) fn new(address: IpAddr, domain: &str) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(address) => address.to_string(),
            // RFC 7239 6: IPv6 is bracketed, and the brackets force quotes.
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let forwarded = forwarded(&node, domain);
        Self { address: ascii(&address.to_string()), node, domain: domain.to_owned(), forwarded }
    }

    /// Replaces whatever the client said; `host` is validated.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap, host: &HeaderValue) {
        let forwarded = match host.to_str() {
            Ok(host) if host != self.domain => forwarded(&self.node, host),
            _ => self.forwarded.clone(),
        };
        headers.insert(X_FORWARDED_FOR, self.address.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.insert(X_FORWARDED_HOST, host.clone());
        headers.insert(FORWARDED, forwarded);
        headers.insert(HOST, host.clone());
    }
}

fn forwarded(node: &str, host: &str) -> HeaderValue {
    ascii(&format!("for={node};host=\"{host}\";proto=https"))
}

/// Addresses and accepted hosts are plain ASCII; an empty value would be the worst that happens.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Removes what must not reach a backend. The body's length is removed too: it is written anew from the parsed body.
pub(crate) fn clean_request(headers: &mut HeaderMap) {
    strip_hop(headers);
    headers.remove(CONTENT_LENGTH);
    headers.remove(EXPECT);
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    join_cookies(headers);
}

/// Removes what must not reach a client.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop(headers);
}

/// Whether the client asks to change protocols.
pub(crate) fn asks_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade")))
}

fn strip_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            .collect();
        for name in named {
            // Naming Host in Connection must not remove it: backends would see another request than we did.
            if name != HOST {
                headers.remove(name);
            }
        }
    }
    for name in HOP {
        headers.remove(name);
    }
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or("").split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a header claims where a request comes from, also when written with underscores, which CGI-like
/// servers do not tell from dashes.
fn is_claim(name: &str) -> bool {
    let bytes = name.as_bytes();
    matches!(bytes.first(), Some(b'x' | b'f'))
        && (starts_with(bytes, b"x-forwarded") || is(bytes, b"x-real-ip") || is(bytes, b"forwarded"))
}

fn is(name: &[u8], wanted: &[u8]) -> bool {
    name.len() == wanted.len() && starts_with(name, wanted)
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.len() >= prefix.len()
        && name.iter().zip(prefix).all(|(&have, &want)| have == want || (have == b'_' && want == b'-'))
}

/// RFC 9113 8.2.3: HTTP/2 may split `Cookie`; HTTP/1.1 must have it in one piece.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let joined = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn hop_by_hop_and_named_headers_end_here() {
        let mut headers = map(&[
            ("connection", "close, X-Private, host"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("proxy-connection", "close"),
            ("host", "www.foobar.com"),
            ("accept", "*/*"),
        ]);
        clean_request(&mut headers);
        assert_eq!(headers, map(&[("host", "www.foobar.com"), ("accept", "*/*")]));
    }

    #[test]
    fn claims_are_replaced() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-real_ip", "1.1.1.1"),
            ("x-other", "kept"),
        ]);
        clean_request(&mut headers);
        let host = HeaderValue::from_static("www.foobar.com");
        Origin::new("2001:db8::50".parse().expect("address"), "www.foobar.com").stamp(&mut headers, &host);
        let expected = map(&[
            ("x-other", "kept"),
            ("x-forwarded-for", "2001:db8::50"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "www.foobar.com"),
            ("forwarded", "for=\"[2001:db8::50]\";host=\"www.foobar.com\";proto=https"),
            ("host", "www.foobar.com"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        clean_request(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }

    #[test]
    fn a_chunked_response_has_no_length() {
        let mut headers = map(&[("transfer-encoding", "chunked"), ("content-length", "3")]);
        clean_response(&mut headers);
        assert!(headers.is_empty());
    }
}
