//! One flow table of one family: kept by the kernel in the order of use, or an array of places.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use aya::maps::{HashMap, Map, MapData, MapError};
use foobar_common::abi::{Flow, MAX_HALF_OPEN};
use foobar_common::address::Tuple;
use foobar_common::half_open::{HalfOpen, WAYS, set_of};

use super::mapping::Mapping;
use super::wire::Wire;

/// A table, and how many entries it can hold.
pub(super) struct FlowMap<const W: usize> {
    kept: Kept<W>,
    size: u32,
}

/// How its entries are kept.
enum Kept<const W: usize> {
    /// The least recently used entry gives way.
    Used(HashMap<MapData, Wire<Tuple<W>>, Wire<Flow<W>>>),
    /// See `foobar_common::half_open`.
    Places(Places<W>),
}

/// What a walk has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Entries that were taken out.
    pub(super) removed: u64,
    /// Whether it has met every entry once, as far as can be known.
    pub(super) whole: bool,
}

impl<const W: usize> FlowMap<W>
where
    Wire<Tuple<W>>: aya::Pod,
    Wire<Flow<W>>: aya::Pod,
{
    /// Of a map; `seed` makes places in an array.
    ///
    /// # Errors
    /// It is no map of flows, or cannot be mapped into memory.
    pub(super) fn of(map: Map, seed: u64) -> Result<Self> {
        match map {
            Map::Array(map) => Ok(Self { size: MAX_HALF_OPEN, kept: Kept::Places(Places::new(map, seed)?) }),
            Map::LruHashMap(map) => {
                let size = map.info().context("cannot ask for a flow table's size")?.max_entries();
                Ok(Self { size, kept: Kept::Used(Map::LruHashMap(map).try_into()?) })
            }
            _ => bail!("a flow table is of an unexpected type"),
        }
    }

    /// Entries that it can hold.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// The flow of a client's tuple.
    pub(super) fn get(&self, key: &Tuple<W>) -> Option<Flow<W>> {
        match &self.kept {
            Kept::Used(map) => map.get(&Wire(*key), 0).ok().map(|flow| flow.0),
            Kept::Places(places) => places.find(key).map(|(_, entry)| entry.flow),
        }
    }

    /// Writes a flow.
    ///
    /// # Errors
    /// The map cannot be written; half-open flows are written by packets alone.
    pub(super) fn set(&mut self, key: Tuple<W>, flow: Flow<W>) -> Result<()> {
        match &mut self.kept {
            Kept::Used(map) => map.insert(Wire(key), Wire(flow), 0).context("cannot write a flow"),
            Kept::Places(_) => bail!("half-open flows are written by packets alone"),
        }
    }

    /// Shows each entry; false: some may have been missed, or met twice.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn visit(&self, mut see: impl FnMut(&Tuple<W>, &Flow<W>)) -> Result<bool> {
        let map = match &self.kept {
            Kept::Used(map) => map,
            Kept::Places(places) => return Ok(places.visit(|_, entry| see(&entry.tuple, &entry.flow))),
        };
        // A walk over a table that changes begins anew when the entry under it goes: it ends at the table's size at the latest.
        // What it has missed it meets the next time.
        let (mut whole, mut met, mut first) = (true, 0, None);
        for entry in map.iter().take(self.size as usize) {
            met += 1;
            match entry {
                Ok((key, flow)) => {
                    // Met again: the walk has begun anew, without a word.
                    whole &= *first.get_or_insert(key.0) != key.0 || met == 1;
                    see(&key.0, &flow.0);
                }
                Err(MapError::KeyNotFound) => whole = false,
                Err(error) => return Err(error).context("cannot read a flow table"),
            }
        }
        Ok(whole && met < self.size)
    }

    /// Shows each entry, and takes out those for which `ends` says so; `gone` hears of them. With `unchanged` only if they still
    /// are what was shown: a packet may have come since.
    ///
    /// # Errors
    /// The map cannot be read or changed.
    pub(super) fn take_out(
        &mut self,
        unchanged: bool,
        mut ends: impl FnMut(&Tuple<W>, &Flow<W>) -> bool,
        mut gone: impl FnMut(&Flow<W>),
    ) -> Result<Walked> {
        let mut over = Vec::new();
        let mut whole = self.visit(|key, flow| {
            if ends(key, flow) {
                over.push((*key, *flow));
            }
        })?;
        let mut removed = 0;
        for (key, seen) in over {
            // A packet between this look and the removal, of a flow that was silent to the very end of its time, finds none any
            // more.
            if unchanged && self.get(&key).is_some_and(|now| now != seen) {
                whole = false;
            } else if self.remove(&key) {
                removed += 1;
                gone(&seen);
            }
        }
        Ok(Walked { removed, whole })
    }

    /// Removes an entry; false: it has gone by itself.
    pub(super) fn remove(&mut self, key: &Tuple<W>) -> bool {
        match &mut self.kept {
            Kept::Used(map) => map.remove(&Wire(*key)).is_ok(),
            Kept::Places(places) => places.remove(key),
        }
    }
}

