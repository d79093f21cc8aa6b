//! The fence: a server's lease to serve the database's clients has an end, which the kernel keeps whoever lives or dies.
//!
//! The end is a moment of the boot-time clock, which counts on while the machine is suspended, in nanoseconds. From then on
//! packets that a leased rule lets in are dropped where they arrive ([`crate::firewall`]), and the database's answers where
//! they leave ([`holds_back`]); the other database servers and the server itself are reached at any time.

use crate::abi::Fenced;
use crate::address::{Address, Be16};
use crate::packet::Packet;
use crate::parse::{ICMPV6, TCP, UDP};
use crate::tunnel::{Network as _, holds};

/// The end of a lease that has none: the fence is down.
pub const OPEN: u64 = u64::MAX;
/// The end of a lease that nobody has been given yet, as in a map that was just made: the fence is up.
pub const CLOSED: u64 = 0;

/// Whether the fence is up: the lease is over at its end, and not only after it.
#[inline(always)]
#[must_use]
pub fn is_up(end: u64, now_boot_ns: impl FnOnce() -> u64) -> bool {
    end != OPEN && now_boot_ns() >= end
}

/// `::1`.
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];
/// First byte of the loopback addresses of IPv4.
const LOOPBACK4: u8 = 127;

/// Whether an IP packet that leaves is one that the fence holds back while it is up: from the database's port to anybody who is
/// not free to ask it. `packet` begins with its IP header.
///
/// What cannot be read is held back: the database sends no such packets.
#[inline(always)]
#[must_use]
pub fn holds_back<P: Packet>(packet: &P, fenced: &Fenced) -> bool {
    if fenced.port.is(Be16::new(0)) {
        return false;
    }
    match packet.load::<1>(0) {
        Some([first]) if first >> 4 == 4 => holds_back_ipv4(packet, fenced, usize::from(first & 15) * 4),
        Some([first]) if first >> 4 == 6 => holds_back_ipv6(packet, fenced),
        _ => true,
    }
}

#[inline(always)]
fn holds_back_ipv4<P: Packet>(packet: &P, fenced: &Fenced, length: usize) -> bool {
    let Some(header) = packet.load::<20>(0) else { return true };
    if header[9] != TCP {
        return false;
    }
    let to = Address([u32::from_ne_bytes([header[16], header[17], header[18], header[19]])]);
    is_from(packet, fenced, length) && header[16] != LOOPBACK4 && !is_free(fenced, Address::mapped(to))
}

#[inline(always)]
fn holds_back_ipv6<P: Packet>(packet: &P, fenced: &Fenced) -> bool {
    const TO: usize = 24;
    let (Some([next]), Some(to)) = (packet.load::<1>(6), packet.load::<16>(TO)) else { return true };
    let word = |n: usize| u32::from_ne_bytes([to[n], to[n + 1], to[n + 2], to[n + 3]]);
    let to = [word(0), word(4), word(8), word(12)];
    // Behind an extension header there may be anything: the database sets none.
    let from = match next {
        UDP | ICMPV6 => false,
        TCP => is_from(packet, fenced, 40),
        _ => true,
    };
    from && to != LOOPBACK6 && !is_free(fenced, to)
}

/// Whether the TCP header at an offset says that it comes from the database's port.
#[inline(always)]
fn is_from<P: Packet>(packet: &P, fenced: &Fenced, offset: usize) -> bool {
    packet.load::<2>(offset).is_none_or(|port| Be16::from_bytes(port).is(fenced.port))
}

/// Whether an address may be answered at any time.
#[inline(always)]
fn is_free(fenced: &Fenced, to: [u32; 4]) -> bool {
    holds(&fenced.free, fenced.count, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_at_its_end_and_not_before() {
        let is_up_at = |end, now| is_up(end, || now);
        assert!(!is_up_at(1_000, 999) && is_up_at(1_000, 1_000) && is_up_at(1_000, 1_001));
        assert!(is_up_at(CLOSED, 0) && is_up_at(CLOSED, u64::MAX));
        assert!(!is_up_at(OPEN, 0) && !is_up_at(OPEN, u64::MAX));
    }
}
