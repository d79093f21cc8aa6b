//! Limits: for each source so many packets or new connections at once, and more as time goes by; connections that are open.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport, URG};
use super::super::hosts::{CLIENT, CLIENT2, Host, LB1, OFFICE, VIP, WEB1, WEB2, Wire};
use super::super::world::RuleSet;
use super::services::{opening, to_vip};
use super::{both, named};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;

pub(super) fn cases() -> Vec<Case> {
    [both(connections), both(packets), both(prefixes), both(time), both(balanced)].concat()
}

fn of(name: &str, v6: bool, steps: Vec<Step>) -> Case {
    case(&named(name, v6), steps).rules(RuleSet::Everything)
}

fn dial(v6: bool, from: Host, flags: u8) -> Frame {
    Frame::new(v6, from, LB1, Transport::Tcp(1025, 8001, flags))
}

fn dialed(v6: bool) -> Step {
    dial(v6, CLIENT, SYN).allowed("app")
}

fn refused(v6: bool) -> Step {
    dial(v6, CLIENT, SYN).drops(Reason::Limit).counts("dials")
}

fn connections(v6: bool) -> Vec<Case> {
    let three = || vec![dialed(v6); 3];
    let then = |steps: &[Step]| [three(), steps.to_vec()].concat();
    let other = dial(v6, OFFICE, SYN).allowed("app").counts("would-drop");
    vec![
        of("new connections up to a burst", v6, three()),
        of("new connections above a burst", v6, then(&[refused(v6), refused(v6)])),
        of("another source has a limit of its own", v6, then(&[other])),
        of(
            "segments of old connections are not limited",
            v6,
            then(&[
                dial(v6, CLIENT, ACK).allowed("app"),
                dial(v6, CLIENT, FIN | ACK).allowed("app"),
                dial(v6, CLIENT, RST).allowed("app"),
                dial(v6, CLIENT, SYN | ACK).allowed("app"),
                refused(v6),
            ]),
        ),
        of(
            "urgent SYNs are limited, too",
            v6,
            then(&[dial(v6, CLIENT, SYN | URG).drops(Reason::Limit).counts("dials")]),
        ),
        of(
            "other ports are not limited",
            v6,
            then(&[Frame::new(v6, CLIENT, LB1, Transport::Tcp(1025, 8000, SYN)).allowed("app")]),
        ),
        of("bad flags take nothing from a limit", v6, {
            let bad = dial(v6, CLIENT, SYN | FIN).drops(Reason::TcpFlags);
            [vec![bad; 3], then(&[refused(v6)])].concat()
        }),
        of("what the stack would not count takes nothing", v6, {
            let fragment = dial(v6, CLIENT, SYN).fragment(0, true).drops(Reason::FragmentFirst);
            [vec![fragment; 3], then(&[refused(v6)])].concat()
        }),
    ]
}

fn packets(v6: bool) -> Vec<Case> {
    let kind = if v6 { 128 } else { 8 };
    let (rule, limit) = if v6 { ("echo6", "pings6") } else { ("echo", "pings") };
    let ping = |host: Host| Frame::new(v6, host, LB1, Transport::Icmp(kind));
    let udp = |host: Host, port| Frame::new(v6, host, LB1, Transport::Udp(1025, port));
    let above = |host| ping(host).drops(Reason::Limit).counts(limit);
    let mut behind = vec![udp(WEB1, 5001).allowed("datagrams"); 3];
    behind.push(udp(WEB1, 5001).drops(Reason::Limit).counts("everybody"));
    // The limit in front has given four packets by then, and takes from all who come this far.
    behind.push(udp(WEB1, 5000).drops(Reason::Limit).counts("nets"));
    vec![
        of("packets up to a burst", v6, vec![ping(CLIENT).allowed(rule); 2]),
        of("packets above a burst", v6, vec![ping(CLIENT).allowed(rule), ping(CLIENT).allowed(rule), above(CLIENT)]),
        of(
            "each address has its packets",
            v6,
            vec![
                ping(CLIENT).allowed(rule),
                ping(CLIENT2).allowed(rule),
                ping(CLIENT).allowed(rule),
                ping(CLIENT2).allowed(rule),
                above(CLIENT),
                above(CLIENT2),
            ],
        ),
        of("a packet goes through one limit after another", v6, behind),
    ]
}

