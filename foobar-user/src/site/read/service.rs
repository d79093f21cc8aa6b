//! `[service.name]`: where it listens, how it forwards, who may connect, how members are checked.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use foobar_common::abi::MAX_SOURCES;

use super::{Reader, balance, reads};
use crate::plan::{Reads, Role, Select, Transport};
use crate::site::at::At;
use crate::site::model::{Forward, Peer, Service, SiteCheck, SiteCheckKind, SiteHttpCheck, Tls};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Most VIP:port pairs of one service.
const LISTEN_MAX: usize = 16;
/// Where plain HTTP is redirected from when the file does not say.
const REDIRECT_PORT: u16 = 80;
/// Default interval and timeout of checks.
const CHECK_MS: u64 = 250;
/// Default successes in a row that bring a backend up, and failures that take it down.
const CHECK_COUNT: u64 = 2;
/// Status codes that are good where the file does not say.
const STATUS_GOOD: RangeInclusive<u16> = 200..=399;
/// What interval and timeout may be.
const CHECK_MS_RANGE: RangeInclusive<u64> = 10..=60_000;
/// What rise and fall may be.
const CHECK_COUNT_RANGE: RangeInclusive<u64> = 1..=100;

pub(super) fn read(reader: &Reader<'_>, name: At<String>, mut section: Section<'_>) -> Option<Service> {
    let checked = text::name(&name).map_err(|why| section.faults.error(name.span, format!("service name {why}")));
    let listen = section.list("listen", "an address and port, or a list of them", text::listen);
    let listen = section.need("listen", listen, "listen = \"203.0.113.10:443\"");
    if let Some(list) = &listen
        && (list.is_empty() || list.len() > LISTEN_MAX)
    {
        let message = format!("`listen` in {} must name 1 to {LISTEN_MAX} addresses", section.title);
        section.faults.error(list.span, message);
    }
    let to = section.parse("to", "role:port", text::target);
    let to = section.need("to", to, "to = \"web:8443\"");
    let protocol = section.parse("protocol", "a string", transport);
    let protocol = protocol.map_or(Transport::Tcp, |protocol| protocol.value);
    let forward = forward(reader, &mut section, protocol);
    let sources = sources(&mut section, forward.as_ref());
    let balance = balance::read(&mut section, protocol, forward.as_ref());
    let from = from(&mut section, forward.as_ref());
    let role = to.as_ref().map(|to| to.role);
    let select = section.parse("select", "a string", select).map_or(Select::Any, |select| select.value);
    if select != Select::Any && role.is_some_and(|role| role != Role::Database) {
        let message = format!(
            "`select` in {} is for databases only; leave it out, or set `to = \"database:5432\"`",
            section.title
        );
        section.faults.error(section.place("select"), message);
    }
    let select = reads::read(&mut section, select);
    let check = check(&mut section, role, select);
    section.finish();
    checked.ok()?;
    Some(Service {
        name,
        listen: listen?.value,
        protocol,
        to: to?,
        forward: forward?,
        sources,
        balance,
        from: from?,
        select,
        check: check?,
    })
}

/// What an HTTP check asks, and what it takes for good.
fn http_check(table: &mut Section<'_>, check: &mut SiteHttpCheck) {
    if let Some(path) = table.parse("path", "a path", text::url_path) {
        check.path = path.value;
    }
    check.host = table.parse("host", "a host's name", text::domain).map(|host| host.value);
    if let Some(status) = table.parse("status", "a status such as \"200\" or \"200-299\"", status) {
        check.status = status.value;
    }
    check.body = table
        .parse("body", "a text", |text| match text {
            "" => Err("an empty text is in every body; leave it out".to_owned()),
            text => Ok(text.to_owned()),
        })
        .map(|body| body.value);
}

/// A status code, or a range of them.
fn status(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..600).contains(code));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("`{text}` is no status; write \"200\" or \"200-299\"")),
    }
}

fn transport(word: &str) -> Result<Transport, String> {
    match word {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(format!("`{word}` is no transport of services; write `tcp` or `udp`")),
    }
}

