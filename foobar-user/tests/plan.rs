//! Plans of a good site: which rules each server has and whom they let in, its services, edge and processes.

mod common;

use std::net::IpAddr;
use std::path::Path;

use common::edited;
use foobar_common::rules::linear::{Fields, first_match};
use foobar_common::rules::{Action, Rule};
use foobar_user::plan::{CheckKind, HttpCheck, Origin, Plan, PlanError, ProcessKind, Reads, Scope, Select, plan, show};
use foobar_user::site::Site;

fn site(text: &str) -> Site {
    Site::parse(Path::new("/etc/foobar/site.toml"), text).unwrap_or_else(|faults| panic!("{faults}"))
}

fn planned(server: &str) -> Plan {
    plan(&site(common::GOOD), server).expect("a plan")
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.rules.iter().map(|planned| planned.rule.name.as_str()).collect()
}

/// What a packet is: its protocol's number, and its port or ICMP type.
#[derive(Clone, Copy)]
enum Packet {
    Tcp(u16),
    Udp(u16),
    Icmp(u8),
    Icmpv6(u8),
}

/// The first rule that decides, if it allows.
fn allowed<'p>(plan: &'p Plan, from: &str, to: &str, packet: Packet) -> Option<&'p str> {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (protocol, port, icmp_type) = match packet {
        Packet::Tcp(port) => (6, port, 0),
        Packet::Udp(port) => (17, port, 0),
        Packet::Icmp(kind) => (1, 0, kind),
        Packet::Icmpv6(kind) => (58, 0, kind),
    };
    let fields = Fields { port, icmp_type, ..Fields::between(address(from), address(to), protocol) };
    let rules: Vec<Rule> = plan.rules.iter().map(|planned| planned.rule.clone()).collect();
    let first = first_match(&rules, &fields)?;
    (rules[first].action == Action::Allow).then_some(plan.rules[first].rule.name.as_str())
}

const CLIENT: &str = "203.0.113.50";
const CLIENT6: &str = "2001:db8::50";

