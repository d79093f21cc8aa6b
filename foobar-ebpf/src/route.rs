//! Next hops, from the kernel's routing and neighbour tables: nothing of them is configured twice.
//!
//! The kernel is asked for one packet in many: what it has answered holds for [`HOP_NS`] on the CPU that has asked. So a change
//! of routes or neighbours is followed within that time.

use core::ffi::c_void;
use core::mem::size_of;

use aya_ebpf::bindings::bpf_fib_lookup as Parameters;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use foobar_common::address::Address;
use foobar_common::tables::{Mac, Route, RouteQuery};
use foobar_common::vlan::{Link, Tag};

use crate::maps::{HOPS, HOPS_BITS, ROUTE, VLAN_LINKS};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Asked as a packet of this host's own, for which the loopback interface must be allowed to forward.
const LOOPBACK: u32 = 1;
const SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;

/// Time for which an answer holds.
const HOP_NS: u64 = 50_000_000;

/// An answer of the kernel.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Hop {
    /// Of which question: both addresses, and the interface by which the packet has come.
    source: [u32; 4],
    destination: [u32; 4],
    ingress: u32,
    /// Longest IP packet in bytes.
    mtu: u16,
    /// 1: the destination lies behind a router.
    gateway: u16,
    /// Coarse monotonic time until which it holds.
    until_ns: u64,
    from: u64,
    to: u64,
    interface: u32,
    /// Under which it leaves there.
    tag: Tag,
    /// Words of its addresses: 1 or 4; 0: no answer yet.
    family: u32,
    _pad: u32,
}

/// The next hop of an IPv4 packet.
#[inline(always)]
pub(crate) fn ipv4(context: *mut c_void, query: &RouteQuery<1>, now_ns: u64) -> Route {
    let Some(place) = HOPS.get_ptr_mut(place(query)) else { return Route::Unreachable };
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way.
    let hop = unsafe { &mut *place };
    if hop.holds(query, now_ns) {
        return hop.route(SUCCESS, 0);
    }
    let Some(parameters) = parameters(AF_INET, query) else { return Route::Unreachable };
    parameters.__bindgen_anon_3.ipv4_src = query.source.0[0];
    parameters.__bindgen_anon_4.ipv4_dst = query.destination.0[0];
    let answer = ask(context, parameters);
    if answer == SUCCESS {
        hop.keep(query, parameters, now_ns);
    }
    hop.route(answer, mtu(parameters))
}

/// The next hop of an IPv6 packet.
#[inline(always)]
pub(crate) fn ipv6(context: *mut c_void, query: &RouteQuery<4>, now_ns: u64) -> Route {
    let Some(place) = HOPS.get_ptr_mut(place(query)) else { return Route::Unreachable };
    // SAFETY: as in `ipv4`.
    let hop = unsafe { &mut *place };
    if hop.holds(query, now_ns) {
        return hop.route(SUCCESS, 0);
    }
    let Some(parameters) = parameters(AF_INET6, query) else { return Route::Unreachable };
    parameters.__bindgen_anon_3.ipv6_src = query.source.0;
    parameters.__bindgen_anon_4.ipv6_dst = query.destination.0;
    let answer = ask(context, parameters);
    if answer == SUCCESS {
        hop.keep(query, parameters, now_ns);
    }
    hop.route(answer, mtu(parameters))
}

/// Where the answer to a question is kept.
#[inline(always)]
fn place<const W: usize>(query: &RouteQuery<W>) -> u32 {
    const MULTIPLIER: u32 = 0x9e37_79b9;
    let source = if query.by_source { query.source.0[W - 1] } else { 0 };
    (source.wrapping_mul(MULTIPLIER) ^ query.destination.0[W - 1]).wrapping_mul(MULTIPLIER) >> (32 - HOPS_BITS)
}

impl Hop {
    /// Whether it still answers a question.
    #[inline(always)]
    fn holds<const W: usize>(&self, query: &RouteQuery<W>, now_ns: u64) -> bool {
        let mut differs = self.ingress ^ query.ingress | self.family ^ W as u32;
        let mut word = 0;
        while word < W {
            let source = if query.by_source { query.source.0[word] } else { 0 };
            differs |= self.source[word] ^ source | self.destination[word] ^ query.destination.0[word];
            word += 1;
        }
        differs == 0 && now_ns <= self.until_ns && query.length <= self.mtu
    }

    /// Keeps an answer.
    #[inline(always)]
    fn keep<const W: usize>(&mut self, query: &RouteQuery<W>, parameters: &Parameters, now_ns: u64) {
        let mut word = 0;
        while word < W {
            self.source[word] = if query.by_source { query.source.0[word] } else { 0 };
            self.destination[word] = query.destination.0[word];
            word += 1;
        }
        (self.family, self.ingress) = (W as u32, query.ingress);
        let device = &parameters.ifindex;
        // SAFETY: the value is copied at once.
        let link = unsafe { VLAN_LINKS.get(device).copied() };
        let Link { interface, tag } = link.unwrap_or(Link { interface: parameters.ifindex, tag: Tag::NONE });
        (self.interface, self.tag) = (interface, tag);
        self.mtu = mtu(parameters);
        // The kernel has put the next hop in the destination's place.
        // SAFETY: words of a union of addresses, all of them set.
        let next = unsafe { parameters.__bindgen_anon_4.ipv6_dst };
        let mut differs = 0;
        let mut word = 0;
        while word < W {
            differs |= next[word] ^ query.destination.0[word];
            word += 1;
        }
        self.gateway = u16::from(differs != 0);
        (self.from, self.to) = (mac(&raw const parameters.smac).0, mac(&raw const parameters.dmac).0);
        self.until_ns = now_ns + HOP_NS;
    }

