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

wire!(Backend, BucketKey, ConnectFailures, Counter, Endpoint, Flow, Membership, Ring, Service, SynSettings, Trace);
wire!(Traffic, Reply<1>, Reply<4>);
wire!(Fenced, Link);
wire!(Address<1>, Address<4>, SocketKey<1>, SocketKey<4>, Tuple<1>, Tuple<4>);
