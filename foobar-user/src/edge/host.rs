//! Which host a request is for: exactly one, and one that the service answers for (RFC 9112 3.2, RFC 9113 8.3.1).

use std::net::{IpAddr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Version};

/// Hosts that a service answers for.
pub(crate) struct Hosts {
    domain: String,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// Why a request's host is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostFault {
    /// None, several, or two that differ: 400.
    Bad,
    /// Not ours: 421.
    Unknown,
}

impl Hosts {
    /// The domain and the literal addresses, at these ports.
    pub(crate) fn new(domain: &str, listen: &[SocketAddr]) -> Self {
        Self {
            domain: domain.to_owned(),
            addresses: listen.iter().map(SocketAddr::ip).collect(),
            ports: listen.iter().map(SocketAddr::port).collect(),
        }
    }

    /// The host of a request as a header value.
    pub(crate) fn of(&self, parts: &Parts) -> Result<HeaderValue, HostFault> {
        let mut headers = parts.headers.get_all(HOST).iter();
        let header = headers.next();
        if headers.next().is_some() {
            return Err(HostFault::Bad);
        }
        let host = match (parts.uri.authority(), header) {
            (None, Some(header)) => header.clone(),
            (None, None) => return Err(HostFault::Bad),
            // RFC 9112 3.2: absolute form does not free HTTP/1.1 from sending Host.
            (Some(_), None) if parts.version != Version::HTTP_2 => return Err(HostFault::Bad),
            (Some(authority), header) => {
                if header.is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())) {
                    return Err(HostFault::Bad);
                }
                HeaderValue::from_str(authority.as_str()).map_err(|_| HostFault::Bad)?
            }
        };
        let text = host.to_str().map_err(|_| HostFault::Bad)?;
        if text.is_empty() || text.contains(['@', ',', ' ', '/']) {
            return Err(HostFault::Bad);
        }
        if self.accepts(text) { Ok(host) } else { Err(HostFault::Unknown) }
    }

    fn accepts(&self, host: &str) -> bool {
        if host.eq_ignore_ascii_case(&self.domain) {
            return true;
        }
        let (name, port) = match host.rfind(':') {
            Some(colon) if !host.ends_with(']') => (&host[..colon], Some(&host[colon + 1..])),
            _ => (host, None),
        };
        if port.is_some_and(|port| !port.parse().is_ok_and(|port| self.ports.contains(&port))) {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case(&self.domain) || literal(name).is_some_and(|ip| self.addresses.contains(&ip))
    }
}

fn literal(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        let listen = ["203.0.113.10:443".parse().expect("v4"), "[2001:db8::10]:443".parse().expect("v6")];
        Hosts::new("www.foobar.com", &listen)
    }

    fn judge(version: Version, uri: &str, headers: &[&str]) -> Result<(), HostFault> {
        let mut request = http::Request::builder().version(version).uri(uri);
        for host in headers {
            request = request.header(HOST, *host);
        }
        hosts().of(&request.body(()).expect("request").into_parts().0).map(drop)
    }

    #[test]
    fn one_host_of_ours_is_accepted() {
        for host in [
            "www.foobar.com",
            "WWW.foobar.com:443",
            "www.foobar.com.",
            "203.0.113.10",
            "203.0.113.10:443",
            "[2001:db8::10]",
            "[2001:db8:0::10]:443",
        ] {
            assert_eq!(judge(Version::HTTP_11, "/", &[host]), Ok(()), "{host}");
        }
        assert_eq!(judge(Version::HTTP_2, "https://www.foobar.com/", &[]), Ok(()));
        assert_eq!(judge(Version::HTTP_11, "https://www.foobar.com/", &["www.foobar.com"]), Ok(()));
    }

    #[test]
    fn others_are_misdirected() {
        for host in [
            "foobar.com",
            "www.foobar.com:444",
            "203.0.113.11",
            "[2001:db8::11]",
            "2001:db8::10",
            "www.foobar.com:",
            ":443",
        ] {
            assert_eq!(judge(Version::HTTP_11, "/", &[host]), Err(HostFault::Unknown), "{host}");
        }
    }

    #[test]
    fn none_or_several_are_bad() {
        assert_eq!(judge(Version::HTTP_11, "/", &[]), Err(HostFault::Bad));
        assert_eq!(judge(Version::HTTP_11, "/", &[""]), Err(HostFault::Bad));
        assert_eq!(judge(Version::HTTP_11, "/", &["www.foobar.com", "www.foobar.com"]), Err(HostFault::Bad));
        assert_eq!(judge(Version::HTTP_11, "/", &["evil@www.foobar.com"]), Err(HostFault::Bad));
        assert_eq!(judge(Version::HTTP_2, "https://www.foobar.com/", &["evil.example"]), Err(HostFault::Bad));
        assert_eq!(judge(Version::HTTP_11, "https://www.foobar.com/", &[]), Err(HostFault::Bad));
    }
}
