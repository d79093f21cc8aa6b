//! Shadow rules: they count what they would drop, and drop nothing.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{CLIENT, LB1, OFFICE, WEB1, WEB2};
use super::super::world::RuleSet;
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let tcp = |from, port, flags| Frame::new(v6, from, LB1, Transport::Tcp(1025, port, flags));
    let dns = |from| -> Step { Frame::new(v6, from, LB1, Transport::Udp(1025, 53)).allowed("dns") };
    let of = |name: &str, steps| case(&named(name, v6), steps).rules(RuleSet::Everything);
    vec![
        of("a shadow counts what it would drop", vec![tcp(OFFICE, 8000, SYN).allowed("app").counts("would-drop")]),
        of("a shadow leaves others alone", vec![tcp(CLIENT, 8000, SYN).allowed("app")]),
        of("a shadow, the port after", vec![tcp(OFFICE, 8004, SYN).allowed("app")]),
        of("a shadow in front of nothing", vec![tcp(CLIENT, 9999, SYN).drops(Reason::NoRule).counts("would-drop-too")]),
        of(
            "a shadow in front of a limit",
            vec![
                tcp(OFFICE, 8001, SYN).allowed("app").counts("would-drop"),
                tcp(OFFICE, 8001, SYN).allowed("app").counts("would-drop"),
                tcp(OFFICE, 8001, SYN).allowed("app").counts("would-drop"),
                tcp(OFFICE, 8001, SYN).drops(Reason::Limit).counts("dials").counts("would-drop"),
            ],
        ),
        of(
            "a shadow of a limit counts what is above it",
            vec![dns(WEB1), dns(WEB1), dns(WEB1).counts("would-limit"), dns(WEB1).counts("would-limit")],
        ),
        of("a shadow of a limit knows sources apart", {
            // In IPv6 the servers share a network of 64 bits.
            let second = dns(WEB2);
            vec![dns(WEB1), dns(WEB1), if v6 { second.counts("would-limit") } else { second }]
        }),
        of(
            "a shadow of open connections counts a SYN",
            vec![tcp(CLIENT, 8009, SYN).allowed("app").counts("would-close"), tcp(CLIENT, 8009, ACK).allowed("app")],
        ),
    ]
}
