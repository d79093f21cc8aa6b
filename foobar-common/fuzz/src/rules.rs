//! Rules and packets made of any bytes: few distinct addresses, ports and types, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use arbitrary::{Result, Unstructured};
use foobar_common::address::{Address, Be16, Family, Tuple};
use foobar_common::firewall::{Allowed, judge};
use foobar_common::host::HostTables;
use foobar_common::parse::Headers;
use foobar_common::rules::linear::{self, Fields};
use foobar_common::rules::{Action, FlagMatch, Protocol, Rule};
use foobar_common::verdict::Reason;
use foobar_common::vlan::Ingress;
use ipnet::IpNet;

/// IP protocols that mean something here, and some that do not.
const PROTOCOLS: [u8; 7] = [0, 1, 6, 17, 58, 89, 255];

/// Interfaces that rules may name; the packet may come by another one.
pub const INTERFACES: [&str; 2] = ["front", "back"];

/// A packet, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What the linear matcher knows.
    pub fields: Fields<'static>,
    /// Interface index: 1 and 2 are [`INTERFACES`], 3 is one that no rule can name.
    pub interface: u32,
}

/// Rules.
///
/// # Errors
/// The bytes are at their end.
pub fn rules(bytes: &mut Unstructured<'_>) -> Result<Vec<Rule>> {
    let count = bytes.int_in_range(0..=70)?;
    (0..count).map(|_| rule(bytes)).collect()
}

fn rule(bytes: &mut Unstructured<'_>) -> Result<Rule> {
    let action = *bytes.choose(&[Action::Allow, Action::Deny])?;
    let (sources, destinations) = (prefixes(bytes)?.into(), prefixes(bytes)?.into());
    let mut rule = Rule { sources, destinations, protocol: protocol(bytes)?, ..Rule::any("", action) };
    if matches!(rule.protocol, Protocol::Tcp(_) | Protocol::Udp(_)) {
        rule.source_ports = ranges(bytes)?;
    }
    if matches!(rule.protocol, Protocol::Tcp(_)) && bytes.arbitrary()? {
        let (mask, value) = (bytes.int_in_range(0..=63_u8)?, bytes.int_in_range(0..=63_u8)?);
        rule.flags = Some(FlagMatch { mask, value: value & mask });
    }
    if bytes.ratio(1, 4)? {
        rule.interfaces.push((*bytes.choose(&INTERFACES)?).to_owned());
    }
    Ok(rule)
}

/// At most so many rules may shadow; turns the first ones of those that deny by the bytes' choice.
///
/// # Errors
/// The bytes are at their end.
pub fn shadow(bytes: &mut Unstructured<'_>, rules: &mut [Rule]) -> Result<()> {
    for rule in rules.iter_mut().filter(|rule| rule.action == Action::Deny).take(32) {
        if bytes.ratio(1, 4)? {
            rule.action = Action::Shadow(None);
        }
    }
    Ok(())
}

/// What the rules say of a packet, one after the other: the numbers of those that count it, and whether it may go on.
#[must_use]
pub fn walked(rules: &[Rule], seen: &Seen) -> (Vec<u32>, std::result::Result<(), Reason>) {
    let mut counted = Vec::new();
    for (number, rule) in (0..).zip(rules).filter(|(_, rule)| linear::matches(rule, &seen.fields)) {
        counted.push(number);
        match rule.action {
            Action::Allow => return (counted, Ok(())),
            Action::Shadow(_) => {}
            _ => return (counted, Err(Reason::RuleDeny)),
        }
    }
    (counted, Err(Reason::NoRule))
}

fn prefixes(bytes: &mut Unstructured<'_>) -> Result<Vec<IpNet>> {
    let count = bytes.int_in_range(0..=3)?;
    (0..count)
        .map(|_| {
            let (v6, length) = (bytes.arbitrary()?, bytes.int_in_range(0..=128_u8)?);
            let address = address(bytes, v6)?;
            let longest = if v6 { 128 } else { 32 };
            Ok(IpNet::new(address, length.min(longest)).expect("the length is capped"))
        })
        .collect()
}

