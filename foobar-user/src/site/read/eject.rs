//! `eject` of a `[service.name]`: when a backend that takes no connections is taken out, and for how long.

use super::balance;
use crate::plan::{Eject, Transport};
use crate::site::model::Forward;
use crate::site::section::Section;

/// What holds where the file does not say.
const DEFAULT: Eject = Eject { failures: 5, time_s: 10 };
/// Most failures in a row; 0: a backend is never taken out.
const FAILURES_MAX: u64 = 1000;
/// Longest first time.
const TIME_S_MAX: u64 = 3600;

pub(super) fn read(section: &mut Section<'_>, protocol: Transport, forward: Option<&Forward>) -> Eject {
    if protocol == Transport::Udp {
        section.refuse("eject", "datagrams are not refused as connections are; leave it out");
        return Eject::NEVER;
    }
    if matches!(forward, Some(Forward::Direct | Forward::Tunnel)) {
        section.refuse("eject", "the answers of a `direct` or `tunnel` service do not pass the balancer; leave it out");
        return Eject::NEVER;
    }
    if !section.has("eject") {
        section.know("eject");
        return DEFAULT;
    }
    let Some(mut table) = section.table("eject", "{ failures = 5, time = \"10s\" }") else { return DEFAULT };
    let failures = table.integer("failures", 0..=FAILURES_MAX);
    let time_s = balance::time(&mut table, "time", TIME_S_MAX);
    table.finish();
    Eject {
        failures: failures.map_or(DEFAULT.failures, |number| u32::try_from(number.value).unwrap_or(u32::MAX)),
        time_s: if time_s == 0 { DEFAULT.time_s } else { time_s },
    }
}