#[test]
fn rules_stand_in_their_order() {
    let icmp = ["icmp-errors", "icmp-echo", "icmp-echo-reply"];
    let dual = [
        "neighbour-discovery",
        "icmp-errors",
        "icmpv6-errors",
        "icmp-echo",
        "icmp-echo-reply",
        "icmpv6-echo",
        "icmpv6-echo-reply",
    ];
    let with = |first: &[&'static str], icmp: &[&'static str], last: &[&'static str]| [first, icmp, last].concat();
    let cases = [
        (
            "lb1",
            with(&["spoofed", "failsafe-ssh", "office-only"], &dual, &["metrics", "vip-www", "vip-plain", "witness"]),
        ),
        ("web1", with(&["spoofed", "failsafe-ssh"], &dual, &["metrics", "service-www", "service-plain"])),
        ("app1", with(&["spoofed", "failsafe-ssh"], &icmp, &["metrics", "service-app"])),
        (
            "db1",
            with(
                &["spoofed", "failsafe-ssh"],
                &icmp,
                &["metrics", "replication", "service-db-write", "service-db-read"],
            ),
        ),
        ("monitor1", with(&["spoofed", "failsafe-ssh"], &icmp, &["prometheus"])),
    ];
    for (server, expected) in cases {
        assert_eq!(names(&planned(server)), expected, "{server}");
    }
}

#[test]
fn every_rule_says_where_it_comes_from() {
    let lb1 = planned("lb1");
    let line = common::GOOD.lines().position(|line| line == "[[rule]]").expect("a rule") + 1;
    assert_eq!(lb1.rules[2].origin, Origin::Line(line));
    assert_eq!(lb1.rules[1].origin, Origin::Derived("[site] admin".to_owned()));
    let of = |name: &str| lb1.rules.iter().find(|planned| planned.rule.name == name).expect("a rule").origin.clone();
    assert_eq!(of("vip-plain"), Origin::Derived("service plain".to_owned()));
    assert_eq!(of("witness"), Origin::Derived("[database]".to_owned()));
}

#[test]
fn each_server_lets_in_whom_the_file_names() {
    use Packet::{Icmp, Icmpv6, Tcp, Udp};
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, Packet, Option<&str>)] = &[
        // The balancer: VIPs to everybody, at their ports only.
        ("lb1", CLIENT, "203.0.113.10", Tcp(443), Some("vip-www")),
        ("lb1", CLIENT, "203.0.113.10", Tcp(80), Some("vip-www")),
        ("lb1", CLIENT, "203.0.113.10", Tcp(8080), Some("vip-plain")),
        ("lb1", CLIENT6, "2001:db8::10", Tcp(8080), Some("vip-plain")),
        ("lb1", CLIENT6, "2001:db8::10", Tcp(443), None),
        ("lb1", CLIENT, "203.0.113.10", Tcp(8443), None),
        ("lb1", CLIENT, "203.0.113.10", Tcp(444), None),
        ("lb1", CLIENT, "203.0.113.10", Udp(443), None),
        ("lb1", CLIENT, "10.0.1.1", Tcp(443), None),
        ("lb1", CLIENT, "203.0.113.10", Tcp(22), None),
        ("lb1", "198.51.100.7", "203.0.113.10", Tcp(8005), Some("office-only")),
        ("lb1", "198.51.101.7", "203.0.113.10", Tcp(8005), None),
        // A web server: mTLS from the balancer only, plain from everybody because nat keeps the client's address.
        ("web1", "10.0.1.1", "10.0.1.11", Tcp(8443), Some("service-www")),
        ("web1", "fd00:1::1", "fd00:1::11", Tcp(8443), Some("service-www")),
        ("web1", CLIENT, "10.0.1.11", Tcp(8443), None),
        ("web1", "10.0.1.12", "10.0.1.11", Tcp(8443), None),
        ("web1", CLIENT, "10.0.1.11", Tcp(8080), Some("service-plain")),
        ("web1", CLIENT, "10.0.1.11", Tcp(8081), None),
        ("web1", "10.0.1.41", "10.0.1.11", Tcp(9900), Some("metrics")),
        ("web1", "10.0.1.12", "10.0.1.11", Tcp(9900), None),
        ("web1", "10.0.1.41", "10.0.1.11", Tcp(22), Some("failsafe-ssh")),
        ("web1", "10.0.1.12", "10.0.1.11", Tcp(22), None),
        ("web1", "10.0.1.12", "10.0.1.11", Icmp(8), Some("icmp-echo")),
        ("web1", CLIENT, "10.0.1.11", Icmp(8), None),
        ("web1", CLIENT, "10.0.1.11", Icmp(3), Some("icmp-errors")),
        ("web1", CLIENT, "10.0.1.11", Icmp(5), None),
        ("web1", "fe80::1", "ff02::1:ff00:11", Icmpv6(135), Some("neighbour-discovery")),
        ("web1", "fe80::1", "ff02::1", Icmpv6(134), None),
        ("web1", CLIENT6, "fd00:1::11", Icmpv6(2), Some("icmpv6-errors")),
        ("web1", "fd00:1::12", "fd00:1::11", Icmpv6(128), Some("icmpv6-echo")),
        // An app server: from web only.
        ("app1", "10.0.1.11", "10.0.1.21", Tcp(8000), Some("service-app")),
        ("app1", "10.0.1.11", "10.0.1.21", Tcp(8001), None),
        ("app1", "10.0.1.22", "10.0.1.21", Tcp(8000), None),
        ("app1", "10.0.1.31", "10.0.1.21", Tcp(8000), None),
        ("app1", CLIENT, "10.0.1.21", Tcp(8000), None),
        ("app1", "10.0.1.1", "10.0.1.21", Tcp(8000), None),
        // A database server: from app, and the other one.
        ("db1", "10.0.1.21", "10.0.1.31", Tcp(5432), Some("service-db-write")),
        ("db1", "10.0.1.32", "10.0.1.31", Tcp(5432), Some("replication")),
        ("db1", "10.0.1.11", "10.0.1.31", Tcp(5432), None),
        ("db1", "10.0.1.41", "10.0.1.31", Tcp(5432), None),
        // The monitor: its pages to the admins.
        ("monitor1", "10.0.1.41", "10.0.1.41", Tcp(9090), None),
        ("monitor1", "10.0.1.11", "10.0.1.41", Tcp(9090), None),
        ("monitor1", "10.0.1.11", "10.0.1.41", Tcp(9900), None),
    ];
    for (server, from, to, packet, expected) in cases {
        let number = match packet {
            Tcp(number) | Udp(number) => *number,
            Icmp(number) | Icmpv6(number) => u16::from(*number),
        };
        assert_eq!(allowed(&planned(server), from, to, *packet), *expected, "{server}: {from} -> {to} {number}");
    }
}

