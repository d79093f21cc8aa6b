//! The layout of everything that lies in maps, against a golden list for each version of the ABI.

use core::mem::offset_of;

use foobar_common::abi::{
    ABI_VERSION, Backend, BucketKey, ConnectFailures, Counter, Endpoint, Event, Fenced, Flow, Membership, Ring,
    Service, Stuck, Trace, Traffic,
};
use foobar_common::address::{Address, Peer, SocketKey, Tuple};
use foobar_common::generation::{Generation, Head, Interface, RuleEntry, RuleSet, Tunnels};
use foobar_common::reply::Reply;
use foobar_common::vlan::Link;

macro_rules! layout {
    ($text:ident, $type:ty, $($field:ident),+) => {
        $text.push_str(&format!("{} {}:", stringify!($type).replace(' ', ""), size_of::<$type>()));
        $($text.push_str(&format!(" {}@{}", stringify!($field), offset_of!($type, $field)));)+
        $text.push('\n');
    };
}

/// A change below needs a new `ABI_VERSION` in `abi.rs`, and then a new number here.
const GOLDEN: (u32, &str) = (
    7,
    "Counter 16: packets@0 bytes@8\n\
     Traffic 24: connections@0 packets@8 bytes@16\n\
     ConnectFailures 16: total@0 row@8\n\
     Generation 6016144: head@0 tunnels@40 kinds@1360 source_ports@265040 flags@527184 interfaces@527312 source_classes@527440 destination_classes@560208 passing@592976 rules@593040 sets@642192 words@1821840\n\
     Head 40: number@0 uses@4 sources@8 destinations@16 members@24 elsewhere@32 _pad@36\n\
     Tunnels 1320: own@0 peers@32 vips@288 peer_count@1312 vip_count@1316\n\
     Interface 8: index@0 set@4\n\
     RuleSet 144: summary@0 passing@8 words@16\n\
     RuleEntry 48: action@0 shadow@1 limit@2 per4@3 per6@4 leased@5 _pad@6 counter@8 open@12 interval_ns@16 burst_ns@24 log_interval_ns@32 passing_before@40\n\
     Membership 16: expires_ns@0 after@8 _pad@12\n\
     BucketKey 24: rule@0 family@4 source@8\n\
     Event 64: time_ns@0 rule@8 reason@12 interface@16 length@20 source@24 destination@40 source_port@56 destination_port@58 protocol@60 family@61 detail@62 shadow@63\n\
     Trace 272: reason@0 steps@4 rules@8 service@264 backend@268\n\
     Fenced 520: port@0 _pad@2 count@4 free@8\n\
     Service 24: slot@0 ring@4 places@8 flags@12 affinity_s@16 sources@20\n\
     Ring 8192: places@0\n\
     Stuck 16: backend@0 _pad@4 last_seen_ns@8\n\
     Backend 32: address@0 port@16 state@18 forward@19 service@20 limit@24 weight@28\n\
     Endpoint 24: vip@0 port@16 flags@18 backend@20\n\
     Flow<1> 32: backend@0 generation@4 state@8 rule@10 answer@12 last_seen_ns@16 source@24 source_port@28 _pad@30\n\
     Flow<4> 48: backend@0 generation@4 state@8 rule@10 answer@12 last_seen_ns@16 source@24 source_port@40 _pad@42\n\
     Reply<1> 16: client@0 vip@4 client_port@8 vip_port@10 backend@12\n\
     Reply<4> 40: client@0 vip@16 client_port@32 vip_port@34 backend@36\n\
     Tuple<1> 16: source@0 destination@4 source_port@8 destination_port@10 protocol@12 _pad@13 _pad_more@14\n\
     Tuple<4> 40: source@0 destination@16 source_port@32 destination_port@34 protocol@36 _pad@37 _pad_more@38\n\
     SocketKey<1> 8: address@0 port@4 protocol@6 _pad@7\n\
     SocketKey<4> 20: address@0 port@16 protocol@18 _pad@19\n\
     Peer<1> 16: socket@0 end@8\n\
     Peer<4> 28: socket@0 end@8\n\
     Link 8: interface@0 tag@4\n\
     Address<1> 4, Address<4> 16\n",
);

#[test]
fn the_layout_changes_only_with_the_version() {
    let mut text = String::new();
    layout!(text, Counter, packets, bytes);
    layout!(text, Traffic, connections, packets, bytes);
    layout!(text, ConnectFailures, total, row);
    layout!(
        text,
        Generation,
        head,
        tunnels,
        kinds,
        source_ports,
        flags,
        interfaces,
        source_classes,
        destination_classes,
        passing,
        rules,
        sets,
        words
    );
    layout!(text, Head, number, uses, sources, destinations, members, elsewhere, _pad);
    layout!(text, Tunnels, own, peers, vips, peer_count, vip_count);
    layout!(text, Interface, index, set);
    layout!(text, RuleSet, summary, passing, words);
    layout!(
        text,
        RuleEntry,
        action,
        shadow,
        limit,
        per4,
        per6,
        leased,
        _pad,
        counter,
        open,
        interval_ns,
        burst_ns,
        log_interval_ns,
        passing_before
    );
    layout!(text, Membership, expires_ns, after, _pad);
    layout!(text, BucketKey, rule, family, source);
    layout!(
        text,
        Event,
        time_ns,
        rule,
        reason,
        interface,
        length,
        source,
        destination,
        source_port,
        destination_port,
        protocol,
        family,
        detail,
        shadow
    );
    layout!(text, Trace, reason, steps, rules, service, backend);
    layout!(text, Fenced, port, _pad, count, free);
    layout!(text, Service, slot, ring, places, flags, affinity_s, sources);
    layout!(text, Ring, places);
    layout!(text, Stuck, backend, _pad, last_seen_ns);
    layout!(text, Backend, address, port, state, forward, service, limit, weight);
    layout!(text, Endpoint, vip, port, flags, backend);
    layout!(text, Flow<1>, backend, generation, state, rule, answer, last_seen_ns, source, source_port, _pad);
    layout!(text, Flow<4>, backend, generation, state, rule, answer, last_seen_ns, source, source_port, _pad);
    layout!(text, Reply<1>, client, vip, client_port, vip_port, backend);
    layout!(text, Reply<4>, client, vip, client_port, vip_port, backend);
    layout!(text, Tuple<1>, source, destination, source_port, destination_port, protocol, _pad, _pad_more);
    layout!(text, Tuple<4>, source, destination, source_port, destination_port, protocol, _pad, _pad_more);
    layout!(text, SocketKey<1>, address, port, protocol, _pad);
    layout!(text, SocketKey<4>, address, port, protocol, _pad);
    layout!(text, Peer<1>, socket, end);
    layout!(text, Peer<4>, socket, end);
    layout!(text, Link, interface, tag);
    text.push_str(&format!("Address<1> {}, Address<4> {}\n", size_of::<Address<1>>(), size_of::<Address<4>>()));
    assert_eq!((ABI_VERSION, text.as_str()), GOLDEN, "a changed layout needs a new ABI_VERSION");
}