    /// An answer of the kernel's, with the hop that is kept here if it has one, or the MTU if that is why it has none.
    #[inline(always)]
    fn route(&self, answer: i64, limit: u16) -> Route {
        // SAFETY: members of a map value. Volatile, and whatever the answer is: the verifier refuses a register that only one
        // of the answers has set.
        let (interface, tag, from, to, gateway, mtu) = unsafe {
            let hop = core::ptr::from_ref(self);
            let interface = core::ptr::read_volatile(&raw const (*hop).interface);
            let tag = core::ptr::read_volatile(&raw const (*hop).tag);
            let from = core::ptr::read_volatile(&raw const (*hop).from);
            let to = core::ptr::read_volatile(&raw const (*hop).to);
            let gateway = core::ptr::read_volatile(&raw const (*hop).gateway) != 0;
            (interface, tag, from, to, gateway, core::ptr::read_volatile(&raw const (*hop).mtu))
        };
        match answer {
            SUCCESS => Route::Hop { interface, tag, source: Mac(from), destination: Mac(to), gateway, mtu },
            NO_NEIGHBOUR => Route::NoNeighbour,
            FRAGMENTATION_NEEDED => Route::TooBig { mtu: limit },
            _ => Route::Unreachable,
        }
    }
}

/// Interface by which packets to an IPv4 address leave this host; 0: none.
#[inline(always)]
pub(crate) fn way_back4(context: *mut c_void, to: Address<1>) -> u32 {
    let Some(parameters) = parameters(AF_INET, &back(to)) else { return 0 };
    parameters.__bindgen_anon_4.ipv4_dst = to.0[0];
    leaves_by(context, parameters)
}

/// Interface by which packets to an IPv6 address leave this host; 0: none.
#[inline(always)]
pub(crate) fn way_back6(context: *mut c_void, to: Address<4>) -> u32 {
    let Some(parameters) = parameters(AF_INET6, &back(to)) else { return 0 };
    parameters.__bindgen_anon_4.ipv6_dst = to.0;
    leaves_by(context, parameters)
}

#[inline(always)]
fn back<const W: usize>(to: Address<W>) -> RouteQuery<W> {
    let source = Address([0; W]);
    RouteQuery { ingress: LOOPBACK, source, destination: to, protocol: 0, length: 0, by_source: false }
}

#[inline(always)]
fn leaves_by(context: *mut c_void, parameters: &mut Parameters) -> u32 {
    if matches!(ask(context, parameters), SUCCESS | NO_NEIGHBOUR) { parameters.ifindex } else { 0 }
}

/// The parameters of a question, in a map: the stack has no room for them.
#[inline(always)]
fn parameters<const W: usize>(family: u8, query: &RouteQuery<W>) -> Option<&'static mut Parameters> {
    let place = ROUTE.get_ptr_mut(0)?;
    // SAFETY: a map value of this CPU, on which one packet at a time is on its way; zero is a value of every field. Word by
    // word and volatile: to set them all at once would be a call.
    let parameters = unsafe {
        let word = place.cast::<u64>();
        word.write_volatile(0);
        word.add(1).write_volatile(0);
        word.add(2).write_volatile(0);
        word.add(3).write_volatile(0);
        word.add(4).write_volatile(0);
        word.add(5).write_volatile(0);
        word.add(6).write_volatile(0);
        word.add(7).write_volatile(0);
        &mut *place.cast::<Parameters>()
    };
    parameters.family = family;
    parameters.l4_protocol = query.protocol;
    parameters.ifindex = query.ingress;
    parameters.__bindgen_anon_1.tot_len = query.length;
    Some(parameters)
}

#[inline(always)]
fn ask(context: *mut c_void, parameters: &mut Parameters) -> i64 {
    // SAFETY: the parameters are not moved during the call.
    unsafe { bpf_fib_lookup(context, parameters, size_of::<Parameters>() as i32, 0) }
}

/// The MTU of the way, which the kernel has put in the length's place when it has found one.
#[inline(always)]
fn mtu(parameters: &Parameters) -> u16 {
    // SAFETY: a member of two bytes, set by the question and perhaps by the answer. Volatile: whatever the answer is.
    unsafe { core::ptr::read_volatile(&raw const parameters.__bindgen_anon_1.mtu_result) }
}

/// A MAC address, read by the words to which it is aligned.
#[inline(always)]
fn mac(bytes: *const [u8; 6]) -> Mac {
    let words = bytes.cast::<u16>();
    // SAFETY: six bytes of the parameters, where both addresses lie at even offsets; volatile keeps the reads apart.
    let [a, b, c] = unsafe { [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile()] };
    Mac(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32)
}