fn select(word: &str) -> Result<Select, String> {
    match word {
        "any" => Ok(Select::Any),
        "primary" => Ok(Select::Primary),
        "replica" => Ok(Select::Replica(Reads::default())),
        _ => {
            let hint = nearest(word, &["any", "primary", "replica"])
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            Err(format!("`{word}` selects nothing; write `any`, `primary` or `replica`{hint}"))
        }
    }
}

/// `tls` with its keys, or `forward`.
fn forward(reader: &Reader<'_>, section: &mut Section<'_>, protocol: Transport) -> Option<Forward> {
    if section.has("tls") {
        if protocol == Transport::Udp {
            section.faults.error(section.place("protocol"), "TLS runs over tcp; leave `protocol` or `tls` out");
        }
        section.refuse("forward", "a `tls` service ends at the balancer's edge and is not forwarded; leave it out");
        let redirect = section.port("redirect_port", 0).map_or(REDIRECT_PORT, |port| port.value);
        let encrypt = section.flag("encrypt").is_some_and(|encrypt| encrypt.value);
        let mut table = section.table("tls", "{ certificate = \"www.pem\", key = \"www.key\" }")?;
        let certificate = reader.path(&mut table, "certificate");
        let certificate = table.need("certificate", certificate, "certificate = \"www.pem\"");
        let key = reader.path(&mut table, "key");
        let key = table.need("key", key, "key = \"www.key\"");
        table.finish();
        let redirect_port = Some(redirect).filter(|port| *port != 0);
        return Some(Forward::Tls(Tls { certificate: certificate?, key: key?, redirect_port, encrypt }));
    }
    // Known, so that a misspelt `tls` is named.
    section.know("tls");
    for key in ["redirect_port", "encrypt"] {
        section.refuse(key, "this needs `tls = { certificate = …, key = … }`; add it or leave this out");
    }
    let forward = section.parse("forward", "a string", |word| match word {
        "nat" => Ok(Forward::Nat),
        "direct" => Ok(Forward::Direct),
        "tunnel" => Ok(Forward::Tunnel),
        "socket" => Ok(Forward::Socket),
        _ => Err(format!("`{word}` is no way of forwarding; write `nat`, `direct`, `tunnel` or `socket`")),
    });
    match forward {
        None if section.has("forward") => None,
        None => Some(Forward::Socket),
        Some(forward) => Some(forward.value),
    }
}

/// A source address is the balancer's alone: it lies in no network.
fn plain((address, network): (IpAddr, Option<ipnet::IpNet>)) -> Result<IpAddr, String> {
    match network {
        None => Ok(address),
        Some(network) => Err(format!("`{network}` is a network; write `{address}`")),
    }
}

/// `source`: from where backends see a nat service's connections.
fn sources(section: &mut Section<'_>, forward: Option<&Forward>) -> Vec<At<IpAddr>> {
    let list = section.list("source", "an address, or a list of them", |text| text::address(text).and_then(plain));
    if !matches!(forward, Some(Forward::Nat) | None) {
        section
            .refuse("source", "only `forward = \"nat\"` gives packets another source; leave it out, or set `forward`");
        return Vec::new();
    }
    let Some(list) = list else { return Vec::new() };
    if list.value.is_empty() {
        let message = format!("`source` in {} is empty; name an address, or leave it out", section.title);
        section.faults.error(list.span, message);
    }
    for v6 in [false, true] {
        let mut of_family = list.value.iter().filter(|source| source.is_ipv6() == v6);
        if let Some(over) = of_family.nth(MAX_SOURCES as usize) {
            section.faults.error(over.span, format!("more than {MAX_SOURCES} source addresses of one family"));
        }
    }
    list.value
}

/// `from`: everybody by default for what the balancer serves; sockets must say who.
fn from(section: &mut Section<'_>, forward: Option<&Forward>) -> Option<Vec<At<Peer>>> {
    let list = section.list("from", "a list of roles, server names, prefixes or `any`", |word| {
        if word.starts_with("set:") {
            return Err(format!("`{word}` is a set, and services take none; let a `[[rule]]` allow or deny it"));
        }
        text::peer(word)
    });
    if section.has("from") {
        let list = list?;
        if list.is_empty() {
            let message = format!("`from` in {} is empty: nobody could connect; name who may", section.title);
            section.faults.error(list.span, message);
        }
        return Some(list.value);
    }
    if matches!(forward, Some(Forward::Socket)) {
        return section.need::<Vec<At<Peer>>>("from", None, "from = [\"web\"]");
    }
    Some(vec![At::new(Peer::Any, section.span)])
}

