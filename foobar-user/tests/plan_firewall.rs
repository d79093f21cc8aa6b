//! Plans of a site's firewall: spoofed sources and bogons, what narrows a rule, limits, and the sets of each server.

mod common;

use std::net::IpAddr;
use std::path::Path;

use common::{GOOD, edited};
use foobar_common::rules::linear::{End, Fields, Members, walk};
use foobar_common::rules::{Action, FlagMatch, Limit, Limited, Rate, Rule};
use foobar_user::plan::{Origin, Plan, plan, show};
use foobar_user::site::Site;

const FIREWALL: &str = include_str!("common/firewall.toml");

fn planned(text: &str, server: &str) -> Plan {
    let site = Site::parse(Path::new("/etc/foobar/site.toml"), text).unwrap_or_else(|faults| panic!("{faults}"));
    plan(&site, server).expect("a plan")
}

fn good() -> String {
    format!("{GOOD}{FIREWALL}")
}

/// The good file with the balancer's second interface facing the internet.
fn with_outside() -> String {
    edited("[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth1\"]\nreverse_path = true")
}

fn rule<'p>(plan: &'p Plan, name: &str) -> &'p Rule {
    let found = plan.rules.iter().find(|planned| planned.rule.name == name);
    &found.unwrap_or_else(|| panic!("no rule {name} on {}", plan.server)).rule
}

/// The name of the rule that decides for a SYN to this port.
fn decides(plan: &Plan, from: &str, to: &str, port: u16, interface: &str) -> Option<String> {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let sets = plan.sets.iter().map(|set| (set.name.clone(), set.prefixes.clone())).collect();
    let members = Members(sets);
    let fields = Fields {
        source_port: 40_000,
        port,
        flags: 2,
        interface,
        sets: &members,
        ..Fields::between(address(from), address(to), 6)
    };
    let rules: Vec<Rule> = plan.rules.iter().map(|planned| planned.rule.clone()).collect();
    match walk(&rules, &fields, |_, _| false).end {
        End::Allow(index) | End::Deny(index) | End::Limit(index) => Some(rules[index].name.clone()),
        End::NoRule => None,
    }
}

/// Who answers a check of a direct service has the balancer's own address, and asks from nobody's.
#[test]
fn checks_by_a_vip_are_let_in_and_answered() {
    let text = edited("forward = \"nat\"\nfrom = [\"any\"]", "forward = \"direct\"\nfrom = [\"198.51.100.0/24\"]");
    let lb1 = planned(&text, "lb1");
    let answers = &lb1.rules[0].rule;
    assert_eq!((answers.name.as_str(), answers.action), ("check-plain", Action::Allow));
    assert_eq!(lb1.rules[1].rule.name, "spoofed");
    let rules: Vec<Rule> = lb1.rules.iter().map(|planned| planned.rule.clone()).collect();
    let judged = |from: &str, source_port, port, flags| {
        let (from, to) = (from.parse().expect("an address"), if from.contains(':') { "fd00:1::1" } else { "10.0.1.1" });
        let fields = Fields { source_port, port, flags, ..Fields::between(from, to.parse().expect("an address"), 6) };
        walk(&rules, &fields, |_, _| false).end
    };
    for vip in ["203.0.113.10", "2001:db8::10"] {
        for flags in [0x12, 0x14] {
            assert_eq!(judged(vip, 8080, 61_000, flags), End::Allow(0), "{vip} {flags}");
            assert_eq!(judged(vip, 8080, 61_999, flags), End::Allow(0), "{vip} {flags}");
        }
        // A SYN, a port beside the checks', and a port that is not the service's.
        for (source_port, port, flags) in
            [(8080, 61_000, 2), (8080, 60_999, 0x12), (8080, 62_000, 0x12), (8081, 61_000, 0x12)]
        {
            assert_eq!(judged(vip, source_port, port, flags), End::Deny(1), "{vip} {source_port} {port} {flags}");
        }
    }
    let web1 = planned(&text, "web1");
    assert_eq!(decides(&web1, "10.0.1.1", "203.0.113.10", 8080, "eth0").as_deref(), Some("direct-plain"));
    assert_eq!(decides(&web1, "198.51.100.7", "203.0.113.10", 8080, "eth0").as_deref(), Some("direct-plain"));
    assert_eq!(decides(&web1, "10.0.1.12", "203.0.113.10", 8080, "eth0"), None);
    assert!(!planned(GOOD, "lb1").rules.iter().any(|planned| planned.rule.name.starts_with("check-")));
}

