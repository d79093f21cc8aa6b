//! Next hops: hop count, unknown neighbours, links that are too small, no route.

use foobar_common::verdict::Reason;

use super::super::answer::Told;
use super::super::case::{Case, Step, case};
use super::super::frame::{Frame, SYN};
use super::super::hosts::{NARROW, SILENT, Wire};
use super::services::{opening, to_vip};
use super::{both, named};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = both(of_family);
    let cut = Frame { fragment: 0, ..long(false, 8086, 601) };
    cases.push(case(
        "a packet one byte too long that may be cut, IPv4",
        vec![cut.drops(Reason::TooBig).counts("vip").given("narrow", false, 0, 1)],
    ));
    cases
}

/// A SYN with so much data that the IP packet has this many bytes.
fn long(v6: bool, port: u16, length: usize) -> Frame {
    to_vip(v6, 2000, port, SYN).data(&vec![7; length - if v6 { 60 } else { 40 }])
}

fn of_family(v6: bool) -> Vec<Case> {
    let one = |name: &str, step| case(&named(name, v6), vec![step]);
    let told =
        |frame: &Frame, told, service: &str| -> Step { frame.answered(told).counts("vip").given(service, v6, 0, 1) };
    let refused =
        |frame: &Frame, reason, service: &str| -> Step { frame.drops(reason).counts("vip").given(service, v6, 0, 1) };
    let (mtu, hop) = (if v6 { 1280 } else { 600 }, |frame: &Frame| frame.to_backend(NARROW, 9086));
    let silent = to_vip(v6, 2000, 8085, SYN);
    let fitting = long(v6, 8086, mtu);
    let widest = long(v6, 8080, 1500);
    let sent = widest.to_backend(super::super::hosts::WEB1, 9080);
    vec![
        one("hops used up", told(&to_vip(v6, 2000, 8080, SYN).hops(1), Told::HopsUsedUp, "www")),
        one("no hops at all", told(&to_vip(v6, 2000, 8080, SYN).hops(0), Told::HopsUsedUp, "www")),
        one("the last hop but one", {
            let frame = to_vip(v6, 2000, 8080, SYN).hops(2);
            let sent = frame.to_backend(super::super::hosts::WEB1, 9080);
            frame.leaves(&sent, Wire::Back, Reason::NewFlow).counts("vip").given("www", v6, 0, 1)
        }),
        one("no route", refused(&to_vip(v6, 2000, 8084, SYN), Reason::Unreachable, "nowhere")),
        one("a neighbour that is not known", {
            silent.handed_up(&silent.left_to_stack(SILENT, 9085)).counts("vip").given("silent", v6, 0, 1)
        }),
        one("a small link", opening(v6, 2000, "narrow", 8086, 0, NARROW)),
        one("a packet that just fits", {
            fitting.leaves(&hop(&fitting), Wire::Back, Reason::NewFlow).counts("vip").given("narrow", v6, 0, 1)
        }),
        one("a packet one byte too long", told(&long(v6, 8086, mtu + 1), Told::TooBig(mtu as u16), "narrow")),
        one("a packet one byte too long to all hosts of the link", {
            let frame = long(v6, 8086, mtu + 1);
            refused(&Frame { macs: ([0xff; 6], frame.macs.1), ..frame }, Reason::TooBig, "narrow")
        }),
        one("a packet of 1,500 bytes", {
            widest.leaves(&sent, Wire::Back, Reason::NewFlow).counts("vip").given("www", v6, 0, 1)
        }),
        one("a packet of 1,501 bytes", told(&long(v6, 8080, 1501), Told::TooBig(1500), "www")),
    ]
}