fn address(bytes: &mut Unstructured<'_>, v6: bool) -> Result<IpAddr> {
    let (net, host) = (bytes.int_in_range(0..=3_u8)?, bytes.int_in_range(0..=7_u8)?);
    Ok(if v6 {
        Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(net) << 64 | u128::from(host)).into()
    } else {
        Ipv4Addr::from_bits(0x0a00_0000 | u32::from(net) << 16 | u32::from(host)).into()
    })
}

fn protocol(bytes: &mut Unstructured<'_>) -> Result<Protocol> {
    Ok(match bytes.int_in_range(0..=5_u8)? {
        0 => Protocol::Any,
        1 => Protocol::Tcp(ranges(bytes)?),
        2 => Protocol::Udp(ranges(bytes)?),
        3 => Protocol::Icmp(types(bytes)?),
        4 => Protocol::Icmpv6(types(bytes)?),
        _ => Protocol::Number(*bytes.choose(&PROTOCOLS)?),
    })
}

/// Ports near both ends.
fn port(bytes: &mut Unstructured<'_>) -> Result<u16> {
    let port = bytes.int_in_range(0..=15_u16)?;
    Ok(if bytes.arbitrary()? { port } else { u16::MAX - port })
}

fn ranges(bytes: &mut Unstructured<'_>) -> Result<Vec<RangeInclusive<u16>>> {
    let count = bytes.int_in_range(0..=2)?;
    let range = |bytes: &mut Unstructured<'_>| {
        let first = port(bytes)?;
        Ok(first..=first.saturating_add(bytes.int_in_range(0..=3)?))
    };
    (0..count).map(|_| range(bytes)).collect()
}

fn types(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count = bytes.int_in_range(0..=2)?;
    (0..count).map(|_| bytes.arbitrary()).collect()
}

/// A packet.
///
/// # Errors
/// The bytes are at their end.
pub fn seen(bytes: &mut Unstructured<'_>) -> Result<Seen> {
    let v6 = bytes.arbitrary()?;
    let (source, destination) = (address(bytes, v6)?, address(bytes, v6)?);
    let plain = Fields::between(source, destination, *bytes.choose(&PROTOCOLS)?);
    let (port_of, icmp_type) = (port(bytes)?, bytes.arbitrary()?);
    let flags = if plain.protocol == 6 { bytes.int_in_range(0..=63)? } else { 0 };
    let (source_port, interface) = (port(bytes)?, bytes.int_in_range(1..=3_u32)?);
    let name = INTERFACES.get(interface as usize - 1).copied().unwrap_or("elsewhere");
    let fields = Fields { source_port, port: port_of, icmp_type, flags, interface: name, ..plain };
    Ok(Seen { fields, interface })
}

/// What the compiled rules say of a packet.
///
/// # Errors
/// It is dropped.
pub fn judged(tables: &HostTables, seen: &Seen) -> std::result::Result<Allowed, Reason> {
    match (seen.fields.source, seen.fields.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => of_family(tables, seen, Address::from(a), Address::from(b)),
        (IpAddr::V6(a), IpAddr::V6(b)) => of_family(tables, seen, Address::from(a), Address::from(b)),
        _ => unreachable!("a packet has one family"),
    }
}

fn of_family<const W: usize>(
    tables: &HostTables,
    seen: &Seen,
    source: Address<W>,
    destination: Address<W>,
) -> std::result::Result<Allowed, Reason>
where
    Address<W>: Family<W>,
{
    let fields = seen.fields;
    let flags = fields.flags;
    let ports = if matches!(fields.protocol, 6 | 17) { [fields.source_port, fields.port] } else { [0; 2] };
    let tuple = Tuple::new((source, destination), (Be16::new(ports[0]), Be16::new(ports[1])), fields.protocol);
    let headers = Headers {
        network: 14,
        transport: 34,
        length: 40,
        hops: 64,
        flags,
        icmp_type: fields.icmp_type,
        ingress: Ingress::default(),
        tuple,
    };
    judge(&headers, tables, &tables.rules.generation, 60)
}
