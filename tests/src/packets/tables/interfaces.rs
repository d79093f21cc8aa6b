//! Rules of an interface: the same packet by the other one is judged otherwise.

use foobar_common::verdict::Reason;

use super::super::case::{Case, case};
use super::super::frame::{Frame, SYN, Transport};
use super::super::hosts::{CLIENT, LB1, WEB1, Wire};
use super::super::world::RuleSet;
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let by = |wire, transport| Frame { ingress: wire, ..Frame::new(v6, CLIENT, LB1, transport) };
    let (tcp, udp) = (Transport::Tcp(1025, 9000, SYN), |port| Transport::Udp(1025, port));
    let one = |name: &str, step| case(&named(name, v6), vec![step]).rules(RuleSet::Everything);
    let (front, back) = (Wire::Front, Wire::Back);
    vec![
        one("a rule of the back interface, by it", by(back, tcp).allowed("back-only")),
        one("a rule of the back interface, by the front", by(front, tcp).drops(Reason::NoRule)),
        one("a rule of the front interface, by it", by(front, udp(9000)).allowed("front-only")),
        one("a rule of the front interface, by the back", by(back, udp(9000)).drops(Reason::NoRule)),
        one("a rule of both interfaces, by the front", by(front, udp(9001)).allowed("either")),
        one("a rule of both interfaces, by the back", by(back, udp(9001)).allowed("either")),
        one("a rule of the back interface under a tag", by(back, tcp).tag(0x8100, 5).allowed("back-only")),
        one("a rule of no interface, by the back", by(back, Transport::Tcp(1025, 8000, SYN)).allowed("app")),
        one("a server's address by the front", {
            Frame { ingress: front, ..Frame::new(v6, WEB1, LB1, tcp) }.denied("bogons")
        }),
        one("a server's address by the back", Frame::new(v6, WEB1, LB1, tcp).allowed("back-only")),
    ]
}
