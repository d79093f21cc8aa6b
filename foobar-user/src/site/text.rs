//! Words of the site file turned into values: free functions whose errors say what was expected and what to do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::model::{Peer, Place, Target};
use super::section::nearest;
use crate::plan::{Endpoint, Role};

/// Longest name: it becomes a label, a file name and a cgroup.
const NAME_MAX: usize = 32;
/// Longest name of an interface that Linux takes (`IFNAMSIZ` without its zero).
const INTERFACE_MAX: usize = 15;
/// Placeholders of commands and environments.
pub(super) const PLACEHOLDERS: [&str; 3] = ["address", "server", "domain"];

/// A name: of a server, service, process or rule.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.len() > NAME_MAX {
        return Err(format!("`{text}` is longer than {NAME_MAX} characters; shorten it"));
    }
    let letters = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !letters || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(format!("`{text}` is no name; use a-z, 0-9 and -, beginning with a letter"));
    }
    Ok(text.to_owned())
}

/// A domain name.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) && text.parse::<IpAddr>().is_err() {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no domain name; write it in lower case, such as `www.foobar.com`"))
    }
}

/// A role.
pub(super) fn role(text: &str) -> Result<Role, String> {
    Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
        let names = Role::ALL.map(Role::as_str);
        let hint = nearest(text, &names)
            .map_or_else(|| format!("roles are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        format!("`{text}` is no role; {hint}")
    })
}

/// Whether an address can be one host's.
pub(super) fn unicast(address: IpAddr) -> Result<IpAddr, String> {
    let bad = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_loopback() => Some("a loopback address"),
        _ if address.is_multicast() => Some("a multicast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6's clothes"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        _ => None,
    };
    match bad {
        Some(what) => Err(format!("`{address}` is {what}; write the address that other hosts use")),
        None => Ok(address),
    }
}

/// An IP address of a host, and the network that it lies in, where a prefix length says so.
pub(super) fn address(text: &str) -> Result<(IpAddr, Option<IpNet>), String> {
    let wrong = |what: &str, example: &str| format!("`{text}` is no {what}, such as `{example}`");
    if !text.contains('/') {
        return Ok((unicast(text.parse().map_err(|_| wrong("IP address", "10.0.1.1"))?)?, None));
    }
    let net: IpNet = text.parse().map_err(|_| wrong("IP address with its network's prefix length", "10.0.1.1/24"))?;
    let address = unicast(net.addr())?;
    // RFC 3021, RFC 6164: links between two hosts need no addresses for the network and for everybody.
    let has_hosts = net.max_prefix_len() - net.prefix_len() > 1;
    if has_hosts && address == net.network() {
        return Err(format!(
            "`{text}` is a network; write the server's own address in it, such as `{}/{}`",
            first_host(net),
            net.prefix_len()
        ));
    }
    if has_hosts && address.is_ipv4() && address == net.broadcast() {
        return Err(format!("`{text}` is the broadcast address of {}; write the server's own", net.trunc()));
    }
    Ok((address, Some(net.trunc())))
}

/// The first host of a network that has some.
fn first_host(net: IpNet) -> IpAddr {
    net.hosts().next().unwrap_or_else(|| net.addr())
}

/// An address and a port: where a service listens.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let socket: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is no address and port; write `203.0.113.10:443` or `[2001:db8::10]:443`"))?;
    if socket.port() == 0 {
        return Err(format!("`{text}` has port 0; ports are 1 to 65535"));
    }
    unicast(socket.ip())?;
    Ok(socket)
}

/// Where a member of an etcd cluster listens: a URL of nothing but a scheme, a host and a port.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, String> {
    let wrong = || format!("`{text}` is no member of an etcd cluster; write `https://10.0.1.51:2379`");
    let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(wrong()),
    };
    let (host, port) = authority.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
        None if host.parse::<Ipv4Addr>().is_ok() => host.to_owned(),
        // An address with a slip in it is no name.
        None if host.ends_with(|last: char| last.is_ascii_digit()) && !host.contains(char::is_alphabetic) => {
            return Err(wrong());
        }
        None => domain(host).map_err(|_| wrong())?,
    };
    if let Ok(address) = host.parse::<IpAddr>()
        && (address.is_unspecified() || address.is_multicast())
    {
        return Err(format!("`{text}` is the address of nobody; write the one that the member listens on"));
    }
    Ok(Endpoint { tls, host, port })
}

/// A prefix, or an address as the prefix of one host.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| format!("`{text}` is no prefix, such as `198.51.100.0/24`"))?,
    };
    if net != net.trunc() {
        return Err(format!("`{text}` has host bits beyond its prefix length; write `{}`", net.trunc()));
    }
    Ok(net)
}