#[test]
fn a_source_that_nobody_has_is_dropped_first() {
    let lb1 = planned(GOOD, "lb1");
    assert_eq!(lb1.rules[0].rule.name, "spoofed");
    assert_eq!(lb1.rules[0].rule.action, Action::Deny);
    assert_eq!(lb1.rules[0].origin, Origin::Derived("own addresses and no one's".to_owned()));
    let spoofed = |from: &str, to: &str| decides(&lb1, from, to, 8080, "eth0").as_deref() == Some("spoofed");
    for from in ["10.0.1.1", "203.0.113.10", "127.0.0.1", "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
        assert!(spoofed(from, "203.0.113.10"), "{from}");
    }
    for from in ["fd00:1::1", "2001:db8::10", "::1", "::ffff:203.0.113.9", "ff02::1"] {
        assert!(spoofed(from, "2001:db8::10"), "{from}");
    }
    // Duplicate address detection asks from nowhere, and neighbours have link-local addresses.
    for from in ["::", "fe80::1", "2001:db8::9"] {
        assert!(!spoofed(from, "2001:db8::10"), "{from}");
    }
    for from in ["10.0.1.2", "203.0.113.9", "126.255.255.255", "1.0.0.0", "223.255.255.255"] {
        assert!(!spoofed(from, "203.0.113.10"), "{from}");
    }
    // A VIP is spoofed where it is held; elsewhere it is an address like any other.
    assert!(
        !rule(&planned(GOOD, "web1"), "spoofed")
            .sources
            .prefixes
            .contains(&"203.0.113.10/32".parse().expect("a prefix"))
    );
}

#[test]
fn bogons_are_dropped_outside_only() {
    let lb1 = planned(&with_outside(), "lb1");
    let order: Vec<&str> = lb1.rules.iter().take(4).map(|planned| planned.rule.name.as_str()).collect();
    assert_eq!(order, ["spoofed", "failsafe-ssh", "bogons", "office-only"]);
    assert_eq!(rule(&lb1, "bogons").interfaces, ["eth1"]);
    let bogon =
        |from: &str, to: &str, interface: &str| decides(&lb1, from, to, 8080, interface).as_deref() == Some("bogons");
    for from in ["10.0.1.11", "10.0.1.41", "192.168.1.1", "172.16.0.1", "100.64.0.1", "198.18.0.1", "192.0.2.1"] {
        assert!(bogon(from, "203.0.113.10", "eth1"), "{from}");
        assert!(!bogon(from, "203.0.113.10", "eth0"), "{from}");
    }
    for from in ["fd00:1::11", "fc00::1", "100::1", "3fff::1", "2001:2::1", "64:ff9b:1::1", "5f00::1"] {
        assert!(bogon(from, "2001:db8::10", "eth1"), "{from}");
        assert!(!bogon(from, "2001:db8::10", "eth0"), "{from}");
    }
    // The VIPs' networks, the network that a rule lets in, link-local neighbours, and everybody else.
    for from in ["203.0.113.50", "198.51.100.7", "169.254.169.254", "8.8.8.8", "172.32.0.1"] {
        assert!(!bogon(from, "203.0.113.10", "eth1"), "{from}");
    }
    for from in ["2001:db8::50", "fe80::1", "2606:4700::1", "64:ff9b::808:808", "2002::1"] {
        assert!(!bogon(from, "2001:db8::10", "eth1"), "{from}");
    }
    // ssh from an admin comes first, whatever interface it takes.
    assert_eq!(decides(&lb1, "10.0.1.41", "10.0.1.1", 22, "eth1").as_deref(), Some("failsafe-ssh"));
    assert!(lb1.reverse_path && !planned(&with_outside(), "web1").reverse_path);
    assert!(!planned(&with_outside(), "web1").rules.iter().any(|planned| planned.rule.name == "bogons"));
}

#[test]
fn an_admins_network_is_no_bogon_but_servers_in_it_are() {
    let text = with_outside().replacen("10.0.1.41/32", "10.0.0.0/16", 1);
    let lb1 = planned(&text, "lb1");
    let bogons = &rule(&lb1, "bogons").sources.prefixes;
    let holds =
        |address: &str| bogons.iter().any(|prefix| prefix.contains(&address.parse::<IpAddr>().expect("an address")));
    assert!(!holds("10.0.7.7") && holds("10.1.0.1") && holds("10.0.1.41") && holds("10.0.1.11"));
}

