//! Devices of VLANs in the kernel's tables, by which the packet path knows tags.

use std::collections::BTreeMap;
use std::hash::Hash;

use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::vlan::{Link, MAX_VLANS, Tag};

use super::wire::Wire;

/// A device of a VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan {
    /// Its interface index.
    pub device: u32,
    /// Index of the interface beneath.
    pub parent: u32,
    /// EtherType of its tags: 802.1Q or 802.1ad.
    pub kind: u16,
    /// Number of the VLAN.
    pub number: u16,
}

/// The maps.
pub(super) struct Vlans {
    devices: HashMap<MapData, Wire<Link>, u32>,
    links: HashMap<MapData, u32, Wire<Link>>,
}

impl Vlans {
    /// Takes them out of loaded programs.
    ///
    /// # Errors
    /// A map is missing or of another type.
    pub(super) fn of(take: &mut impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        Ok(Self { devices: take("VLANS")?.try_into()?, links: take("VLAN_LINKS")?.try_into()? })
    }

    /// Knows these and no others; those that stay are not touched.
    ///
    /// # Errors
    /// There are too many, or a map cannot be changed.
    pub(super) fn set(&mut self, vlans: &[Vlan]) -> Result<()> {
        ensure!(
            vlans.len() <= MAX_VLANS as usize,
            "{} interfaces are devices of VLANs, and no more than {MAX_VLANS} can be known",
            vlans.len()
        );
        let stacked = |vlan: &Vlan| vlans.iter().any(|beneath| beneath.device == vlan.parent);
        let link = |vlan: &Vlan| Link { interface: vlan.parent, tag: Tag::new(vlan.kind, vlan.number) };
        let alone = vlans.iter().filter(|vlan| !stacked(vlan));
        let devices = alone.map(|vlan| (words(link(vlan)), (Wire(link(vlan)), vlan.device))).collect();
        let links = vlans.iter().map(|vlan| {
            let tag = if stacked(vlan) { Tag::STACKED } else { link(vlan).tag };
            (vlan.device, (vlan.device, Wire(Link { interface: vlan.parent, tag })))
        });
        // First what is sent, for which nothing is right but the tag.
        replace(&mut self.links, &links.collect(), |device| *device, |link| words(link.0))?;
        replace(&mut self.devices, &devices, |link| words(link.0), |device| *device)
    }
}

/// A link in a form that can be compared.
fn words(link: Link) -> (u32, [u8; 4]) {
    (link.interface, link.tag.bytes())
}

/// Makes a map what it should be, entry by entry; `name` and `worth` make keys and values comparable.
fn replace<K: Pod, V: Pod, N: Ord + Hash, W: PartialEq>(
    map: &mut HashMap<MapData, K, V>,
    wanted: &BTreeMap<N, (K, V)>,
    name: impl Fn(&K) -> N,
    worth: impl Fn(&V) -> W,
) -> Result<()> {
    let known: Vec<K> = map.keys().collect::<Result<_, _>>().context("cannot read the VLANs that are known")?;
    for key in known.iter().filter(|key| !wanted.contains_key(&name(key))) {
        match map.remove(key) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot forget a VLAN"),
        }
    }
    for (key, value) in wanted.values() {
        if !map.get(key, 0).is_ok_and(|found| worth(&found) == worth(value)) {
            map.insert(*key, *value, 0).context("cannot tell the packet path of a VLAN")?;
        }
    }
    Ok(())
}