/// `check`, with a default kind for each role.
fn check(section: &mut Section<'_>, role: Option<Role>, select: Select) -> Option<SiteCheck> {
    let default = if role == Some(Role::Database) { SiteCheckKind::Postgres } else { SiteCheckKind::Tcp };
    let defaults = SiteCheck {
        kind: default.clone(),
        interval_ms: CHECK_MS,
        timeout_ms: CHECK_MS,
        rise: 2,
        fall: 2,
        span: section.span,
    };
    if !section.has("check") {
        section.know("check");
        return Some(defaults);
    }
    let mut table = section.table("check", "{ kind = \"http\", path = \"/healthz\" }")?;
    let kind = table.parse("kind", "a string", |word| match word {
        "tcp" => Ok(SiteCheckKind::Tcp),
        "tls" => Ok(SiteCheckKind::Tls),
        "http" => {
            Ok(SiteCheckKind::Http(SiteHttpCheck { path: "/".to_owned(), host: None, status: STATUS_GOOD, body: None }))
        }
        "postgres" => Ok(SiteCheckKind::Postgres),
        "script" => Ok(SiteCheckKind::Script(Vec::new())),
        _ => Err(format!("`{word}` is no kind of check; write `tcp`, `tls`, `http`, `postgres` or `script`")),
    });
    let unknown_kind = kind.is_none() && table.has("kind");
    let mut kind = kind.map_or(default, |kind| kind.value);
    match &mut kind {
        SiteCheckKind::Http(check) => http_check(&mut table, check),
        _ if unknown_kind => {}
        _ => {
            table.refuse("path", "only `kind = \"http\"` asks for a path; set the kind or leave the path out");
            for key in ["host", "status", "body"] {
                table.refuse(key, "only `kind = \"http\"` has this; set the kind or leave it out");
            }
        }
    }
    let command = table.list("command", "a program and its arguments", |word| Ok(word.to_owned()));
    match &mut kind {
        SiteCheckKind::Script(program) => {
            let command = table.need("command", command, "command = [\"/usr/local/bin/check\"]");
            *program = command.map_or_else(Vec::new, |list| list.value.into_iter().map(|word| word.value).collect());
            if program.first().is_none_or(|program| !program.starts_with('/')) && table.has("command") {
                table.faults.error(table.place("command"), "a check's program is named by its whole path");
            }
        }
        _ if table.has("command") && !unknown_kind => {
            let message = "only `kind = \"script\"` runs a command; set the kind or leave the command out";
            table.faults.error(table.place("command"), message);
        }
        _ => {}
    }
    let span = table.place("kind");
    if kind == SiteCheckKind::Postgres && role.is_some_and(|role| role != Role::Database) {
        table.faults.error(span, "a postgres check is for `to = \"database:…\"`; use `tcp` or `http` here");
    }
    if kind != SiteCheckKind::Postgres && select != Select::Any {
        table.faults.error(span, "`select` needs a postgres check, which tells the role; leave `kind` out");
    }
    let interval = table.integer("interval_ms", CHECK_MS_RANGE).map(|number| number.value);
    let timeout = table.integer("timeout_ms", CHECK_MS_RANGE);
    let interval_ms = interval.unwrap_or(CHECK_MS);
    if let Some(timeout) = &timeout
        && timeout.value > interval_ms
    {
        let message = format!(
            "`timeout_ms` of {} is longer than its interval of {interval_ms} ms; checks would overlap: raise `interval_ms`",
            timeout.value
        );
        table.faults.error(timeout.span, message);
    }
    let timeout_ms = timeout.map_or(CHECK_MS.min(interval_ms), |timeout| timeout.value);
    let mut count = |key| {
        let count = table.integer(key, CHECK_COUNT_RANGE).map_or(CHECK_COUNT, |count| count.value);
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let (rise, fall) = (count("rise"), count("fall"));
    let span = table.span;
    table.finish();
    Some(SiteCheck { kind, interval_ms, timeout_ms, rise, fall, span })
}
