//! Next hops, from the kernel's routing and neighbour tables: nothing of them is configured twice.

use core::ffi::c_void;
use core::mem::size_of;

use aya_ebpf::bindings::bpf_fib_lookup as Parameters;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use foobar_common::address::Address;
use foobar_common::tables::{Mac, Route, RouteQuery};

use crate::maps::ROUTE;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Asked as a packet of this host's own, for which the loopback interface must be allowed to forward.
const LOOPBACK: u32 = 1;
const SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;

/// The next hop of an IPv4 packet.
#[inline(always)]
pub(crate) fn ipv4(context: *mut c_void, ingress: u32, query: &RouteQuery<1>) -> Route {
    let Some(parameters) = parameters(AF_INET, ingress, query) else { return Route::Unreachable };
    parameters.__bindgen_anon_3.ipv4_src = query.source.0[0];
    parameters.__bindgen_anon_4.ipv4_dst = query.destination.0[0];
    look_up(context, parameters)
}

/// The next hop of an IPv6 packet.
#[inline(always)]
pub(crate) fn ipv6(context: *mut c_void, ingress: u32, query: &RouteQuery<4>) -> Route {
    let Some(parameters) = parameters(AF_INET6, ingress, query) else { return Route::Unreachable };
    parameters.__bindgen_anon_3.ipv6_src = query.source.0;
    parameters.__bindgen_anon_4.ipv6_dst = query.destination.0;
    look_up(context, parameters)
}

/// Interface by which packets to an IPv4 address leave this host; 0: none.
#[inline(always)]
pub(crate) fn way_back4(context: *mut c_void, to: Address<1>) -> u32 {
    let Some(parameters) = parameters(AF_INET, LOOPBACK, &back(to)) else { return 0 };
    parameters.__bindgen_anon_4.ipv4_dst = to.0[0];
    leaves_by(context, parameters)
}

/// Interface by which packets to an IPv6 address leave this host; 0: none.
#[inline(always)]
pub(crate) fn way_back6(context: *mut c_void, to: Address<4>) -> u32 {
    let Some(parameters) = parameters(AF_INET6, LOOPBACK, &back(to)) else { return 0 };
    parameters.__bindgen_anon_4.ipv6_dst = to.0;
    leaves_by(context, parameters)
}

#[inline(always)]
fn back<const W: usize>(to: Address<W>) -> RouteQuery<W> {
    RouteQuery { source: Address([0; W]), destination: to, protocol: 0, length: 0 }
}

#[inline(always)]
fn leaves_by(context: *mut c_void, parameters: &mut Parameters) -> u32 {
    if matches!(ask(context, parameters), SUCCESS | NO_NEIGHBOUR) { parameters.ifindex } else { 0 }
}

/// The parameters of a question, in a map: the stack has no room for them.
#[inline(always)]
fn parameters<const W: usize>(family: u8, ingress: u32, query: &RouteQuery<W>) -> Option<&'static mut Parameters> {
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
    parameters.ifindex = ingress;
    parameters.__bindgen_anon_1.tot_len = query.length;
    Some(parameters)
}

#[inline(always)]
fn ask(context: *mut c_void, parameters: &mut Parameters) -> i64 {
    // SAFETY: the parameters are not moved during the call.
    unsafe { bpf_fib_lookup(context, parameters, size_of::<Parameters>() as i32, 0) }
}

#[inline(always)]
fn look_up(context: *mut c_void, parameters: &mut Parameters) -> Route {
    match ask(context, parameters) {
        SUCCESS => Route::Hop {
            interface: parameters.ifindex,
            source: mac(&raw const parameters.smac),
            destination: mac(&raw const parameters.dmac),
        },
        NO_NEIGHBOUR => Route::NoNeighbour,
        FRAGMENTATION_NEEDED => Route::TooBig,
        _ => Route::Unreachable,
    }
}

/// A MAC address, read by the words to which it is aligned.
#[inline(always)]
fn mac(bytes: *const [u8; 6]) -> Mac {
    let words = bytes.cast::<u16>();
    // SAFETY: six bytes of the parameters, where both addresses lie at even offsets; volatile keeps the reads apart.
    let [a, b, c] = unsafe { [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile()] };
    Mac(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32)
}
