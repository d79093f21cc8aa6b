//! Services: which (VIP, port, protocol) is balanced, and on which hook.

use crate::abi::{SERVICE_WIRE, Service};
use crate::address::{Address, Family, SocketKey};
use crate::parse::Headers;
use crate::tables::Tables;

/// The service on the wire that a packet is addressed to.
#[inline(always)]
pub fn on_wire<const W: usize, T: Tables>(headers: &Headers<W>, tables: &T) -> Option<Service>
where
    Address<W>: Family<W>,
{
    let tuple = &headers.tuple;
    let key = SocketKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    Address::<W>::service(tables, &key).filter(|service| service.flags & SERVICE_WIRE != 0)
}
