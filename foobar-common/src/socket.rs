//! Local sockets: a `connect()` to a VIP goes to the next backend, with no hop and no cost for each packet.

use crate::abi::SERVICE_LOCAL;
use crate::address::{Address, Be16, Family, SocketKey};
use crate::choose;
use crate::tables::Tables;

/// What becomes of a `connect()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect<const W: usize> {
    /// The address is no VIP of a local service.
    Unchanged,
    /// The connection goes to this backend.
    Backend {
        /// Address.
        address: Address<W>,
        /// Port.
        port: Be16,
    },
    /// The service has no healthy backend: the call fails with `EPERM`.
    Refused,
}

/// Chooses the backend for a `connect()` to `key`, and counts the connection.
#[inline(always)]
pub fn connect<const W: usize, T: Tables>(key: &SocketKey<W>, tables: &T) -> Connect<W>
where
    Address<W>: Family<W>,
{
    let Some(service) = Address::<W>::service(tables, key) else { return Connect::Unchanged };
    if service.flags & SERVICE_LOCAL == 0 {
        return Connect::Unchanged;
    }
    let Ok(slot) = choose::next(&service, tables) else { return Connect::Refused };
    let Some(backend) = tables.backend(slot) else { return Connect::Refused };
    tables.count_backend(service.slot, slot, 1, 0, 0);
    Connect::Backend { address: Address::<W>::backend_address(&backend), port: backend.port }
}
