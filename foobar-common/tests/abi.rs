//! The layout of everything that lies in maps, against a golden list for each version of the ABI.

use core::mem::offset_of;

use foobar_common::abi::{ABI_VERSION, Backend, Counter, Endpoint, Flow, RuleEntry, RuleSet, Service, Traffic};
use foobar_common::address::{Address, SocketKey, Tuple};

macro_rules! layout {
    ($text:ident, $type:ty, $($field:ident),+) => {
        $text.push_str(&format!("{} {}:", stringify!($type).replace(' ', ""), size_of::<$type>()));
        $($text.push_str(&format!(" {}@{}", stringify!($field), offset_of!($type, $field)));)+
        $text.push('\n');
    };
}

/// A change below needs a new `ABI_VERSION` in `abi.rs`, and then a new number here.
const GOLDEN: (u32, &str) = (
    1,
    "Counter 16: packets@0 bytes@8\n\
     Traffic 24: connections@0 packets@8 bytes@16\n\
     RuleSet 136: summary@0 words@8\n\
     RuleEntry 8: action@0 counter@4\n\
     Service 16: slot@0 ring@4 members@8 flags@12\n\
     Backend 24: address@0 port@16 state@18 service@20\n\
     Endpoint 24: vip@0 port@16 _pad@18 backend@20\n\
     Flow 24: backend@0 generation@4 state@8 rule@12 last_seen_ns@16\n\
     Tuple<1> 16: source@0 destination@4 source_port@8 destination_port@10 protocol@12 _pad@13\n\
     Tuple<4> 40: source@0 destination@16 source_port@32 destination_port@34 protocol@36 _pad@37\n\
     SocketKey<1> 8: address@0 port@4 protocol@6 _pad@7\n\
     SocketKey<4> 20: address@0 port@16 protocol@18 _pad@19\n\
     Address<1> 4, Address<4> 16\n",
);

#[test]
fn the_layout_changes_only_with_the_version() {
    let mut text = String::new();
    layout!(text, Counter, packets, bytes);
    layout!(text, Traffic, connections, packets, bytes);
    layout!(text, RuleSet, summary, words);
    layout!(text, RuleEntry, action, counter);
    layout!(text, Service, slot, ring, members, flags);
    layout!(text, Backend, address, port, state, service);
    layout!(text, Endpoint, vip, port, _pad, backend);
    layout!(text, Flow, backend, generation, state, rule, last_seen_ns);
    layout!(text, Tuple<1>, source, destination, source_port, destination_port, protocol, _pad, _pad_more);
    layout!(text, Tuple<4>, source, destination, source_port, destination_port, protocol, _pad, _pad_more);
    layout!(text, SocketKey<1>, address, port, protocol, _pad);
    layout!(text, SocketKey<4>, address, port, protocol, _pad);
    text.push_str(&format!("Address<1> {}, Address<4> {}\n", size_of::<Address<1>>(), size_of::<Address<4>>()));
    assert_eq!((ABI_VERSION, text.as_str()), GOLDEN, "a changed layout needs a new ABI_VERSION");
}
