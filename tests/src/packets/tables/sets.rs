//! Named sets: at either end, overlapping, beside prefixes, empty, with entries that run out; and source ports.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::frame::{Frame, SYN, Transport};
use super::super::hosts::{CLIENT, CLIENT2, ENEMY, Host, LB1, LB1_TOO, OFFICE, OFFICE_HIGH, STRANGER, WEB1};
use super::super::world::RuleSet;
use super::{both, named};

const NO_RULE: Reason = Reason::NoRule;

pub(super) fn cases() -> Vec<Case> {
    [both(of_family), both(lives), both(ends), both(source_ports)].concat()
}

/// The office's neighbour, `last` in the upper half of its network.
fn high(last: u8) -> Host {
    let mut v6 = OFFICE_HIGH.v6.segments();
    v6[7] = u16::from(last);
    OFFICE_HIGH.at([198, 51, 100, last].into(), v6.into())
}

fn tcp(v6: bool, from: Host, to: Host, port: u16) -> Frame {
    Frame::new(v6, from, to, Transport::Tcp(1025, port, SYN))
}

fn one(name: &str, v6: bool, frame: &Frame, allowed: Result<&'static str, &'static str>) -> Case {
    let step = match allowed {
        Ok(rule) => frame.allowed(rule),
        Err("") => frame.drops(NO_RULE),
        Err(rule) => frame.denied(rule),
    };
    case(&named(name, v6), vec![step]).rules(RuleSet::Everything)
}

fn of_family(v6: bool) -> Vec<Case> {
    let to = |from, port| tcp(v6, from, LB1, port);
    let far = |third: u8, v6: u16| OFFICE.at([198, 51, third, 9].into(), [0x2001, 0xdb8, v6, 0, 0, 0, 0, 9].into());
    vec![
        one("a set of sources", v6, &to(ENEMY, 8000), Err("blocked")),
        one("a set of sources, in another's prefix too", v6, &to(ENEMY, 443), Err("blocked")),
        one("a single address of a set", v6, &to(STRANGER, 8000), Err("blocked")),
        one("beside a single address of a set", v6, &to(far(101, 0x65), 8000), Ok("app")),
        one("beside a single address, in the wider set", v6, &to(far(101, 0x65), 443), Ok("partners")),
        one("the first of a wide prefix", v6, &to(far(96, 0x60), 443), Ok("partners")),
        one("the last of a wide prefix", v6, &to(far(127, 0x6f), 443), Ok("partners")),
        one("before a wide prefix", v6, &to(far(95, 0x5f), 443), Err("")),
        one("behind a wide prefix", v6, &to(far(128, 0x70), 443), Err("")),
        one("a prefix beside a set in one rule", v6, &to(CLIENT2, 443), if v6 { Err("") } else { Ok("partners") }),
        one("neither the prefix nor the set", v6, &to(CLIENT, 443), Err("")),
        one("an empty set holds nobody", v6, &to(OFFICE, 444), Err("")),
        one("a set under a tag", v6, &to(ENEMY, 8000).tag(0x88a8, 3), Err("blocked")),
    ]
}

fn lives(v6: bool) -> Vec<Case> {
    let to = |last, port| tcp(v6, high(last), LB1, port);
    vec![
        one("an entry that has run out", v6, &to(201, 443), Ok("partners")),
        one("an entry that has run out, elsewhere", v6, &to(201, 8010), Ok("app")),
        one("an entry that has time left", v6, &to(202, 443), Err("blocked")),
        one("beside an entry that has time left", v6, &to(203, 443), Ok("partners")),
    ]
}

fn ends(v6: bool) -> Vec<Case> {
    let number = |from, to| Frame::new(v6, from, to, Transport::Other(89));
    vec![
        one("a set of destinations", v6, &tcp(v6, CLIENT, LB1_TOO, 8004), Err("closed")),
        one("beside a set of destinations", v6, &tcp(v6, CLIENT, LB1, 8004), Ok("app")),
        one("a set of destinations, the port after", v6, &tcp(v6, CLIENT, LB1_TOO, 8005), Ok("app")),
        one("sets at both ends", v6, &number(OFFICE, LB1_TOO), Ok("both-ends")),
        one("sets at both ends, the source is outside", v6, &number(CLIENT, LB1_TOO), Err("")),
        one("sets at both ends, the destination is outside", v6, &number(OFFICE, LB1), Err("")),
    ]
}

fn source_ports(v6: bool) -> Vec<Case> {
    let udp = |source, port| Frame::new(v6, WEB1, LB1, Transport::Udp(source, port));
    let tcp = |source| Frame::new(v6, CLIENT, LB1, Transport::Tcp(source, 8015, SYN));
    vec![
        one("a source port", v6, &udp(123, 123), Ok("ntp")),
        one("the source port before", v6, &udp(122, 123), Err("")),
        one("the source port after", v6, &udp(124, 123), Err("")),
        one("a source port, another destination", v6, &udp(123, 124), Err("")),
        one("before a range of source ports", v6, &tcp(1023), Err("")),
        one("the first of a range of source ports", v6, &tcp(1024), Ok("unprivileged")),
        one("the last of a range of source ports", v6, &tcp(4999), Ok("unprivileged")),
        one("between two ranges of source ports", v6, &tcp(5000), Err("")),
        one("the first of the second range of source ports", v6, &tcp(6000), Ok("unprivileged")),
        one("the last source port of all", v6, &tcp(65535), Ok("unprivileged")),
        one("source port zero", v6, &tcp(0), Err("")),
    ]
}