#[test]
fn services_are_in_the_tables_of_those_who_use_them() {
    let services = |server: &str| -> Vec<(String, String, Scope)> {
        let one = |service: &foobar_user::plan::ServicePlan| {
            (service.name.clone(), service.vips[0].to_string(), service.scope)
        };
        planned(server).services.iter().map(one).collect()
    };
    let of = |name: &str, vip: &str, scope| (name.to_owned(), vip.to_owned(), scope);
    let plain = of("plain", "203.0.113.10:8080", Scope::Nat);
    assert_eq!(services("lb1"), [of("www", "203.0.113.10:8443", Scope::Local), plain]);
    assert_eq!(services("web1"), [of("app", "10.0.9.10:8000", Scope::Local)]);
    let databases = [of("db-write", "10.0.9.20:5432", Scope::Local), of("db-read", "10.0.9.21:5432", Scope::Local)];
    assert_eq!(services("app1"), databases);
    assert_eq!(services("db1"), []);
    assert_eq!(services("monitor1"), []);
}

#[test]
fn backends_and_checks_are_what_the_file_says() {
    let lb1 = planned("lb1");
    let www = &lb1.services[0];
    let web1: Vec<String> = www.backends[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        (www.backends[0].server.as_str(), web1),
        ("web1", vec!["10.0.1.11:8443".to_owned(), "[fd00:1::11]:8443".to_owned()])
    );
    assert_eq!(www.backends.len(), 2);
    let CheckKind::Http(HttpCheck { path, host, tls: Some(tls), .. }) = &www.check.kind else {
        panic!("{:?}", www.check)
    };
    assert_eq!((path.as_str(), host.as_str()), ("/healthz", "www.foobar.com"));
    assert_eq!(tls.key, Path::new("/etc/foobar/pki/lb1.key"));
    assert_eq!(lb1.services[1].check.kind, CheckKind::Tcp);

    let app1 = planned("app1");
    assert_eq!(
        [app1.services[0].select, app1.services[1].select],
        [Select::Primary, Select::Replica(Reads::default())]
    );
    let CheckKind::Postgres { password_file, .. } = &app1.services[0].check.kind else { panic!() };
    assert_eq!(password_file, Path::new("/etc/foobar/secrets/guestbook.password"));
    let check = &app1.services[0].check;
    assert_eq!((check.interval_ms, check.timeout_ms, check.rise, check.fall), (250, 250, 2, 2));
}

#[test]
fn the_balancer_holds_vips_and_terminates_tls() {
    let lb1 = planned("lb1");
    let vips: Vec<String> = lb1.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["203.0.113.10", "2001:db8::10"]);
    let edge = &lb1.edge[0];
    assert_eq!(edge.listen[0].to_string(), "203.0.113.10:443");
    assert_eq!(edge.redirect[0].to_string(), "203.0.113.10:80");
    assert_eq!(edge.upstream.to_string(), "203.0.113.10:8443");
    assert_eq!(edge.upstream_servers, ["web1", "web2"]);
    assert_eq!(edge.certificate, Path::new("/etc/foobar/www.pem"));
    assert!(edge.upstream_tls.is_some());
    assert!(planned("web1").edge.is_empty() && planned("web1").vips.is_empty());
}

#[test]
fn backends_of_a_service_with_sources_see_these_alone() {
    use Packet::Tcp;
    let text = edited("forward = \"nat\"", "forward = \"nat\"\nsource = [\"10.0.1.100\", \"fd00:1::100\"]");
    let of = |server: &str| plan(&site(&text), server).expect("a plan");
    let (lb1, web1) = (of("lb1"), of("web1"));
    let sources: Vec<String> = lb1.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.0.1.100", "fd00:1::100"]);
    assert_eq!(lb1.held().len(), lb1.vips.len() + 2);
    assert_eq!(lb1.services[1].sources, lb1.sources);
    assert!(web1.sources.is_empty() && planned("lb1").sources.is_empty());
    for (from, to, expected) in [
        ("10.0.1.100", "10.0.1.11", Some("service-plain")),
        ("fd00:1::100", "fd00:1::11", Some("service-plain")),
        // Its checks.
        ("10.0.1.1", "10.0.1.11", Some("service-plain")),
        ("10.0.1.101", "10.0.1.11", None),
        (CLIENT, "10.0.1.11", None),
        (CLIENT6, "fd00:1::11", None),
    ] {
        assert_eq!(allowed(&web1, from, to, Tcp(8080)), expected, "{from}");
    }
    // Everybody may ask the VIP, and nobody a source, nor be one.
    assert_eq!(allowed(&lb1, CLIENT, "203.0.113.10", Tcp(8080)), Some("vip-plain"));
    assert_eq!(allowed(&lb1, CLIENT, "10.0.1.100", Tcp(8080)), None);
    assert_eq!(allowed(&lb1, "10.0.1.100", "203.0.113.10", Tcp(8080)), None);
    assert!(show(&lb1).contains("seen as     10.0.1.100, fd00:1::100"), "{}", show(&lb1));
}