/// Who: `any`, a role, a prefix, a server's name, or `set:` and a set's name.
pub(super) fn peer(text: &str) -> Result<Peer, String> {
    if text == "any" {
        return Ok(Peer::Any);
    }
    if let Some(set) = text.strip_prefix("set:") {
        return name(set).map(Peer::Set);
    }
    if text.contains(['.', ':', '/']) {
        return prefix(text).map(Peer::Prefix);
    }
    Ok(match place(text)? {
        Place::Role(role) => Peer::Role(role),
        Place::Server(server) => Peer::Server(server),
    })
}

/// Where: a role, or a server's name (whether there is one is checked later).
pub(super) fn place(text: &str) -> Result<Place, String> {
    match Role::ALL.into_iter().find(|role| role.as_str() == text) {
        Some(role) => Ok(Place::Role(role)),
        None => name(text).map(Place::Server),
    }
}

/// `role:port`.
pub(super) fn target(text: &str) -> Result<Target, String> {
    let (left, right) =
        text.split_once(':').ok_or_else(|| format!("`{text}` names no port; write role:port, such as `web:8443`"))?;
    let port = match right.parse() {
        Ok(0) | Err(_) => return Err(format!("`{right}` in `{text}` is no port; ports are 1 to 65535")),
        Ok(port) => port,
    };
    Ok(Target { role: role(left)?, port })
}

/// A port or a range of ports: `443`, `8000-8010`.
pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |word: &str| match word.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("`{word}` is no port; write 1 to 65535, or a range such as `8000-8010`")),
        Ok(port) => Ok(port),
    };
    let Some((low, high)) = text.split_once('-') else { return port(text).map(|port| port..=port) };
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(format!("the range `{text}` is reversed; write `{high}-{low}`"));
    }
    Ok(low..=high)
}

/// Names of ICMP types: name, ICMP's number, ICMPv6's number.
const ICMP_TYPES: [(&str, Option<u8>, Option<u8>); 10] = [
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("router-solicitation", None, Some(133)),
    ("router-advertisement", None, Some(134)),
    ("neighbour-solicitation", None, Some(135)),
    ("neighbour-advertisement", None, Some(136)),
];

/// An ICMP type by name or number.
pub(super) fn icmp_type(text: &str, v6: bool) -> Result<u8, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let number = |entry: &(&'static str, Option<u8>, Option<u8>)| if v6 { entry.2 } else { entry.1 };
    if let Some(entry) = ICMP_TYPES.iter().find(|(name, ..)| *name == text) {
        return number(entry).ok_or_else(|| format!("`{text}` exists only in ICMPv6; set protocol = \"icmpv6\""));
    }
    let names: Vec<&str> = ICMP_TYPES.iter().filter(|entry| number(entry).is_some()).map(|entry| entry.0).collect();
    let hint = nearest(text, &names).map_or_else(
        || format!("write a number or one of {}", names.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(format!("`{text}` is no ICMP type; {hint}"))
}

/// The name of a network interface.
pub(super) fn interface(text: &str) -> Result<String, String> {
    if text.len() > INTERFACE_MAX {
        return Err(format!("interface `{text}` is longer than the {INTERFACE_MAX} characters that Linux takes"));
    }
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', ':']) || text.contains(char::is_whitespace)
    {
        return Err(format!("`{text}` is no interface name; `ip link` lists them"));
    }
    Ok(text.to_owned())
}

/// A path of a URL.
pub(super) fn url_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` must begin with `/`; write `/{text}`"));
    }
    // It becomes a word of nginx's configuration and of a request line: nothing in it may end either.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!&+,=:@?".contains(&b);
    if !text.bytes().all(plain) {
        return Err(format!("`{text}` holds characters that a path here cannot; encode them as %XX"));
    }
    Ok(text.to_owned())
}

/// A word of a command or its environment: every `{word}` must be a known placeholder.
pub(super) fn template(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("a zero byte cannot be passed to a program; remove it".to_owned());
    }
    for word in text.split('{').skip(1) {
        let Some((word, _)) = word.split_once('}') else { continue };
        let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_word && !PLACEHOLDERS.contains(&word) {
            let known = PLACEHOLDERS.map(|known| format!("{{{known}}}")).join(", ");
            return Err(format!("unknown placeholder `{{{word}}}`; known are {known}"));
        }
    }
    Ok(text.to_owned())
}

/// An account of the system, a database or its owner.
pub(super) fn account(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if first && text.len() <= NAME_MAX && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no account name; use a-z, 0-9, _ and -, beginning with a letter, at most {NAME_MAX}"))
    }
}

/// Signals that may ask a process to stop.
const SIGNALS: [&str; 7] = ["TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH"];

/// A signal's name without `SIG`.
pub(super) fn signal(text: &str) -> Result<String, String> {
    if SIGNALS.contains(&text) {
        return Ok(text.to_owned());
    }
    let bare = text.to_ascii_uppercase();
    let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
    if SIGNALS.contains(&bare) {
        return Err(format!("`{text}` is no signal; write `{bare}`"));
    }
    Err(format!("`{text}` is no signal that stops a process; use one of {}", SIGNALS.join(", ")))
}
