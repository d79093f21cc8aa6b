//! Bad input of the balancer: what is refused, at its place and with what to do, each beside its nearest neighbour that is taken.

mod common;

use std::path::Path;

use common::edited;
use foobar_user::site::{Checked, Faults, Severity};

/// Edits of the good file, each replacing the first occurrence of a text.
type Edits<'a> = &'a [(&'a str, &'a str)];

fn parse(edits: Edits<'_>) -> (String, Result<Checked, Faults>) {
    let [(from, to), others @ ..] = edits else { panic!("no edit") };
    let text = others.iter().fold(edited(from, to), |text, (from, to)| {
        assert!(text.contains(from), "the file holds no `{from}`");
        text.replacen(from, to, 1)
    });
    let parsed = Checked::parse(Path::new("site.toml"), &text);
    (text, parsed)
}

/// The edited file is refused with a message that holds each of these texts, at the place of `mark`.
#[track_caller]
fn refused(edits: Edits<'_>, mark: &str, told: &[&str]) {
    let (text, parsed) = parse(edits);
    let Err(faults) = parsed else { panic!("was taken") };
    let before = &text[..text.find(mark).unwrap_or_else(|| panic!("the file holds no `{mark}`"))];
    let place = (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    let found = faults.positions().any(|(line, column, fault)| {
        let all = told.iter().all(|text| fault.message.contains(text));
        (line, column) == place && all && fault.severity == Severity::Error
    });
    assert!(found, "expected {place:?} {told:?}, found\n{faults}");
}

#[track_caller]
fn taken(edits: Edits<'_>) {
    let (_, parsed) = parse(edits);
    let checked = parsed.unwrap_or_else(|faults| panic!("{faults}"));
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
}

const PLAIN: &str = "\"203.0.113.10:8080\"";
const APP_VIP: &str = "listen = \"10.0.9.10:8000\"";
const READS: &str = "select = \"replica\"";

#[test]
fn a_vip_is_no_servers_address() {
    refused(&[(PLAIN, "\"10.0.1.12:8080\"")], "\"10.0.1.12:8080\"", &["address of server `web2`", "no server has"]);
    taken(&[(PLAIN, "\"10.0.1.13:8080\"")]);
}

#[test]
fn an_ipv6_vip_is_no_servers_address() {
    refused(&[("[2001:db8::10]", "[fd00:1::12]")], "\"[fd00:1::12]:8080\"", &["address of server `web2`"]);
    taken(&[("[2001:db8::10]", "[fd00:1::13]")]);
}

#[test]
fn one_address_and_port_is_one_services() {
    let taken_twice = ["10.0.9.20:5432/tcp is taken twice", "change a port or a VIP"];
    refused(
        &[(APP_VIP, "listen = \"10.0.9.20:5432\"")],
        "\"10.0.9.20:5432\"\nto = \"database:5432\"\nselect = \"primary\"",
        &taken_twice,
    );
    taken(&[(APP_VIP, "listen = \"10.0.9.20:5433\"")]);
}

#[test]
fn the_same_port_of_another_protocol_is_another() {
    taken(&[(APP_VIP, "listen = \"10.0.9.20:5432\"\nprotocol = \"udp\"")]);
}

#[test]
fn a_service_has_backends() {
    let monitor = ("to = \"app:8000\"", "to = \"monitor:8000\"");
    let none = ("role = \"monitor\"", "role = \"app\"");
    let prometheus = ("on = [\"monitor\"]", "on = [\"monitor1\"]");
    refused(
        &[monitor, none, prometheus],
        "\"monitor:8000\"",
        &["no server has the role `monitor`", "add a `[[server]]`"],
    );
    taken(&[monitor, ("upstream = \"app\"\n", ""), ("dynamic = [\"/guestbook\"]\n", "")]);
}

const DIRECT: [(&str, &str); 2] =
    [("forward = \"nat\"", "forward = \"direct\""), ("to = \"web:8080\"", "to =  \"web:8080\"")];

#[test]
fn a_direct_service_keeps_to_one_network() {
    let lb = ("address = \"10.0.1.1\"", "address = \"10.0.1.1/24\"");
    let near = ("address = \"10.0.1.11\"", "address = \"10.0.1.11/24\"");
    let far = ("address = \"10.0.1.12\"", "address = \"10.0.2.12/24\"");
    let told = ["`web2` is in 10.0.2.0/24", "`lb1` in 10.0.1.0/24", "set `forward = \"tunnel\"`"];
    refused(&[DIRECT[0], DIRECT[1], lb, near, far], "\"web:8080\"", &told);
    taken(&[DIRECT[0], lb, near]);
    // Where the file does not say, the kernel does: see the checks of `direct` services.
    taken(&[DIRECT[0], lb, ("address = \"10.0.1.12\"", "address = \"10.0.2.12\"")]);
    // Behind a router, nat does.
    taken(&[lb, near, far]);
}

#[test]
fn a_direct_service_keeps_to_one_network_of_ipv6() {
    let lb = ("address6 = \"fd00:1::1\"", "address6 = \"fd00:1::1/64\"");
    let near = ("address6 = \"fd00:1::11\"", "address6 = \"fd00:1::11/64\"");
    let far = ("address6 = \"fd00:1::11\"", "address6 = \"fd00:2::11/64\"");
    refused(&[DIRECT[0], DIRECT[1], lb, far], "\"web:8080\"", &["`web1` is in fd00:2::/64", "`lb1` in fd00:1::/64"]);
    taken(&[DIRECT[0], lb, near]);
}

#[test]
fn a_balancer_of_direct_services_checks_no_reverse_paths() {
    let strict = "address6 = \"fd00:1::1\"\nreverse_path = true";
    refused(
        &[DIRECT[0], ("address6 = \"fd00:1::1\"", strict)],
        "\"lb1\"",
        &["drops what its backends answer", "leave it out"],
    );
    taken(&[("address6 = \"fd00:1::1\"", strict)]);
    taken(&[DIRECT[0], ("address6 = \"fd00:1::11\"", "address6 = \"fd00:1::11\"\nreverse_path = true")]);
}

#[test]
fn an_address_with_a_prefix_length_is_a_hosts() {
    let address = |text| [("address = \"10.0.1.11\"", text)];
    refused(&address("address = \"10.0.1.0/24\""), "\"10.0.1.0/24\"", &["is a network", "such as `10.0.1.1/24`"]);
    refused(&address("address = \"10.0.1.255/24\""), "\"10.0.1.255/24\"", &["is the broadcast address of 10.0.1.0/24"]);
    refused(&address("address = \"10.0.1.11/33\""), "\"10.0.1.11/33\"", &["prefix length, such as `10.0.1.1/24`"]);
    taken(&address("address = \"10.0.1.11/24\""));
    taken(&address("address = \"10.0.1.10/31\""));
    taken(&address("address = \"10.0.1.11/32\""));
}

#[test]
fn somebody_has_a_weight() {
    let weights = |text| [("forward = \"nat\"", text)];
    let zero = "forward = \"nat\"\nweights = { web1 = 0, web2 = 0 }";
    refused(&weights(zero), "web1 = 0", &["every weight is 0", "raise one"]);
    taken(&weights("forward = \"nat\"\nweights = { web1 = 0, web2 = 1 }"));
    taken(&weights("forward = \"nat\"\nweights = { web1 = 0 }"));
}

#[test]
fn limits_of_lag_are_for_replicas() {
    let reads = |text| [(READS, text)];
    refused(
        &[("select = \"primary\"", "select = \"primary\"\nmax_lag = \"10s\"")],
        "\"10s\"",
        &["set `select = \"replica\"`"],
    );
    refused(
        &[("forward = \"nat\"", "forward = \"nat\"\nfallback_to_primary = false")],
        "false\n",
        &["set `select = \"replica\"`"],
    );
    refused(&reads("select = \"replica\"\nmax_lag = \"10\""), "\"10\"", &["is no time"]);
    refused(&reads("select = \"replica\"\nmax_lag = \"2d\""), "\"2d\"", &["longer than 1d"]);
    refused(&reads("select = \"replica\"\nmax_lag_bytes = 0"), "0\nfrom = [\"app\"]", &["must be from 1 to"]);
    refused(&reads("select = \"replica\"\nfallback_to_primary = \"no\""), "\"no\"", &["true or false"]);
    taken(&reads("select = \"replica\"\nmax_lag = \"10s\"\nmax_lag_bytes = 16777216\nfallback_to_primary = false"));
}