#[test]
fn processes_carry_their_whole_configuration() {
    let web1 = planned("web1");
    let ProcessKind::Nginx(nginx) = &web1.processes[0].kind else { panic!() };
    let listeners: Vec<(String, bool)> =
        nginx.listeners.iter().map(|listener| (listener.address.to_string(), listener.tls)).collect();
    let of = |address: &str, tls| (address.to_owned(), tls);
    let expected = [
        of("10.0.1.11:8443", true),
        of("[fd00:1::11]:8443", true),
        of("10.0.1.11:8080", false),
        of("[fd00:1::11]:8080", false),
    ];
    assert_eq!(listeners, expected);
    assert_eq!(nginx.upstream.map(|vip| vip.to_string()).as_deref(), Some("10.0.9.10:8000"));
    assert_eq!(nginx.balancers.len(), 2);

    let app2 = planned("app2");
    let ProcessKind::Command { command, environment, .. } = &app2.processes[0].kind else { panic!() };
    assert_eq!(command, &["/opt/guestbook", "--listen", "10.0.1.22:8000"]);
    assert_eq!(environment["SERVER"], "app2");

    let db2 = planned("db2");
    let ProcessKind::Postgres(postgres) = &db2.processes[0].kind else { panic!() };
    assert_eq!((postgres.primary.as_str(), postgres.primary_address.to_string().as_str()), ("db1", "10.0.1.31"));
    let clients: Vec<String> = postgres.clients.iter().map(ToString::to_string).collect();
    assert_eq!(clients, ["10.0.1.21/32", "10.0.1.22/32", "10.0.1.32/32"]);

    let monitor = planned("monitor1");
    let ProcessKind::Prometheus(prometheus) = &monitor.processes[0].kind else { panic!() };
    assert_eq!(prometheus.targets.len(), 8);
    assert_eq!(prometheus.listen.to_string(), "10.0.1.41:9090");
}

#[test]
fn a_udp_service_lets_its_checks_in_by_tcp() {
    let text = edited("protocol = \"tcp\"\nto", "protocol = \"udp\"\nto");
    let web1 = plan(&site(&text), "web1").expect("a plan");
    assert_eq!(allowed(&web1, CLIENT, "10.0.1.11", Packet::Udp(8080)), Some("service-plain"));
    assert_eq!(allowed(&web1, "10.0.1.1", "10.0.1.11", Packet::Tcp(8080)), Some("check-plain"));
    assert_eq!(allowed(&web1, CLIENT, "10.0.1.11", Packet::Tcp(8080)), None);
}

#[test]
fn nobody_is_never_everybody() {
    // An empty list of sources would match every packet: no admin means no rule.
    let text = edited("[\"10.0.1.41/32\"]", "[]");
    let monitor = plan(&site(&text), "monitor1").expect("a plan");
    assert!(!names(&monitor).contains(&"failsafe-ssh") && !names(&monitor).contains(&"prometheus"));
    assert_eq!(allowed(&monitor, CLIENT, "10.0.1.41", Packet::Tcp(22)), None);
}

#[test]
fn an_unknown_server_is_told_with_those_that_exist() {
    let error = plan(&site(common::GOOD), "web9").expect_err("no such server");
    assert!(matches!(error, PlanError::UnknownServer { .. }));
    assert!(error.to_string().contains("no server `web9`; its servers are lb1, web1"), "{error}");
}

#[test]
fn a_plan_is_shown_to_people_and_as_json() {
    let lb1 = planned("lb1");
    let text = show(&lb1);
    for part in
        ["server      lb1 (balancer of www.foobar.com)", "vip-www", "tcp 443,80", "line 1", "https (mTLS) /healthz"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let json = serde_json::to_value(&lb1).expect("JSON");
    assert_eq!(json["rules"][1]["name"], "failsafe-ssh");
    assert_eq!(json["role"], "balancer");
    let every = ["lb1", "web1", "app1", "db1", "monitor1"].map(|server| serde_json::to_string(&planned(server)));
    assert!(every.iter().all(Result::is_ok), "{every:?}");
}

/// The example that is shipped is good, and yields every server's plan.
#[test]
fn the_shipped_example_is_good() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/site.toml");
    let site = foobar_user::site::Site::read(&path).unwrap_or_else(|faults| panic!("{faults}"));
    for server in &site.servers {
        foobar_user::plan::plan(&site, &server.name.value).unwrap_or_else(|error| panic!("{error}"));
    }
}
