//! Replies to connections of the balancer's own pass without a rule; nothing beside them does.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::frame::{ACK, Frame, SYN, Transport};
use super::super::hosts::{LB1, LB1_TOO, WEB1, WEB2};
use super::super::own::{ASKING, DNS, LOCAL, OPEN, REMOTE, tcp_reply, udp_reply};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let tcp = |from, to, source, port, flags| Frame::new(v6, from, to, Transport::Tcp(source, port, flags));
    let udp = |from, source, port| Frame::new(v6, from, LB1, Transport::Udp(source, port));
    let one = |name: &str, step| case(&named(name, v6), vec![step]);
    let no_rule = Reason::NoRule;
    vec![
        one("a reply to an own TCP connection", tcp_reply(v6).is_own()),
        one("a reply to the port after", tcp(LB1_TOO, LB1, REMOTE, LOCAL + 1, ACK).drops(no_rule)),
        one("a reply from the port after", tcp(LB1_TOO, LB1, REMOTE + 1, LOCAL, ACK).drops(no_rule)),
        one("a reply from another server", tcp(WEB1, LB1, REMOTE, LOCAL, ACK).drops(no_rule)),
        one("a SYN to a listening socket", tcp(WEB1, LB1_TOO, 1025, REMOTE, SYN).drops(no_rule)),
        one("an answer to a connected UDP socket", udp_reply(v6).is_own()),
        one("an answer from another port", udp(WEB1, DNS + 1, ASKING).drops(no_rule)),
        one("an answer from another server", udp(WEB2, DNS, ASKING).drops(no_rule)),
        one("a datagram to an unconnected UDP socket", udp(WEB1, DNS, OPEN).drops(no_rule)),
    ]
}
