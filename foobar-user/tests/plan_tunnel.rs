//! Plans of a site with a `tunnel` service: who begins tunnels, where they end, and what comes out of them.

mod common;

use std::net::IpAddr;
use std::path::Path;

use common::{GOOD, edited};
use foobar_common::rules::{Action, Protocol, Rule};
use foobar_user::plan::{Plan, Scope, TunnelPlan, plan, show};
use foobar_user::site::Site;

const VIPS: [&str; 2] = ["203.0.113.10", "2001:db8::10"];

fn tunnelled() -> String {
    edited("to = \"web:8080\"\nforward = \"nat\"", "to = \"web:8080\"\nforward = \"tunnel\"")
}

fn parsed(text: &str) -> Result<Site, String> {
    Site::parse(Path::new("/etc/foobar/site.toml"), text).map_err(|faults| faults.to_string())
}

fn planned(text: &str, server: &str) -> Plan {
    plan(&parsed(text).unwrap_or_else(|faults| panic!("{faults}")), server).expect("a plan")
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

fn rule<'p>(plan: &'p Plan, name: &str) -> Option<&'p Rule> {
    plan.rules.iter().map(|planned| &planned.rule).find(|rule| rule.name == name)
}

fn prefixes(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

#[test]
fn a_backend_lets_in_the_balancers_tunnels_and_what_they_hold() {
    let web1 = planned(&tunnelled(), "web1");
    for (name, from, to, number) in
        [("tunnels-ipv4", "10.0.1.1/32", "10.0.1.11/32", 4), ("tunnels-ipv6", "fd00:1::1/128", "fd00:1::11/128", 41)]
    {
        let rule = rule(&web1, name).unwrap_or_else(|| panic!("no rule {name}"));
        assert_eq!((rule.action, &rule.protocol), (Action::Allow, &Protocol::Number(number)));
        assert_eq!((&rule.sources.prefixes, &rule.destinations.prefixes), (&prefixes(&[from]), &prefixes(&[to])));
    }
    let inner = rule(&web1, "tunnel-plain").expect("a rule for what is inside");
    assert!(inner.sources.is_any(), "its `from` is any");
    assert_eq!(inner.destinations.prefixes, prefixes(&["203.0.113.10/32", "2001:db8::10/128"]));
    assert_eq!(inner.protocol, Protocol::Tcp(vec![8080..=8080]));
    let checks = rule(&web1, "service-plain").expect("a rule for checks");
    assert_eq!(checks.sources.prefixes, prefixes(&["10.0.1.1/32", "fd00:1::1/128"]));

    assert_eq!(web1.vips, addresses(&VIPS));
    assert!(web1.vip_interfaces().is_empty(), "on the loopback interface, in silence");
    let (own, peers) = (addresses(&["10.0.1.11", "fd00:1::11"]), addresses(&["10.0.1.1", "fd00:1::1"]));
    assert_eq!(web1.tunnels, TunnelPlan { own, peers, vips: addresses(&VIPS) });
    let ends = web1.tunnels.ends().expect("a few of them");
    assert_eq!((ends.peer_count, ends.vip_count), (2, 2));
}

#[test]
fn a_balancer_begins_tunnels_and_ends_none() {
    let lb1 = planned(&tunnelled(), "lb1");
    let service = lb1.services.iter().find(|service| service.name == "plain").expect("the service");
    assert_eq!(service.scope, Scope::Tunnel);
    assert_eq!(lb1.tunnels, TunnelPlan { own: addresses(&["10.0.1.1", "fd00:1::1"]), ..TunnelPlan::default() });
    assert!(rule(&lb1, "tunnels-ipv4").is_none() && rule(&lb1, "vip-plain").is_some());
    assert!(show(&lb1).contains("XDP (tunnel) and connect()"));
}

#[test]
fn other_servers_and_sites_know_nothing_of_tunnels() {
    for (text, server) in [(tunnelled(), "app1"), (GOOD.to_owned(), "web1"), (GOOD.to_owned(), "lb1")] {
        let plan = planned(&text, server);
        assert_eq!(plan.tunnels, TunnelPlan::default(), "{server}");
        assert!(rule(&plan, "tunnels-ipv4").is_none(), "{server}");
    }
}

#[test]
fn a_tunnel_begins_at_an_address_of_its_family() {
    let text = tunnelled().replace("address6 = \"fd00:1::1\"\n", "");
    let faults = parsed(&text).expect_err("lb1 has no IPv6 address");
    let line = text.lines().position(|line| line.contains("[2001:db8::10]:8080")).expect("the VIP") + 1;
    let column = text.lines().nth(line - 1).and_then(|line| line.find("\"[2001")).expect("the VIP") + 1;
    assert!(faults.contains(&format!("{line}:{column}")) && faults.contains("give it `address6`"), "{faults}");
}

#[test]
fn a_server_is_reached_at_so_many_vips() {
    // A service takes sixteen of them.
    let listen = |count: usize| {
        let vips: Vec<String> = (0..count).map(|n| format!("\"203.0.113.{}:8080\"", n + 10)).collect();
        let mut services = vips.chunks(16).map(|vips| vips.join(", "));
        let first = services.next().unwrap_or_default();
        let text = tunnelled().replace("\"203.0.113.10:8080\", \"[2001:db8::10]:8080\"", &first);
        let more = services.enumerate().map(|(n, vips)| {
            format!("[service.more{n}]\nlisten = [{vips}]\nto = \"web:8080\"\nforward = \"tunnel\"\n")
        });
        text + &more.collect::<String>()
    };
    assert_eq!(planned(&listen(64), "web1").tunnels.vips.len(), 64);
    let faults = parsed(&listen(65)).expect_err("one more than fits");
    assert!(faults.contains("64 is the limit"), "{faults}");
}
