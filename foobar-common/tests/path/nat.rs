//! NAT there and back is the identity to the client, and every checksum is what a full computation gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::support::{Ends, balancer, ends, frame, seal};
use foobar_common::path::{Work, process};
use foobar_common::verdict::{Reason, Verdict};
use proptest::prelude::*;

/// Client, VIP and backend of one family.
fn three() -> impl Strategy<Value = [(IpAddr, u16); 3]> {
    let four = any::<[(u32, u16); 3]>().prop_map(|ends| ends.map(|(a, port)| (Ipv4Addr::from_bits(a).into(), port)));
    let six = any::<[(u128, u16); 3]>().prop_map(|ends| ends.map(|(a, port)| (Ipv6Addr::from_bits(a).into(), port)));
    prop_oneof![four, six].prop_filter("three different ends", |[a, b, c]| a != b && b != c && a != c).prop_filter(
        "none of them multicast or of one link",
        |ends| {
            ends.iter().all(|(address, _)| match address {
                IpAddr::V4(_) => true,
                IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unicast_link_local() && !v6.is_loopback(),
            })
        },
    )
}

/// The same frame with its checksums computed in full.
fn sealed(frame: &[u8]) -> Vec<u8> {
    let mut sealed = frame.to_vec();
    seal(&mut sealed);
    sealed
}

proptest! {
    #[test]
    fn there_and_back(
        [client, vip, backend] in three(),
        tcp: bool,
        data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let protocol = if tcp { 6 } else { 17 };
        let tables = balancer(vip, backend, protocol);
        let mut packet = frame(Ends { source: client, destination: vip }, protocol, &data);
        let verdict = process(&mut packet, &tables, &mut Work::default());
        prop_assert_eq!(verdict, Verdict::Forward { reason: Reason::NewFlow, interface: 2 });
        prop_assert_eq!(ends(&packet), Ends { source: client, destination: backend });
        prop_assert_eq!(&packet, &sealed(&packet));

        let mut reply = frame(Ends { source: backend, destination: client }, protocol, &data);
        let verdict = process(&mut reply, &tables, &mut Work::default());
        prop_assert_eq!(verdict, Verdict::Forward { reason: Reason::FlowReply, interface: 2 });
        prop_assert_eq!(ends(&reply), Ends { source: vip, destination: client });
        prop_assert_eq!(&reply, &sealed(&reply));
    }

    #[test]
    fn a_wrong_checksum_stays_wrong([client, vip, backend] in three(), tcp: bool, flip in 1_u8..=255) {
        let protocol = if tcp { 6 } else { 17 };
        let tables = balancer(vip, backend, protocol);
        let mut packet = frame(Ends { source: client, destination: vip }, protocol, &[1, 2]);
        let last = packet.len() - 1;
        packet[last] ^= flip;
        let _: Verdict = process(&mut packet, &tables, &mut Work::default());
        // What a link has damaged is not made good: the receiver must see it.
        prop_assert_ne!(&packet, &sealed(&packet));
    }
}
