//! Stages that few packets need: each is a program of its own in the kernel, with a stack and a verifier's budget of its own.
//!
//! [`crate::path::process`] ends in [`Verdict::Stage`], and one of these has the last word. They find in `work` what is known.

use crate::abi::{BUCKET_ANSWERS, BucketKey, FORWARD_TUNNEL};
use crate::address::{Address, Family};
use crate::answer::{self, Kind};
use crate::icmp::{self, BURST_NS, INTERVAL_NS};
use crate::packet::Resize;
use crate::path::{self, Of, Work};
use crate::rewrite;
use crate::tables::{Route, Tables};
use crate::tunnel::{self, OUTER4, OUTER6};
use crate::verdict::{Reason, Stage, Verdict};
use crate::vlan;

/// What becomes of a packet in the end: [`path::process`], and the stages in which it has ended.
pub fn judge<P: Resize, T: Tables>(packet: &mut P, tables: &T, work: &mut Work) -> Verdict {
    let mut verdict = path::process(packet, tables, work);
    while let Verdict::Stage(stage) = verdict {
        verdict = match stage {
            Stage::Path4 => path::ipv4(packet, tables, &mut work.v4),
            Stage::Path6 => path::ipv6(packet, tables, &mut work.v6),
            Stage::Error4 => error(packet, tables, &mut work.v4),
            Stage::Error6 => error(packet, tables, &mut work.v6),
            Stage::Answer4 => unsent(packet, tables, &mut work.v4),
            Stage::Answer6 => unsent(packet, tables, &mut work.v6),
            Stage::Encapsulate4 => encapsulate::<1, OUTER4, P, T>(packet, tables, &mut work.v4),
            Stage::Encapsulate6 => encapsulate::<4, OUTER6, P, T>(packet, tables, &mut work.v6),
            Stage::Decapsulate4 => decapsulate::<1, OUTER4, P, T>(packet, tables, &mut work.v4),
            Stage::Decapsulate6 => decapsulate::<4, OUTER6, P, T>(packet, tables, &mut work.v6),
            Stage::Apart4 => path::apart(packet, tables, &mut work.v4),
            Stage::Apart6 => path::apart(packet, tables, &mut work.v6),
            Stage::Tag4 => tag(packet, tables, &work.v4),
            Stage::Tag6 => tag(packet, tables, &work.v6),
            // Those are the kernel's alone.
            Stage::Handshake4 | Stage::Handshake6 => return Verdict::Handshake(stage),
        };
    }
    verdict
}

/// A packet that a tunnel takes, see [`tunnel::encapsulate`].
#[inline(always)]
pub fn encapsulate<const W: usize, const H: usize, P: Resize, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
) -> Verdict
where
    Address<W>: tunnel::Network<W>,
{
    let result = tunnel::encapsulate::<W, H, P, T>(packet, tables, work);
    path::told(packet, Some(work.headers()), result, tables)
}

/// A tunnel that may end here, see [`tunnel::decapsulate`].
#[inline(always)]
pub fn decapsulate<const W: usize, const H: usize, P: Resize, T: Tables>(
    packet: &mut P,
    tables: &T,
    work: &mut Of<W>,
) -> Verdict
where
    Address<W>: tunnel::Network<W>,
{
    let result = tunnel::decapsulate::<W, H, P, T>(packet, tables, work);
    path::told(packet, Some(work.headers()), result, tables)
}

/// An ICMP error, see [`icmp::judge`].
#[inline(always)]
pub fn error<const W: usize, P: Resize, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<W>) -> Verdict
where
    Address<W>: Family<W>,
{
    let result = icmp::judge(packet, tables, work);
    path::told(packet, Some(work.headers()), result, tables)
}

/// A packet that leaves under another VLAN tag than it came, see [`crate::vlan`].
#[inline(always)]
pub fn tag<const W: usize, P: Resize, T: Tables>(packet: &mut P, tables: &T, work: &Of<W>) -> Verdict {
    let Of { headers, egress, reason, .. } = work;
    let forwarded = Verdict::Forward { reason: *reason, interface: egress.interface };
    let result = vlan::retag(packet, headers.ingress.tag, egress.tag).map(|()| forwarded);
    path::told(packet, Some(headers), result, tables)
}

/// A packet of a service that cannot be sent on: its sender is told why, as often as a service may in a second.
#[inline(always)]
pub fn unsent<const W: usize, P: Resize, T: Tables>(packet: &mut P, tables: &T, work: &mut Of<W>) -> Verdict
where
    Address<W>: tunnel::Network<W>,
{
    let result = answered(packet, tables, work);
    path::told(packet, Some(work.headers()), result, tables)
}

#[inline(always)]
fn answered<const W: usize, P: Resize, T: Tables>(packet: &mut P, tables: &T, work: &Of<W>) -> Result<Verdict, Reason>
where
    Address<W>: tunnel::Network<W>,
{
    let headers = work.headers();
    let backend = tables.backend(work.found.flow.backend).ok_or(Reason::Internal)?;
    let (kind, told, silent) = if headers.hops <= 1 {
        (Kind::TIME_EXCEEDED, Reason::TimeAnswered, Reason::TimeExceeded)
    } else {
        // Asked once more: the packet's way here had no room for the answer's one number.
        let by_tunnel = backend.forward == FORWARD_TUNNEL;
        let query = if by_tunnel { tunnel::query(tables, work)? } else { rewrite::query(headers, &work.translation) };
        let Route::TooBig { mtu } = Address::<W>::route(tables, &query) else { return Err(Reason::TooBig) };
        let mtu = if by_tunnel { tunnel::inside::<W>(mtu) } else { mtu };
        (Kind::too_big(mtu), Reason::TooBigAnswered, Reason::TooBig)
    };
    let bucket = BucketKey::new(BUCKET_ANSWERS, W as u32, [backend.service, 0, 0, 0]);
    if !answer::is_due(packet, headers, kind) || !tables.take(&bucket, INTERVAL_NS, BURST_NS) {
        return Err(silent);
    }
    // The VIP is the one address of this host that the sender, on either side, has to do with.
    answer::write(packet, headers, &work.key.destination, kind).ok_or(silent)?;
    Ok(Verdict::Answer(told))
}
