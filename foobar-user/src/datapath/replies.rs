//! The tables of replies from outside: what belongs to no flow any more is taken out, so that no source port is lost.

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::abi::{FLOW_REPLIES, Flow};
use foobar_common::address::{Address, Family, Tuple};
use foobar_common::parse::UDP;
use foobar_common::reply::{self, Reply};

use super::flow_map::FlowMap;
use super::flows::Flows;
use super::wire::Wire;

type Replies4 = HashMap<MapData, Wire<Tuple<1>>, Wire<Reply<1>>>;
type Replies6 = HashMap<MapData, Wire<Tuple<4>>, Wire<Reply<4>>>;

/// Entries that one walk looks at: twice as many as the largest table holds.
const ENTRIES_MAX: usize = 1 << 26;
/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

/// The tables of both families, in the order of [`super::flows::TABLES`].
pub(super) struct Replies {
    v4: [Replies4; 3],
    v6: [Replies6; 3],
}

impl Replies {
    /// Takes the tables out of loaded programs.
    pub(super) fn of(take: &mut impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            v4: [
                take("REPLIES4")?.try_into()?,
                take("HALF_OPEN_REPLIES4")?.try_into()?,
                take("DATAGRAM_REPLIES4")?.try_into()?,
            ],
            v6: [
                take("REPLIES6")?.try_into()?,
                take("HALF_OPEN_REPLIES6")?.try_into()?,
                take("DATAGRAM_REPLIES6")?.try_into()?,
            ],
        })
    }

    /// Whether a table of this name drives out the least recently used.
    pub(super) fn drives_out(name: &str) -> bool {
        !name.starts_with("REPLIES")
    }

    /// Takes out the entries whose flows are gone, whatever has ended them; those that are left, by table and family.
    pub(super) fn sweep(&mut self, flows: &Flows) -> Result<[[u64; 2]; 3]> {
        let mut left = [[0; 2]; 3];
        for (index, left) in left.iter_mut().enumerate() {
            *left = [sweep(&mut self.v4[index], &flows.v4)?, sweep(&mut self.v6[index], &flows.v6)?];
        }
        Ok(left)
    }

    /// All IPv4 entries, in no particular order.
    pub(super) fn v4(&self) -> Result<Vec<(Tuple<1>, Reply<1>)>> {
        self.v4.iter().map(entries).collect::<Result<Vec<_>>>().map(|tables| tables.concat())
    }

    /// All IPv6 entries, in no particular order.
    pub(super) fn v6(&self) -> Result<Vec<(Tuple<4>, Reply<4>)>> {
        self.v6.iter().map(entries).collect::<Result<Vec<_>>>().map(|tables| tables.concat())
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) -> Result<()> {
        self.v4.iter_mut().try_for_each(clear)?;
        self.v6.iter_mut().try_for_each(clear)
    }
}

/// Takes out of one table what belongs to no flow.
///
/// A packet may make the same flow again at that very moment. It takes its entry before it makes the flow; so an entry that was
/// taken out is put back when its flow is there afterwards.
fn sweep<const W: usize>(
    map: &mut HashMap<MapData, Wire<Tuple<W>>, Wire<Reply<W>>>,
    flows: &[FlowMap<W>; 3],
) -> Result<u64>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
    Wire<Reply<W>>: aya::Pod,
    Address<W>: Family<W>,
{
    let (mut left, mut gone) = (0, Vec::new());
    for (tuple, reply) in entries(map)? {
        if has_flow(flows, &tuple, &reply) { left += 1 } else { gone.push((tuple, reply)) }
    }
    for (tuple, reply) in gone {
        match map.get(&Wire(tuple), 0) {
            // Another flow's by now.
            Ok(Wire(now)) if now != reply => {
                left += 1;
                continue;
            }
            Err(MapError::KeyNotFound) => continue,
            Ok(_) | Err(_) => {}
        }
        if has_flow(flows, &tuple, &reply) {
            left += 1;
            continue;
        }
        match map.remove(&Wire(tuple)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot remove a reply's entry"),
        }
        if has_flow(flows, &tuple, &reply) {
            left += 1;
            // Refused, another flow has it, and this one begins anew with its next packet.
            drop(map.insert(Wire(tuple), Wire(reply), NOEXIST));
        }
    }
    Ok(left)
}

/// Whether the flow that an entry names is there, and its replies come so.
fn has_flow<const W: usize>(flows: &[FlowMap<W>; 3], tuple: &Tuple<W>, reply: &Reply<W>) -> bool
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
    Address<W>: Family<W>,
{
    let [established, half_open, datagrams] = flows;
    // A flow goes over from half open to established, and is in both for a moment: who looks in this order does not miss it.
    let tables: &[&FlowMap<W>] =
        if tuple.protocol == UDP { &[datagrams] } else { &[established, half_open, established] };
    let key = reply.flow(tuple.protocol);
    for table in tables {
        if let Some(flow) = table.get(&key) {
            return answers(&flow, &key, tuple, reply);
        }
    }
    false
}

fn answers<const W: usize>(flow: &Flow<W>, key: &Tuple<W>, tuple: &Tuple<W>, reply: &Reply<W>) -> bool
where
    Address<W>: Family<W>,
{
    let sender = (tuple.destination, tuple.destination_port);
    flow.state & FLOW_REPLIES != 0 && flow.backend == reply.backend && reply::sender(key, flow) == sender
}

fn entries<const W: usize>(map: &HashMap<MapData, Wire<Tuple<W>>, Wire<Reply<W>>>) -> Result<Vec<(Tuple<W>, Reply<W>)>>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Reply<W>>: aya::Pod,
{
    let mut all = Vec::new();
    // A walk that begins anew all the time ends some time; what it has missed the next one meets.
    for entry in map.iter().take(ENTRIES_MAX) {
        match entry {
            Ok((tuple, reply)) => all.push((tuple.0, reply.0)),
            // It went in between; a walk that begins anew meets the others again.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot read a table of replies"),
        }
    }
    Ok(all)
}

fn clear<const W: usize>(map: &mut HashMap<MapData, Wire<Tuple<W>>, Wire<Reply<W>>>) -> Result<()>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Reply<W>>: aya::Pod,
{
    for (tuple, _) in entries(map)? {
        match map.remove(&Wire(tuple)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).context("cannot remove a reply's entry"),
        }
    }
    Ok(())
}
