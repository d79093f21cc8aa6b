//! Next hops, from the kernel's routing and neighbour tables: nothing of them is configured twice.

use core::ffi::c_void;
use core::mem::{size_of, zeroed};

use aya_ebpf::bindings::bpf_fib_lookup as Parameters;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use foobar_common::tables::{Mac, Route, RouteQuery};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const SUCCESS: i64 = 0;
/// `BPF_FIB_LKUP_RET_NO_NEIGH`.
const NO_NEIGHBOUR: i64 = 7;
/// `BPF_FIB_LKUP_RET_FRAG_NEEDED`.
const FRAGMENTATION_NEEDED: i64 = 8;

/// The next hop of an IPv4 packet.
#[inline(always)]
pub(crate) fn ipv4(context: *mut c_void, ingress: u32, query: &RouteQuery<1>) -> Route {
    let mut parameters = parameters(AF_INET, ingress, query);
    parameters.__bindgen_anon_3.ipv4_src = query.source.0[0];
    parameters.__bindgen_anon_4.ipv4_dst = query.destination.0[0];
    look_up(context, &mut parameters)
}

/// The next hop of an IPv6 packet.
#[inline(always)]
pub(crate) fn ipv6(context: *mut c_void, ingress: u32, query: &RouteQuery<4>) -> Route {
    let mut parameters = parameters(AF_INET6, ingress, query);
    parameters.__bindgen_anon_3.ipv6_src = query.source.0;
    parameters.__bindgen_anon_4.ipv6_dst = query.destination.0;
    look_up(context, &mut parameters)
}

#[inline(always)]
fn parameters<const W: usize>(family: u8, ingress: u32, query: &RouteQuery<W>) -> Parameters {
    // SAFETY: a plain C structure, for which zero is a value everywhere.
    let mut parameters: Parameters = unsafe { zeroed() };
    parameters.family = family;
    parameters.l4_protocol = query.protocol;
    parameters.ifindex = ingress;
    parameters.__bindgen_anon_1.tot_len = query.length;
    parameters
}

#[inline(always)]
fn look_up(context: *mut c_void, parameters: &mut Parameters) -> Route {
    let size = size_of::<Parameters>() as i32;
    // SAFETY: the parameters live on the stack for the call.
    let result = unsafe { bpf_fib_lookup(context, parameters, size, 0) };
    match result {
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

/// A MAC address from the stack, read by the words to which it is aligned there.
#[inline(always)]
fn mac(bytes: *const [u8; 6]) -> Mac {
    let words = bytes.cast::<u16>();
    // SAFETY: six bytes of the parameters, where both addresses lie at even offsets; volatile keeps the reads apart.
    let [a, b, c] = unsafe { [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile()] };
    Mac(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32)
}
