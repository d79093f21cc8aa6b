//! Map keys and values as aya takes them.

use aya::Pod;
use foobar_common::abi::{
    Backend, BucketKey, ConnectFailures, Counter, Endpoint, Fenced, Flow, Membership, Ring, Service, SynSettings,
    Trace, Traffic,
};
use foobar_common::address::{Address, SocketKey, Tuple};
use foobar_common::reply::Reply;
use foobar_common::vlan::Link;

/// A shared type on its way into a map.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

macro_rules! wire {
    ($($shared:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` or transparent, integers only, no implicit padding: `foobar_common::abi` and
            // `address` assert each size, so every byte is initialised and every bit pattern is a value.
            unsafe impl Pod for Wire<$shared> {}
        )*
    };
}

wire!(Backend, BucketKey, ConnectFailures, Counter, Endpoint, Membership, Ring, Service, SynSettings, Trace, Traffic);
wire!(Fenced, Flow<1>, Link, Reply<1>, Reply<4>);
wire!(Address<1>, Address<4>, SocketKey<1>, SocketKey<4>, Tuple<1>, Tuple<4>);

// SAFETY: as above, but for the four bytes at its end, which the size of an address leaves: aya hands the kernel a pointer to the
// whole, and looks at none of its bytes.
unsafe impl Pod for Wire<Flow<4>> {}
