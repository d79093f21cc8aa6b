//! `[[server]]`: name, role, addresses, and interfaces with those that face the internet.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::plan::Role;
use crate::site::at::At;
use crate::site::model::Server;
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Most interfaces of one server.
const INTERFACES_MAX: usize = 64;

pub(super) fn read(mut section: Section<'_>) -> Option<Server> {
    let name = section.parse("name", "a string", text::name);
    let name = section.need("name", name, "name = \"web1\"");
    if let Some(name) = &name {
        section.title = format!("[[server]] {}", name.value);
    }
    let role = section.parse("role", "a role", text::role);
    let role = section.need("role", role, "role = \"web\"");
    let address = section.parse("address", "an IP address", text::address);
    let address = section.need("address", address, "address = \"10.0.1.11\"");
    let address6 = section.parse("address6", "an IPv6 address", |word| match text::address(word)? {
        (IpAddr::V6(address), network) => Ok((address, network)),
        (IpAddr::V4(_), _) => Err(format!("`{word}` is IPv4; write it as `address`")),
    });
    let (address, network) = parts(address);
    let (address6, network6) = parts(address6);
    if let (Some(address), Some(address6)) = (&address, &address6)
        && address.is_ipv6()
    {
        section.faults.error(address6.span, "`address` is IPv6 already; leave `address6` out, or make `address` IPv4");
    }
    let interfaces = section.list("interfaces", "a list of interface names", text::interface);
    let interfaces = section.need("interfaces", interfaces, "interfaces = [\"eth0\"]");
    if let Some(list) = &interfaces {
        if list.is_empty() || list.len() > INTERFACES_MAX {
            let message = format!("{} must name 1 to {INTERFACES_MAX} interfaces", section.title);
            section.faults.error(list.span, message);
        }
        once(&section, list);
    }
    let outside = outside(&mut section, interfaces.as_deref());
    let reverse_path = section.flag("reverse_path").is_some_and(|flag| flag.value);
    let follows = follows(&mut section, role.as_ref().map(|role| role.value));
    section.finish();
    Some(Server {
        name: name?,
        role: role?.value,
        address: address?,
        address6,
        networks: [network, network6].into_iter().flatten().collect(),
        interfaces: interfaces?.value,
        outside: outside?,
        follows: follows?,
        reverse_path,
    })
}

/// `follows`: a database server's.
fn follows(section: &mut Section<'_>, role: Option<Role>) -> Option<Option<At<String>>> {
    if role.is_some_and(|role| role != Role::Database) {
        section.refuse("follows", "only a database server follows another one; leave it out");
        return Some(None);
    }
    let follows = section.parse("follows", "a database server's name", text::name);
    (follows.is_some() || !section.has("follows")).then_some(follows)
}

/// An address with its place, and its network.
fn parts<A>(read: Option<At<(A, Option<IpNet>)>>) -> (Option<At<A>>, Option<IpNet>) {
    let Some(At { value: (address, network), span }) = read else { return (None, None) };
    (Some(At { value: address, span }), network)
}

/// `outside`: some of the interfaces.
fn outside(section: &mut Section<'_>, interfaces: Option<&Vec<At<String>>>) -> Option<Vec<At<String>>> {
    let list = section.list("outside", "a list of interface names", text::interface);
    if !section.has("outside") {
        return Some(Vec::new());
    }
    let list = list?.value;
    once(section, &list);
    if let Some(interfaces) = interfaces {
        let names: Vec<&str> = interfaces.iter().map(|interface| interface.value.as_str()).collect();
        for interface in list.iter().filter(|interface| !interfaces.contains(interface)) {
            let hint = nearest(interface, &names).map_or_else(
                || format!("its interfaces are {}", names.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            let message = format!(
                "`outside` in {} names `{}`, which is none of its `interfaces`; {hint}",
                section.title, interface.value
            );
            section.faults.error(interface.span, message);
        }
    }
    Some(list)
}

/// Each interface is named once.
fn once(section: &Section<'_>, list: &[At<String>]) {
    for (index, interface) in list.iter().enumerate() {
        if list[..index].contains(interface) {
            let message = format!("interface `{}` is named twice; name it once", interface.value);
            section.faults.error(interface.span, message);
        }
    }
}
