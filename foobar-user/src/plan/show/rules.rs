//! The rules of a plan as rows: a column for each dimension, in the words of the site file.

use std::fmt::Display;
use std::ops::RangeInclusive;

use foobar_common::rules::{Action, FlagMatch, Limit, Limited, Places, Protocol, Rate};

use super::super::{Origin, Plan, PlannedRule};
use super::list;

/// Heads of the columns.
pub(crate) const HEAD: [&str; 11] =
    ["rule", "action", "protocol", "from", "from port", "to", "flags", "interface", "limit", "log", "because of"];
/// Most prefixes of a cell.
const PREFIXES_MAX: usize = 6;
/// Names of TCP flags by their bits.
const FLAGS: [(u8, &str); 6] = [(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg")];

pub(crate) fn rows(plan: &Plan) -> Vec<Vec<String>> {
    plan.rules.iter().map(row).collect()
}

fn row(planned: &PlannedRule) -> Vec<String> {
    let rule = &planned.rule;
    let action = match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Limit(_) => "limit",
        Action::Shadow(_) => "shadow",
    };
    vec![
        rule.name.clone(),
        if rule.leased { format!("{action} while leased") } else { action.to_owned() },
        protocol(&rule.protocol),
        places(&rule.sources),
        ports(&rule.source_ports),
        places(&rule.destinations),
        rule.flags.map_or_else(String::new, flags),
        list(&rule.interfaces),
        rule.action.limit().map_or_else(String::new, limit),
        if rule.log_per_second == 0 { String::new() } else { format!("{}/second", rule.log_per_second) },
        match &planned.origin {
            Origin::Line(line) => format!("line {line}"),
            Origin::Derived(from) => from.clone(),
        },
    ]
}

fn places(places: &Places) -> String {
    if places.is_any() {
        return "any".to_owned();
    }
    let sets = places.sets.iter().map(|set| format!("set:{set}"));
    let prefixes = places.prefixes.iter().map(ToString::to_string);
    let all: Vec<String> = sets.chain(prefixes).collect();
    match all.get(PREFIXES_MAX..) {
        Some(more @ [_, ..]) => format!("{} and {} more", list(&all[..PREFIXES_MAX]), more.len()),
        _ => list(&all),
    }
}

fn ports(ranges: &[RangeInclusive<u16>]) -> String {
    let range = |range: &RangeInclusive<u16>| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

fn protocol(protocol: &Protocol) -> String {
    let with = |name: &str, what: String| format!("{name} {what}").trim_end().to_owned();
    let types = |types: &[u8]| joined(types.iter());
    match protocol {
        Protocol::Any => "any".to_owned(),
        Protocol::Tcp(ranges) => with("tcp", ports(ranges)),
        Protocol::Udp(ranges) => with("udp", ports(ranges)),
        Protocol::Icmp(kinds) => with("icmp", types(kinds)),
        Protocol::Icmpv6(kinds) => with("icmpv6", types(kinds)),
        Protocol::Number(number) => format!("protocol {number}"),
    }
}

fn flags(flags: FlagMatch) -> String {
    let asked = FLAGS.into_iter().filter(|(bit, _)| flags.mask & bit != 0);
    joined(asked.map(|(bit, name)| format!("{}{name}", if flags.value & bit == 0 { "!" } else { "" })))
}

fn joined<T: Display>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn limit(limit: &Limit) -> String {
    let rate = |what: &str, rate: Rate| {
        let unit = match rate.period_ms {
            1_000 => "second".to_owned(),
            60_000 => "minute".to_owned(),
            3_600_000 => "hour".to_owned(),
            other => format!("{other} ms"),
        };
        format!("{} {what}/{unit}, burst {}", rate.count, rate.burst)
    };
    let what = match limit.what {
        Limited::Packets(packets) => rate("packets", packets),
        Limited::Connections(connections) => rate("connections", connections),
        Limited::Open(count) => format!("{count} open"),
    };
    format!("{what}, per /{} /{}", limit.per4, limit.per6)
}
