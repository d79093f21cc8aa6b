//! Rules and packets made of any bytes: few distinct addresses, ports and types, so that they meet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use arbitrary::{Result, Unstructured};
use foobar_common::address::{Address, Be16, Family, Tuple};
use foobar_common::firewall::{Allowed, judge};
use foobar_common::host::HostTables;
use foobar_common::parse::Headers;
use foobar_common::rules::linear::Fields;
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_common::verdict::Reason;
use ipnet::IpNet;

/// IP protocols that mean something here, and some that do not.
const PROTOCOLS: [u8; 7] = [0, 1, 6, 17, 58, 89, 255];

/// Rules.
///
/// # Errors
/// The bytes are at their end.
pub fn rules(bytes: &mut Unstructured<'_>) -> Result<Vec<Rule>> {
    let count = bytes.int_in_range(0..=70)?;
    (0..count).map(|_| rule(bytes)).collect()
}

fn rule(bytes: &mut Unstructured<'_>) -> Result<Rule> {
    let action = if bytes.arbitrary()? { Action::Allow } else { Action::Deny };
    let (sources, destinations) = (prefixes(bytes)?.into(), prefixes(bytes)?.into());
    Ok(Rule { sources, destinations, protocol: protocol(bytes)?, ..Rule::any("", action) })
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
pub fn fields(bytes: &mut Unstructured<'_>) -> Result<Fields> {
    let v6 = bytes.arbitrary()?;
    Ok(Fields {
        source: address(bytes, v6)?,
        destination: address(bytes, v6)?,
        protocol: *bytes.choose(&PROTOCOLS)?,
        port: port(bytes)?,
        icmp_type: bytes.arbitrary()?,
    })
}

/// What the compiled rules say of a packet.
///
/// # Errors
/// It is dropped.
pub fn judged(tables: &HostTables, fields: &Fields) -> std::result::Result<Allowed, Reason> {
    match (fields.source, fields.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => of_family(tables, fields, Address::from(a), Address::from(b)),
        (IpAddr::V6(a), IpAddr::V6(b)) => of_family(tables, fields, Address::from(a), Address::from(b)),
        _ => unreachable!("a packet has one family"),
    }
}

fn of_family<const W: usize>(
    tables: &HostTables,
    fields: &Fields,
    source: Address<W>,
    destination: Address<W>,
) -> std::result::Result<Allowed, Reason>
where
    Address<W>: Family<W>,
{
    let port = if matches!(fields.protocol, 6 | 17) { fields.port } else { 0 };
    let tuple = Tuple {
        source,
        destination,
        source_port: Be16::new(0),
        destination_port: Be16::new(port),
        protocol: fields.protocol,
        _pad: [0; 3],
    };
    let headers =
        Headers { network: 14, transport: 34, length: 40, hops: 64, flags: 0, icmp_type: fields.icmp_type, tuple };
    judge(&headers, tables, 60)
}
