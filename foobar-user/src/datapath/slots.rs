//! Slots: which index of the kernel's tables belongs to which rule, service and backend.
//!
//! A name keeps its slot, and so its counters, over reloads and restarts. The list lies in the run folder, which
//! like the pins does not survive a reboot.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::{MAX_BACKENDS, MAX_RULES, MAX_SERVICES};
use serde::{Deserialize, Serialize};

/// Slots of all kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Number of the generation in force.
    pub generation: u32,
    /// Counters of rules.
    pub rules: Table,
    /// Services, by [`service_name`].
    pub services: Table,
    /// Backends, by [`backend_name`].
    pub backends: Table,
    /// Backends that no plan has any more, and that still have flows: they keep their slots until these are over.
    #[serde(default)]
    pub leaving: BTreeMap<String, u32>,
}

/// Slots of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    slots: BTreeMap<String, u32>,
    /// Where the search for a free slot begins: a slot is used again as late as possible.
    next: u32,
}

impl Table {
    /// Keeps the slots of `names`, gives new names free ones, and returns the slots that are new.
    ///
    /// Slots of names that are gone are free for the next assignment, not for this one: the generation that still
    /// counts in them is in force until this one replaces it. Nor are those in `held`.
    fn assign(&mut self, names: &[String], held: &[u32], limit: u32, what: &str) -> Result<Vec<u32>> {
        let before = self.slots.clone();
        self.slots.retain(|name, _| names.contains(name));
        let mut fresh = Vec::new();
        for name in names {
            if self.slots.contains_key(name) {
                continue;
            }
            let taken = |slot: u32| before.values().chain(self.slots.values()).chain(held).any(|used| *used == slot);
            let free = (0..limit).map(|step| (self.next + step) % limit).find(|slot| !taken(*slot));
            let slot = free.with_context(|| format!("more than {limit} {what}"))?;
            self.slots.insert(name.clone(), slot);
            self.next = (slot + 1) % limit;
            fresh.push(slot);
        }
        Ok(fresh)
    }

    /// The slot of a name.
    #[must_use]
    pub fn slot(&self, name: &str) -> Option<u32> {
        self.slots.get(name).copied()
    }

    /// The name that has a slot.
    #[must_use]
    pub fn name(&self, slot: u32) -> Option<&str> {
        self.iter().find(|(_, used)| *used == slot).map(|(name, _)| name)
    }

    /// Every name with its slot.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), *slot))
    }
}

/// Slots that an assignment has newly given out; their counters begin at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Counters of rules.
    pub rules: Vec<u32>,
    /// Services.
    pub services: Vec<u32>,
    /// Backends.
    pub backends: Vec<u32>,
}

impl Slots {
    /// The list that an earlier agent left, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the list, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives every name of a plan its slot.
    ///
    /// # Errors
    /// More names than the tables hold.
    pub fn assign(&mut self, rules: &[String], services: &[String], backends: &[String]) -> Result<Fresh> {
        ensure!(rules.len() <= MAX_RULES, "{} rules, but a server holds {MAX_RULES} at the most", rules.len());
        // Who comes back before the last flow is over goes on where it was.
        for (name, slot) in self.leaving.extract_if(.., |name, _| backends.contains(name)) {
            self.backends.slots.insert(name, slot);
        }
        let held: Vec<u32> = self.leaving.values().copied().collect();
        Ok(Fresh {
            rules: self.rules.assign(rules, &[], 4 * MAX_RULES as u32, "rules over two reloads")?,
            services: self.services.assign(services, &[], MAX_SERVICES, "services")?,
            backends: self.backends.assign(
                backends,
                &held,
                MAX_BACKENDS,
                "backends, those that still have flows among them",
            )?,
        })
    }

    /// Lets the backends of `old` go that are not here any more: those that are `busy` stay among the leaving, the slots of
    /// the others are returned.
    pub fn let_go(&mut self, old: &Self, busy: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut free = Vec::new();
        for (name, slot) in old.backends.iter().filter(|(name, _)| self.backends.slot(name).is_none()) {
            if busy(slot) {
                self.leaving.insert(name.to_owned(), slot);
            } else {
                free.push(slot);
            }
        }
        free
    }
}

/// Name of a service's slot: services have one in each address family.
#[must_use]
pub fn service_name(service: &str, ipv4: bool) -> String {
    format!("{service}/{}", if ipv4 { "ipv4" } else { "ipv6" })
}

/// Name of a backend's slot: another endpoint is another backend.
#[must_use]
pub fn backend_name(service: &str, server: &str, endpoint: std::net::SocketAddr) -> String {
    format!("{service}/{server}/{endpoint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_keep_their_slots_and_new_ones_avoid_those_just_left() {
        let mut table = Table::default();
        assert_eq!(table.assign(&names(&["a", "b", "c"]), &[], 5, "").unwrap(), [0, 1, 2]);
        assert_eq!(table.assign(&names(&["c", "d"]), &[], 5, "").unwrap(), [3]);
        assert_eq!((table.slot("c"), table.slot("d"), table.slot("a")), (Some(2), Some(3), None));
        assert_eq!(table.assign(&names(&["c", "d", "e", "f"]), &[], 5, "").unwrap(), [4, 0]);
    }

    #[test]
    fn a_full_table_is_refused() {
        assert!(Table::default().assign(&names(&["a", "b"]), &[], 1, "rules").is_err());
    }

    #[test]
    fn who_leaves_with_flows_keeps_its_slot_until_they_are_over() {
        let mut old = Slots::default();
        old.assign(&[], &[], &names(&["a", "b"])).unwrap();
        let mut new = old.clone();
        new.assign(&[], &[], &[]).unwrap();
        assert_eq!(new.let_go(&old, |slot| slot == 1), [0]);
        assert_eq!(new.leaving, BTreeMap::from([("b".to_owned(), 1)]));
        // Nobody else is given it, however many come.
        let many: Vec<String> = (0..MAX_BACKENDS - 1).map(|n| format!("n{n}")).collect();
        let mut full = new.clone();
        assert!(!full.assign(&[], &[], &many).unwrap().backends.contains(&1));
        assert!(full.assign(&[], &[], &[many, names(&["x"])].concat()).is_err());
        // It comes back to it, and its counters go on.
        assert_eq!(new.assign(&[], &[], &names(&["b"])).unwrap().backends, Vec::<u32>::new());
        assert_eq!((new.backends.slot("b"), new.leaving.len()), (Some(1), 0));
    }

    #[test]
    fn a_list_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slots.json");
        assert_eq!(Slots::read(&path).unwrap(), None);
        let mut slots = Slots::default();
        slots.assign(&names(&["r"]), &names(&["s/ipv4"]), &names(&["b"])).unwrap();
        slots.write(&path).unwrap();
        assert_eq!(Slots::read(&path).unwrap(), Some(slots));
        fs::write(&path, "{").unwrap();
        assert!(Slots::read(&path).is_err());
    }
}
