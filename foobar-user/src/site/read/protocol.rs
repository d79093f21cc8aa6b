//! `protocol` of a `[[rule]]`, with what each protocol has: ports on both sides, types, TCP flags.

use std::ops::RangeInclusive;

use foobar_common::rules::{FlagMatch, Protocol};

use crate::site::section::{Section, nearest};
use crate::site::text;

/// Words that `protocol` takes beside a number.
const PROTOCOLS: [&str; 5] = ["tcp", "udp", "icmp", "icmpv6", "any"];
/// Names of TCP flags, and their bits in the header.
const FLAGS: [(&str, u8); 6] = [("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32)];
/// Keys that belong to some protocols only.
const KEYS: [&str; 4] = ["ports", "icmp_types", "source_ports", "tcp_flags"];
/// How ports are written.
const PORTS: &str = "a list of ports such as `[\"443\", \"8000-8010\"]`";

/// The protocol and what narrows it.
pub(super) struct Match {
    pub(super) protocol: Protocol,
    pub(super) source_ports: Vec<RangeInclusive<u16>>,
    pub(super) flags: Option<FlagMatch>,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<Match> {
    let span = section.place("protocol");
    let protocol = section.parse("protocol", "a protocol's name or number as a string", word);
    if protocol.is_none() && section.has("protocol") {
        KEYS.into_iter().for_each(|key| section.know(key));
        return None;
    }
    match protocol.as_ref().map_or("", |word| word.as_str()) {
        "tcp" | "6" => with_ports(section, true),
        "udp" | "17" => with_ports(section, false),
        "icmp" | "1" => with_types(section, false),
        "icmpv6" | "58" => with_types(section, true),
        word => {
            let narrowed = KEYS.into_iter().any(|key| section.has(key));
            for key in ["ports", "source_ports"] {
                section.refuse(key, "only tcp and udp have ports; set `protocol = \"tcp\"` or leave this out");
            }
            section.refuse("icmp_types", "only icmp and icmpv6 have types; set `protocol = \"icmp\"`");
            section.refuse("tcp_flags", "only tcp has flags; set `protocol = \"tcp\"` or leave this out");
            if narrowed {
                return None;
            }
            let number = word.parse().ok();
            if number == Some(0) {
                section.faults.error(span, "protocol 0 is IPv6's hop-by-hop header, no protocol; leave `protocol` out");
            }
            let protocol = number.map_or(Protocol::Any, Protocol::Number);
            Some(Match { protocol, source_ports: Vec::new(), flags: None })
        }
    }
}

fn word(word: &str) -> Result<String, String> {
    if PROTOCOLS.contains(&word) || word.parse::<u8>().is_ok() {
        return Ok(word.to_owned());
    }
    let hint = nearest(word, &PROTOCOLS).map_or_else(
        || format!("write {} or a number to 255", PROTOCOLS.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    Err(format!("`{word}` is no protocol; {hint}"))
}

fn with_ports(section: &mut Section<'_>, tcp: bool) -> Option<Match> {
    section.refuse("icmp_types", "only icmp and icmpv6 have types; name `ports` instead");
    let ports = list(section, "ports", PORTS, text::ports);
    let source_ports = list(section, "source_ports", PORTS, text::ports);
    let mut flags = None;
    if tcp {
        flags = section.parse("tcp_flags", "a string such as `\"syn,!ack\"`", tcp_flags).map(|flags| flags.value);
        if flags.is_none() && section.has("tcp_flags") {
            return None;
        }
    } else {
        section.refuse("tcp_flags", "only tcp has flags; set `protocol = \"tcp\"` or leave this out");
    }
    let ports = ports?;
    let protocol = if tcp { Protocol::Tcp(ports) } else { Protocol::Udp(ports) };
    Some(Match { protocol, source_ports: source_ports?, flags })
}

fn with_types(section: &mut Section<'_>, v6: bool) -> Option<Match> {
    for key in ["ports", "source_ports"] {
        section.refuse(key, "ICMP has no ports; name `icmp_types` instead");
    }
    section.refuse("tcp_flags", "only tcp has flags; leave this out");
    let types = list(section, "icmp_types", "a list of types", |word| text::icmp_type(word, v6))?;
    let protocol = if v6 { Protocol::Icmpv6(types) } else { Protocol::Icmp(types) };
    Some(Match { protocol, source_ports: Vec::new(), flags: None })
}

/// `syn,!ack`: flags that must be set, and with `!` those that must not.
fn tcp_flags(text: &str) -> Result<FlagMatch, String> {
    let mut found = FlagMatch { mask: 0, value: 0 };
    for word in text.split(',').map(str::trim) {
        let name = word.strip_prefix('!').map_or(word, str::trim);
        let Some((_, bit)) = FLAGS.into_iter().find(|(flag, _)| *flag == name) else {
            let names = FLAGS.map(|(flag, _)| flag);
            let hint = nearest(name, &names)
                .map_or_else(|| format!("flags are {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
            return Err(format!("`{name}` in `{text}` is no TCP flag; {hint}"));
        };
        let value = if word.starts_with('!') { 0 } else { bit };
        if found.mask & bit != 0 {
            let why = if found.value & bit == value { "is named twice" } else { "cannot be both set and not set" };
            return Err(format!("`{name}` in `{text}` {why}; name it once"));
        }
        found = FlagMatch { mask: found.mask | bit, value: found.value | value };
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_set_or_not() {
        let of = |mask, value| Ok(FlagMatch { mask, value });
        assert_eq!(tcp_flags("syn"), of(2, 2));
        assert_eq!(tcp_flags("syn,!ack"), of(18, 2));
        assert_eq!(tcp_flags(" !fin , ! rst,urg "), of(37, 32));
        for bad in ["", "syn,", "syn,!syn", "syn,syn", "SYN", "ece", "!!syn"] {
            assert!(tcp_flags(bad).is_err(), "{bad}");
        }
    }
}
