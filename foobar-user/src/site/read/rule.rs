//! `[[rule]]`: what derivation cannot know.

use foobar_common::rules::{Action, Protocol};

use super::Reader;
use crate::site::at::At;
use crate::site::model::{Peer, UserRule};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Words that `protocol` takes beside a number.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "icmpv6", "any"];

pub(super) fn read(reader: &Reader<'_>, mut section: Section<'_>) -> Option<UserRule> {
    let name = section.parse("name", "a string", text::name);
    let name = section.need("name", name, "name = \"office-only\"");
    if let Some(name) = &name {
        section.title = format!("[[rule]] {}", name.value);
    }
    let on = section.list("on", "a list of roles or server names", text::place);
    let on = section.need("on", on, "on = [\"web\"]");
    let from = peers(&mut section, "from", "any");
    let to = peers(&mut section, "to", "the server's own addresses");
    let protocol = protocol(&mut section);
    let action = section.parse("action", "a string", action);
    let action = section.need("action", action, "action = \"deny\"");
    if let Some(on) = &on
        && on.is_empty()
    {
        section.faults.error(on.span, format!("`on` in {} names no server; name a role or a server", section.title));
    }
    let (line, _) = reader.source.position(section.span.start);
    section.finish();
    let (from, to) = (from?, to?);
    let from =
        if from.is_empty() { vec![At::new(Peer::Any, on.as_ref()?.span.start..on.as_ref()?.span.end)] } else { from };
    Some(UserRule { name: name?, line, on: on?.value, from, to, protocol: protocol?, action: action?.value })
}

/// `from` or `to`; an absent key is an empty list, an empty list is a fault because it matches nobody.
fn peers(section: &mut Section<'_>, key: &'static str, default: &str) -> Option<Vec<At<Peer>>> {
    if !section.has(key) {
        section.know(key);
        return Some(Vec::new());
    }
    let list = section.list(key, "a list of roles, server names, prefixes or `any`", text::peer)?;
    if list.is_empty() {
        let message = format!("`{key}` in {} is empty and matches nobody; leave it out for {default}", section.title);
        section.faults.error(list.span, message);
        return None;
    }
    Some(list.value)
}

fn action(word: &str) -> Result<Action, String> {
    match word {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        _ => Err(format!("`{word}` is no action; write `allow` or `deny`")),
    }
}

/// `protocol` with `ports` or `icmp_types`.
fn protocol(section: &mut Section<'_>) -> Option<Protocol> {
    let (has_ports, has_types) = (section.has("ports"), section.has("icmp_types"));
    let span = section.place("protocol");
    let protocol = section.parse("protocol", "a protocol's name or number as a string", |word| {
        if PROTOCOLS.contains(&word) || word.parse::<u8>().is_ok() {
            return Ok(word.to_owned());
        }
        let hint = nearest(word, &PROTOCOLS).map_or_else(
            || format!("write {} or a number to 255", PROTOCOLS.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Err(format!("`{word}` is no protocol; {hint}"))
    });
    if protocol.is_none() && section.has("protocol") {
        section.know("ports");
        section.know("icmp_types");
        return None;
    }
    let word = protocol.map_or_else(|| if has_ports { String::new() } else { "any".to_owned() }, |word| word.value);
    match word.as_str() {
        "tcp" | "6" | "udp" | "17" => {
            section.refuse("icmp_types", "only icmp and icmpv6 have types; name `ports` instead");
            let ports = list(section, "ports", "a list of ports such as `[\"443\", \"8000-8010\"]`", text::ports)?;
            Some(if word == "tcp" || word == "6" { Protocol::Tcp(ports) } else { Protocol::Udp(ports) })
        }
        "icmp" | "1" | "icmpv6" | "58" => {
            section.refuse("ports", "ICMP has no ports; name `icmp_types` instead");
            let v6 = word == "icmpv6" || word == "58";
            let types = list(section, "icmp_types", "a list of types", |word| text::icmp_type(word, v6))?;
            Some(if v6 { Protocol::Icmpv6(types) } else { Protocol::Icmp(types) })
        }
        _ => {
            section.refuse("ports", "only tcp and udp have ports; set `protocol = \"tcp\"` or leave `ports` out");
            section.refuse("icmp_types", "only icmp and icmpv6 have types; set `protocol = \"icmp\"`");
            if has_ports || has_types {
                return None;
            }
            let number = word.parse().ok();
            if number == Some(0) {
                section.faults.error(span, "protocol 0 is IPv6's hop-by-hop header, no protocol; leave `protocol` out");
            }
            Some(number.map_or(Protocol::Any, Protocol::Number))
        }
    }
}

/// A list of values without their places; absent means everything, empty is a fault.
fn list<T>(
    section: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    if !section.has(key) {
        section.know(key);
        return Some(Vec::new());
    }
    let list = section.list(key, expected, parse)?;
    if list.is_empty() {
        let message = format!("`{key}` in {} is empty and matches nothing; leave it out for all", section.title);
        section.faults.error(list.span, message);
        return None;
    }
    Some(list.value.into_iter().map(|item| item.value).collect())
}