/// Sources of one prefix share a limit: of 24 and of 48 bits, and everybody.
fn prefixes(v6: bool) -> Vec<Case> {
    let udp = |host: Host, port| Frame::new(v6, host, LB1, Transport::Udp(1025, port));
    let near = OFFICE.at([198, 51, 100, 255].into(), [0x2001, 0xdb8, 0x64, 0xffff, 0, 0, 0, 1].into());
    let beside = OFFICE.at([198, 51, 99, 7].into(), [0x2001, 0xdb8, 0x63, 0, 0, 0, 0, 7].into());
    let given = |host| udp(host, 5000).allowed("datagrams");
    let above = |host| udp(host, 5000).drops(Reason::Limit).counts("nets");
    vec![
        of(
            "a network shares a limit",
            v6,
            vec![given(OFFICE), given(near), given(OFFICE), given(near), above(OFFICE), above(near)],
        ),
        of(
            "the network beside has its own",
            v6,
            vec![given(OFFICE), given(OFFICE), given(OFFICE), given(OFFICE), above(OFFICE), given(beside)],
        ),
        of(
            "everybody shares a limit",
            v6,
            vec![
                udp(OFFICE, 5001).allowed("datagrams"),
                udp(beside, 5001).allowed("datagrams"),
                udp(WEB1, 5001).allowed("datagrams"),
                udp(CLIENT, 5001).drops(Reason::Limit).counts("everybody"),
            ],
        ),
    ]
}

/// On the host's clock: one connection an hour.
fn time(v6: bool) -> Vec<Case> {
    let after = |steps: &[Step]| [vec![dialed(v6); 3], steps.to_vec()].concat();
    vec![
        of(
            "a token comes back after its time (core only)",
            v6,
            after(&[refused(v6).later(HOUR - 1), dialed(v6).later(1), refused(v6)]),
        ),
        of(
            "tokens come back one by one (core only)",
            v6,
            after(&[dialed(v6).later(HOUR), refused(v6), dialed(v6).later(HOUR), refused(v6)]),
        ),
        of(
            "a burst is all that is saved (core only)",
            v6,
            after(&[dialed(v6).later(100 * HOUR), dialed(v6), dialed(v6), refused(v6)]),
        ),
        of(
            "asking in vain costs nothing (core only)",
            v6,
            after(&[refused(v6), refused(v6), refused(v6).later(HOUR / 2), dialed(v6).later(HOUR / 2)]),
        ),
    ]
}

/// Limits in front of services.
fn balanced(v6: bool) -> Vec<Case> {
    let to = |from: Host, source, port, flags| Frame::new(v6, from, VIP, Transport::Tcp(source, port, flags));
    let above = |source| to(CLIENT, source, 8082, SYN).drops(Reason::Limit).counts("vip-dials");
    let www = |flags, reason, connections| {
        let frame = to(CLIENT2, 2000, 8080, flags);
        frame.leaves(&frame.to_backend(WEB1, 9080), Wire::Back, reason).counts("vip").given("www", v6, 0, connections)
    };
    vec![
        of(
            "new flows of a service are limited",
            v6,
            vec![opening(v6, 2000, "three", 8082, 0, WEB1), opening(v6, 2001, "three", 8082, 1, WEB2), above(2002)],
        ),
        of(
            "another service is not",
            v6,
            vec![
                opening(v6, 2000, "three", 8082, 0, WEB1),
                opening(v6, 2001, "three", 8082, 1, WEB2),
                above(2002),
                opening(v6, 2003, "www", 8080, 0, WEB1),
            ],
        ),
        of(
            "packets of a flow are limited one by one",
            v6,
            vec![
                www(SYN, Reason::NewFlow, 1),
                www(ACK, Reason::Flow, 0),
                www(ACK, Reason::Flow, 0),
                to(CLIENT2, 2000, 8080, ACK).drops(Reason::Limit).counts("vip-packets"),
            ],
        ),
        of("packets of another client's flow are not", v6, {
            let open = opening(v6, 2000, "www", 8080, 0, WEB1);
            let ack = to_vip(v6, 2000, 8080, ACK);
            let step = ack.leaves(&ack.to_backend(WEB1, 9080), Wire::Back, Reason::Flow);
            [vec![open], vec![step.counts("vip").given("www", v6, 0, 0); 5]].concat()
        }),
    ]
}
