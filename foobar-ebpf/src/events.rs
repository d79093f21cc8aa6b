//! Events: what rules and drops tell user space of single packets, by a ring buffer.
//!
//! As often as each rule and each reason may, by token buckets here in the kernel: a flood of packets is no flood of
//! events. A ring without room loses events, counts them, and keeps no packet waiting.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use foobar_common::abi::{Event, NO_RULE_SLOT, RULE_COUNTERS};
use foobar_common::address::{Address, Be16};
use foobar_common::bucket;
use foobar_common::generation::RuleEntry;
use foobar_common::parse::{Headers, TCP};

use crate::maps::{EVENTS, EVENTS_LOST, LOG_TIMES};

/// Time between two events of a reason, or of a rule without a rate of its own, while somebody watches.
const WATCH_INTERVAL_NS: u64 = 20_000_000;
/// Events that may come at once, in times of their interval.
const BURST: u64 = 10;

/// Tells of a packet for which a rule has decided. A function of its own, for few packets need its part of the stack;
/// `reason_length` is both in one register, as Linux 6.1 has 32 bytes left for this function.
#[inline(never)]
pub(crate) fn of_rule<const W: usize>(headers: &Headers<W>, rule: &RuleEntry, interface: u32, reason_length: u64) {
    let interval = if rule.log_interval_ns == 0 { WATCH_INTERVAL_NS } else { rule.log_interval_ns };
    let time_ns = now();
    if may(rule.counter, time_ns, interval) {
        let (reason, length) = ((reason_length >> 32) as u32, reason_length as u32);
        let about = About { time_ns, rule: rule.counter, reason, interface, length, shadow: rule.shadow };
        write(Some(headers), &about);
    }
}

/// Tells of a packet that no rule has dropped.
#[inline(never)]
pub(crate) fn of_reason<const W: usize>(headers: Option<&Headers<W>>, interface: u32, reason: u32, length: u64) {
    let time_ns = now();
    if may(RULE_COUNTERS + reason, time_ns, WATCH_INTERVAL_NS) {
        write(headers, &About { time_ns, rule: NO_RULE_SLOT, reason, interface, length: length as u32, shadow: 0 });
    }
}

/// What an event says beside the packet's headers.
struct About {
    time_ns: u64,
    rule: u32,
    reason: u32,
    interface: u32,
    length: u32,
    shadow: u8,
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Takes from a token bucket of telling. Two CPUs may take at once, and then one event more is told.
#[inline(always)]
fn may(slot: u32, now_ns: u64, interval_ns: u64) -> bool {
    let Some(time) = LOG_TIMES.get_ptr_mut(slot) else { return false };
    // SAFETY: an aligned word of a map value.
    let Some(next) = bucket::taken(unsafe { *time }, now_ns, interval_ns, BURST * interval_ns) else { return false };
    // SAFETY: as above.
    unsafe { *time = next };
    true
}

/// Writes an event where user space reads it, field by field: there is no stack for a whole one.
#[inline(always)]
fn write<const W: usize>(headers: Option<&Headers<W>>, about: &About) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
            // SAFETY: a map value of this CPU.
            unsafe { *lost += 1 };
        }
        return;
    };
    let place = entry.as_mut_ptr();
    // SAFETY: the entry has room for one event, and is nobody else's until it is submitted. Stores of fixed size: the
    // verifier would walk every step of a loop.
    unsafe {
        (*place).time_ns = about.time_ns;
        (*place).rule = about.rule;
        (*place).reason = about.reason;
        (*place).interface = about.interface;
        (*place).length = about.length;
        (*place).shadow = about.shadow;
        (*place).source = headers.map_or([0; 4], |headers| padded(headers.tuple.source));
        (*place).destination = headers.map_or([0; 4], |headers| padded(headers.tuple.destination));
        let none = Be16::new(0);
        (*place).source_port = headers.map_or(none, |headers| headers.tuple.source_port);
        (*place).destination_port = headers.map_or(none, |headers| headers.tuple.destination_port);
        (*place).protocol = headers.map_or(0, |headers| headers.tuple.protocol);
        (*place).family = headers.map_or(0, |_| if W == 1 { 4 } else { 6 });
        let detail =
            |headers: &Headers<W>| if headers.tuple.protocol == TCP { headers.flags } else { headers.icmp_type };
        (*place).detail = headers.map_or(0, detail);
    }
    entry.submit(0);
}

/// An address in four words.
#[inline(always)]
fn padded<const W: usize>(address: Address<W>) -> [u32; 4] {
    let word = |index: usize| if index < W { address.0[index % W] } else { 0 };
    [word(0), word(1), word(2), word(3)]
}
