//! The fence: what a leased rule lets in is dropped from the lease's end on, and nothing beside it.

use foobar_common::verdict::Reason;

use super::super::case::{Case, Lease, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{Host, LB1, WEB1, WEB2, WEB3};
use super::super::own::tcp_reply;
use super::{both, named};

/// Those under which the fence is up.
const OVER: [(&str, Lease); 2] = [("over", Lease::Now), ("never given", Lease::None)];
/// Packets of a connection, from its first to its last.
const FLAGS: [u8; 4] = [SYN, ACK, FIN | ACK, RST];

pub(super) fn cases() -> Vec<Case> {
    both(of_family)
}

fn of_family(v6: bool) -> Vec<Case> {
    let to = |from: Host, port, flags| Frame::new(v6, from, LB1, Transport::Tcp(1025, port, flags));
    let mut cases = Vec::new();
    for (name, lease) in [("before its end", Lease::Soon), ("without an end", Lease::Endless)] {
        let steps = FLAGS.map(|flags| to(WEB2, 5432, flags).allowed("database").under(lease));
        cases.push(case(&named(&format!("a client under a lease {name}"), v6), steps.to_vec()));
    }
    for (name, lease) in OVER {
        let one = |what: &str, step| case(&named(&format!("{what} under a lease that is {name}"), v6), vec![step]);
        let fenced = FLAGS.map(|flags| to(WEB2, 5432, flags).drops(Reason::Fenced).under(lease));
        cases.push(case(&named(&format!("a client under a lease that is {name}"), v6), fenced.to_vec()));
        let peer = FLAGS.map(|flags| to(WEB1, 5432, flags).allowed("replication").under(lease));
        cases.push(case(&named(&format!("replication under a lease that is {name}"), v6), peer.to_vec()));
        cases.extend([
            one("the port beside the database's", to(WEB2, 5433, SYN).allowed("beside-database").under(lease)),
            one("nobody's port", to(WEB2, 5434, SYN).drops(Reason::NoRule).under(lease)),
            one("a reply to the server's own connection", tcp_reply(v6).is_own().under(lease)),
        ]);
    }
    let ends = [
        to(WEB2, 5432, ACK).allowed("database").under(Lease::Soon),
        to(WEB2, 5432, ACK).drops(Reason::Fenced).under(Lease::Now),
        to(WEB3, 5432, SYN).drops(Reason::Fenced).under(Lease::Now),
        to(WEB2, 5432, ACK).allowed("database").under(Lease::Soon),
    ];
    cases.push(case(&named("a connection over a lease's end and its next one", v6), ends.to_vec()));
    cases
}