#[test]
fn a_network_that_is_only_denied_stays_a_bogon() {
    let text = with_outside().replacen("action = \"allow\"", "action = \"deny\"", 1);
    assert_eq!(
        decides(&planned(&text, "lb1"), "198.51.100.7", "203.0.113.10", 8000, "eth1").as_deref(),
        Some("bogons")
    );
}

#[test]
fn a_rule_carries_all_that_narrows_it() {
    let lb1 = planned(&good(), "lb1");
    let brute = rule(&lb1, "brute");
    assert_eq!(brute.source_ports, [1024..=65535]);
    assert_eq!(brute.flags, Some(FlagMatch { mask: 18, value: 2 }));
    assert_eq!(brute.interfaces, ["eth0"]);
    assert_eq!(brute.log_per_second, 10);
    let rate = Rate { count: 10, period_ms: 60_000, burst: 20 };
    assert_eq!(brute.action, Action::Limit(Limit { what: Limited::Connections(rate), per4: 24, per6: 56 }));
    let blocked = rule(&lb1, "blocked");
    assert_eq!((blocked.sources.sets.as_slice(), blocked.sources.prefixes.len()), (&["blocked".to_owned()][..], 0));
    assert!(blocked.destinations.is_any());
    assert_eq!(decides(&lb1, "192.0.2.77", "203.0.113.10", 8080, "eth0").as_deref(), Some("blocked"));
    assert_eq!(decides(&lb1, "192.0.2.177", "203.0.113.10", 8080, "eth0").as_deref(), Some("vip-plain"));
}

#[test]
fn defaults_of_limits_and_logs() {
    let short = good()
        .replacen(", burst = 20, per = 24, per6 = 56", "", 1)
        .replacen("connections = \"10/minute\"", "packets = \"1500/second\"", 1)
        .replacen("log = 10", "log = true", 1);
    let lb1 = planned(&short, "lb1");
    let rate = Rate { count: 1500, period_ms: 1_000, burst: 1500 };
    let limit = Limit { what: Limited::Packets(rate), per4: 32, per6: 64 };
    assert_eq!((rule(&lb1, "brute").action, rule(&lb1, "brute").log_per_second), (Action::Limit(limit), 10));
    let all = short.replacen("limit = { packets = \"1500/second\" }\nlog = true", "log = false", 1);
    let all = planned(&all.replacen("\"limit\"", "\"shadow\"", 1), "lb1");
    assert_eq!((rule(&all, "brute").action, rule(&all, "brute").log_per_second), (Action::Shadow(None), 0));
}

#[test]
fn a_server_without_the_interface_has_no_such_rule() {
    let text = good().replacen("interfaces = [\"eth0\"]\naction", "interfaces = [\"eth1\"]\naction", 1);
    assert_eq!(rule(&planned(&text, "lb1"), "brute").interfaces, ["eth1"]);
    assert!(!planned(&text, "web1").rules.iter().any(|planned| planned.rule.name == "brute"));
}

#[test]
fn a_server_has_the_sets_that_its_rules_name() {
    let text = format!("{}\n[set.more]\nfile = \"more.txt\"\n", good()).replacen(
        "to = [\"any\"]",
        "to = [\"set:more\", \"any\"]",
        1,
    );
    let sets = |text: &str, server: &str| -> Vec<String> {
        planned(text, server).sets.iter().map(|set| set.name.clone()).collect()
    };
    // `any` beside a set is any.
    assert_eq!(sets(&text, "lb1"), ["blocked"]);
    let text = text.replacen("\"set:more\", \"any\"", "\"set:more\", \"10.0.1.1\"", 1);
    assert_eq!(sets(&text, "lb1"), ["blocked", "more"]);
    assert_eq!(sets(&text, "web1"), [""; 0]);
    let more = &planned(&text, "lb1").sets[1];
    assert_eq!((more.prefixes.len(), more.file.as_deref()), (0, Some(Path::new("/etc/foobar/more.txt"))));
}