/// Half-open flows in this process's memory.
pub(super) struct Places<const W: usize> {
    /// Programs that are not loaded yet know their maps by the numbers of descriptors.
    _map: MapData,
    words: Mapping,
    seed: u64,
}

impl<const W: usize> Places<W> {
    /// Words of a place.
    const WORDS: usize = size_of::<HalfOpen<W>>() / 8;
    /// Place of the time in it.
    const TIME: usize = std::mem::offset_of!(HalfOpen<W>, flow) / 8 + std::mem::offset_of!(Flow<W>, last_seen_ns) / 8;

    fn new(map: MapData, seed: u64) -> Result<Self> {
        let words = Mapping::new(map.fd(), MAX_HALF_OPEN as usize * Self::WORDS)?;
        Ok(Self { _map: map, words, seed })
    }

    /// Shows each place in use; false: some were just written.
    fn visit(&self, mut see: impl FnMut(usize, &HalfOpen<W>)) -> bool {
        let mut whole = true;
        for place in 0..MAX_HALF_OPEN as usize {
            // Most places are free, most of the time.
            if self.words.read(place * Self::WORDS + Self::TIME) == 0 {
                continue;
            }
            match self.read(place) {
                Some(entry) if entry.flow.last_seen_ns != 0 => see(place, &entry),
                Some(_) => {}
                None => whole = false,
            }
        }
        whole
    }

    /// A place as it is; `None`: it is being written.
    fn read(&self, place: usize) -> Option<HalfOpen<W>> {
        let mut entry = std::mem::MaybeUninit::<HalfOpen<W>>::uninit();
        let first = place * Self::WORDS;
        let version = self.words.word(first).load(Ordering::Acquire);
        for word in 0..Self::WORDS {
            let value = self.words.word(first + word).load(Ordering::Relaxed);
            // SAFETY: a word of the entry, which has as many and is aligned to them.
            unsafe { entry.as_mut_ptr().cast::<u64>().add(word).write(value) };
        }
        std::sync::atomic::fence(Ordering::Acquire);
        let after = self.words.word(first).load(Ordering::Relaxed);
        // SAFETY: all words are written; the type consists of integers.
        (version & 1 == 0 && version == after).then(|| unsafe { entry.assume_init() })
    }

    fn find(&self, key: &Tuple<W>) -> Option<(usize, HalfOpen<W>)> {
        let first = set_of(key, self.seed) as usize * WAYS;
        let entries = (first..first + WAYS).filter_map(|place| Some((place, self.read(place)?)));
        entries.into_iter().find(|(_, entry)| entry.flow.last_seen_ns != 0 && entry.tuple == *key)
    }

    /// Frees the place of an entry; false: there is none, or a packet writes it.
    fn remove(&self, key: &Tuple<W>) -> bool {
        let Some((place, entry)) = self.find(key) else { return false };
        let first = place * Self::WORDS;
        let version = self.words.word(first);
        let odd = entry.version + 1;
        if version.compare_exchange(entry.version, odd, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.words.word(first + Self::TIME).store(0, Ordering::Relaxed);
        version.store(odd + 1, Ordering::Release);
        true
    }
}
