//! Services whose answers never come by here: what every such way of forwarding has in common.

use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Case, Step, case};
use super::super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::super::hosts::{CLIENT, Host, VIP};
use super::named;

/// A service of TCP with two backends.
pub(super) struct OneWay {
    /// Its name, which is its way's, too.
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) backends: [Host; 2],
    /// A client's packet on its way to a backend.
    pub(super) leaves: fn(&Frame, Host, Reason) -> Step,
}

impl OneWay {
    /// A client's segment.
    pub(super) fn segment(&self, v6: bool, source: u16, flags: u8) -> Frame {
        Frame::new(v6, CLIENT, VIP, Transport::Tcp(source, self.port, flags))
    }

    /// A SYN that is given to a backend.
    pub(super) fn opening(&self, v6: bool, source: u16, member: u32) -> Step {
        let step = self.leaves(&self.segment(v6, source, SYN), member, Reason::NewFlow);
        step.counts("vip").given(self.name, v6, member, 1)
    }

    /// A segment that follows it by the flow.
    pub(super) fn following(&self, v6: bool, source: u16, flags: u8, member: u32) -> Step {
        let step = self.leaves(&self.segment(v6, source, flags), member, Reason::Flow);
        step.counts("vip").given(self.name, v6, member, 0)
    }

    fn leaves(&self, frame: &Frame, member: u32, reason: Reason) -> Step {
        (self.leaves)(frame, self.backends[member as usize], reason)
    }

    /// What it does as every other.
    pub(super) fn cases(&self, v6: bool) -> Vec<Case> {
        let name = |text: &str| named(&format!("{}: {text}", self.name), v6);
        let opening = |source, member| self.opening(v6, source, member);
        let following = |source, flags, member| self.following(v6, source, flags, member);
        vec![
            case(&name("the first packet"), vec![opening(2000, 0)]),
            case(
                &name("round robin, and each flow to its own"),
                vec![
                    opening(2000, 0),
                    opening(2001, 1),
                    following(2000, ACK, 0),
                    following(2001, ACK, 1),
                    opening(2002, 0),
                ],
            ),
            case(
                &name("the port is used again after the client's FIN"),
                vec![
                    opening(2000, 0),
                    following(2000, ACK, 0),
                    following(2000, FIN | ACK, 0),
                    following(2000, ACK, 0),
                    opening(2000, 1),
                ],
            ),
            case(&name("after a reset"), vec![opening(2000, 0), following(2000, RST, 0), opening(2000, 1)]),
            case(&name("an ACK without a flow"), vec![self.segment(v6, 2000, ACK).drops(Reason::NoFlow).counts("vip")]),
            case(&name("the last hop"), {
                let last = self.segment(v6, 2000, SYN).hops(1);
                vec![last.answered(Told::HopsUsedUp).counts("vip").given(self.name, v6, 0, 1)]
            }),
        ]
    }
}