#[test]
fn everything_is_shown_to_people_and_as_json() {
    let text =
        good().replacen("[\"eth0\", \"eth1\"]", "[\"eth0\", \"eth1\"]\noutside = [\"eth1\"]\nreverse_path = true", 1);
    let lb1 = planned(&text, "lb1");
    let shown = show(&lb1);
    for part in [
        "from port",
        "1024-65535",
        "syn,!ack",
        "interface",
        "eth1",
        "10 connections/minute, burst 20, per /24 /56",
        "10/second",
        "set:blocked",
        "set",
        "prefixes here",
        "dropped when not routed back",
        " more ",
    ] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    // Columns that nothing fills are left out.
    assert!(!show(&planned(GOOD, "web1")).contains("from port"));
    let json = serde_json::to_value(&lb1).expect("JSON");
    assert_eq!((json["reverse_path"].as_bool(), json["sets"][0]["name"].as_str()), (Some(true), Some("blocked")));
    let brute = json["rules"].as_array().expect("rules").iter().find(|rule| rule["name"] == "brute").expect("the rule");
    assert_eq!(brute["action"]["limit"]["what"]["connections"]["count"], 10);
    assert_eq!((brute["flags"]["value"].as_u64(), brute["interfaces"][0].as_str()), (Some(2), Some("eth0")));
}

/// What clients of the database are let in by holds while its server has a lease; the other database servers come first.
#[test]
fn clients_of_the_database_are_let_in_under_a_lease() {
    let everybody = edited("select = \"primary\"\nfrom = [\"app\"]", "select = \"primary\"\nfrom = [\"any\"]");
    for text in [GOOD, &everybody] {
        let db1 = planned(text, "db1");
        let leased = |name: &str| rule(&db1, name).leased;
        assert!(leased("service-db-write") && leased("service-db-read"));
        assert_eq!(db1.rules.iter().filter(|planned| planned.rule.leased).count(), 2);
        assert_eq!(decides(&db1, "10.0.1.32", "10.0.1.31", 5432, "eth0").as_deref(), Some("replication"));
        let decider = decides(&db1, "10.0.1.21", "10.0.1.31", 5432, "eth0");
        assert!(decider.as_deref().is_some_and(|name| name.starts_with("service-db-")), "{decider:?}");
        let fence = db1.fence.as_ref().expect("a fence");
        let peers: Vec<String> = fence.peers.iter().map(ToString::to_string).collect();
        assert_eq!((fence.port, peers), (5432, vec!["10.0.1.32".to_owned()]));
    }
    let alone = edited(
        "[[server]]\nname = \"db2\"\nrole = \"database\"\naddress = \"10.0.1.32\"\ninterfaces = [\"eth0\"]\n",
        "",
    );
    for (text, server) in [(GOOD, "lb1"), (GOOD, "web1"), (GOOD, "app1"), (&*alone, "db1")] {
        let plan = planned(text, server);
        assert!(plan.fence.is_none() && !plan.rules.iter().any(|planned| planned.rule.leased), "{server}");
    }
}

/// With etcd nobody is the witness, no balancer is needed for it, and the fence is there all the same.
#[test]
fn etcd_keeps_the_lease_in_place_of_a_witness() {
    let etcd = "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\", \"https://[fd00:1::52]:2379\"]";
    let with = |files: &str| edited("primary = \"db1\"", &format!("{etcd}{files} }}"));
    let of = |text: &str, server: &str| {
        let plan = planned(text, server);
        let json = serde_json::to_value(&plan).expect("JSON");
        let processes = json["processes"].as_array().expect("processes").clone();
        let failover = processes.iter().map(|process| process["kind"]["postgres"]["failover"].clone());
        (plan, failover.into_iter().find(serde_json::Value::is_object))
    };
    let (db1, failover) = of(&with(""), "db1");
    let failover = failover.expect("a lease");
    assert_eq!(
        failover["store"],
        serde_json::json!({ "etcd": {
            "endpoints": ["https://10.0.1.51:2379", "https://[fd00:1::52]:2379"], "prefix": "/foobar/www.foobar.com/"
        } })
    );
    assert_eq!(failover["tls"]["certificate"], "/etc/foobar/pki/db1.pem");
    assert!(db1.fence.is_some() && rule(&db1, "service-db-write").leased);
    let (_, named) = of(&with(", ca = \"e.pem\", certificate = \"e.crt\", key = \"e.key\""), "db1");
    let tls = &named.expect("a lease")["tls"];
    assert_eq!(
        (&tls["ca"], &tls["certificate"], &tls["key"]),
        (&"/etc/foobar/e.pem".into(), &"/etc/foobar/e.crt".into(), &"/etc/foobar/e.key".into())
    );
    let lb1 = planned(&with(""), "lb1");
    assert!(lb1.witness.is_none() && !lb1.rules.iter().any(|planned| planned.rule.name == "witness"));
    assert!(planned(GOOD, "lb1").witness.is_some());
}
