//! VLANs: by which device a tagged packet has come, and the tag that it leaves with (IEEE 802.1Q, 802.1ad).
//!
//! The kernel's routing tables know a VLAN as an interface of its own. So a packet under a tag is asked for as one that came by
//! that interface, and what leaves by such an interface leaves by the one beneath it, under the tag. One tag: devices that stack
//! VLANs on VLANs are known only so that nothing is sent to them without its tags. Priority and drop eligibility stay as they
//! came where the VLAN does, and are zero in a tag that is written here.

use crate::packet::{Packet, Resize};
use crate::parse::{ETHERNET, Headers, TAG};
use crate::path::Of;
use crate::tables::Tables;
use crate::verdict::Reason;

/// Devices of VLANs that are known at the most: as many as one interface can have.
pub const MAX_VLANS: u32 = 4096;

/// Offset of the tag, behind both MAC addresses.
const PLACE: usize = 12;
/// Bits of the VLAN in a tag.
const VLAN: u32 = 0xfff;

/// A VLAN tag without priority and drop eligibility: the EtherType in the upper half, the VLAN in the lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Tag(u32);

impl Tag {
    /// No tag.
    pub const NONE: Self = Self(0);
    /// More tags than one.
    pub const STACKED: Self = Self(u32::MAX);

    /// Of an EtherType and a VLAN.
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: u16, vlan: u16) -> Self {
        Self((kind as u32) << 16 | vlan as u32 & VLAN)
    }

    /// From the four bytes of a frame.
    #[inline(always)]
    #[must_use]
    pub const fn from_bytes(bytes: [u8; TAG]) -> Self {
        Self(u32::from_be_bytes(bytes) & (0xffff_0000 | VLAN))
    }

    /// The four bytes of a frame.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(self) -> [u8; TAG] {
        self.0.to_be_bytes()
    }

    /// Whether it names no VLAN and carries nothing but a priority: then it belongs to the interface itself.
    #[inline(always)]
    const fn is_priority(self) -> bool {
        self.0 & VLAN == 0
    }
}

/// A VLAN on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Link {
    /// Index of the interface beneath.
    pub interface: u32,
    /// Its tag.
    pub tag: Tag,
}

const _: () = assert!(size_of::<Link>() == 8);

/// How a packet has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingress {
    /// Interface as the routing tables know it: the device of its VLAN; 0: there is none.
    pub device: u32,
    /// The tag that it bears.
    pub tag: Tag,
}

/// Finds out how a packet has come that bears tags, and leaves it in its headers.
///
/// A function of its own: few packets need it, and its part of the stack is given back.
#[inline(never)]
pub(crate) fn arrive<const W: usize, P: Packet, T: Tables>(packet: &P, tables: &T, work: &mut Of<W>) {
    let Headers { network, ingress, .. } = &mut work.headers;
    (ingress.device, ingress.tag) = (0, Tag::STACKED);
    if *network != ETHERNET + TAG {
        return;
    }
    let Some(bytes) = packet.load::<TAG>(PLACE) else { return };
    let link = Link { interface: tables.interface(), tag: Tag::from_bytes(bytes) };
    ingress.tag = link.tag;
    ingress.device = if link.tag.is_priority() { link.interface } else { tables.vlan(&link) };
}

/// Gives a frame that bears one tag another one, takes it away, or gives one to a frame without.
///
/// # Errors
/// [`Reason::TaggedService`] for more than one tag; [`Reason::Internal`]: the frame cannot begin elsewhere.
#[inline(always)]
pub(crate) fn retag<P: Resize>(packet: &mut P, from: Tag, to: Tag) -> Result<(), Reason> {
    if from == Tag::STACKED || to == Tag::STACKED {
        return Err(Reason::TaggedService);
    }
    let moved = if from == Tag::NONE {
        shift(packet, |packet| packet.push(TAG))
    } else if to == Tag::NONE {
        shift(packet, |packet| packet.pull(TAG))
    } else {
        Some(())
    };
    let written = moved.and_then(|()| if to == Tag::NONE { Some(()) } else { packet.store(PLACE, to.bytes()) });
    written.ok_or(Reason::Internal)
}

/// Has the frame begin elsewhere, with its MAC addresses in front: three words, because twelve bytes would take twelve registers.
#[inline(always)]
fn shift<P: Packet>(packet: &mut P, by: impl FnOnce(&mut P) -> Option<()>) -> Option<()> {
    let word = |packet: &P, at| packet.load::<4>(at).map(u32::from_ne_bytes);
    let (a, b, c) = (word(packet, 0)?, word(packet, 4)?, word(packet, 8)?);
    by(packet)?;
    packet.store(0, a.to_ne_bytes())?;
    packet.store(4, b.to_ne_bytes())?;
    packet.store(8, c.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Tag = Tag::new(0x8100, 5);

    fn frame(tag: &[u8]) -> Vec<u8> {
        [&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], tag, &[8, 0, 0x45]].concat()
    }

    #[test]
    fn tags_are_pushed_pulled_and_replaced() {
        let other = Tag::new(0x88a8, 4094);
        for (from, to, before, after) in [
            (Tag::NONE, FIVE, &[][..], &[0x81, 0, 0, 5][..]),
            (FIVE, Tag::NONE, &[0x81, 0, 0xa0, 5], &[]),
            (FIVE, other, &[0x81, 0, 0xa0, 5], &[0x88, 0xa8, 0x0f, 0xfe]),
        ] {
            let mut packet = frame(before);
            retag(&mut packet, from, to).unwrap();
            assert_eq!(packet, frame(after));
        }
    }

    #[test]
    fn what_needs_two_tags_is_refused_as_it_is() {
        for (from, to) in [(FIVE, Tag::STACKED), (Tag::NONE, Tag::STACKED), (Tag::STACKED, Tag::NONE)] {
            let mut packet = frame(&[]);
            assert_eq!(retag(&mut packet, from, to), Err(Reason::TaggedService));
            assert_eq!(packet, frame(&[]));
        }
    }

    #[test]
    fn priority_is_no_part_of_a_tag() {
        assert_eq!(Tag::from_bytes([0x81, 0, 0xf0, 5]), FIVE);
        assert!(Tag::from_bytes([0x81, 0, 0xe0, 0]).is_priority() && !FIVE.is_priority());
    }
}
