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
    /// counts in them is in force until this one replaces it.
    fn assign(&mut self, names: &[String], limit: u32, what: &str) -> Result<Vec<u32>> {
        let before = self.slots.clone();
        self.slots.retain(|name, _| names.contains(name));
        let mut fresh = Vec::new();
        for name in names {
            if self.slots.contains_key(name) {
                continue;
            }
            let taken = |slot: u32| before.values().chain(self.slots.values()).any(|used| *used == slot);
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
        Ok(Fresh {
            rules: self.rules.assign(rules, 4 * MAX_RULES as u32, "rules over two reloads")?,
            services: self.services.assign(services, MAX_SERVICES, "services")?,
            backends: self.backends.assign(backends, MAX_BACKENDS, "backends")?,
        })
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
        assert_eq!(table.assign(&names(&["a", "b", "c"]), 5, "").unwrap(), [0, 1, 2]);
        assert_eq!(table.assign(&names(&["c", "d"]), 5, "").unwrap(), [3]);
        assert_eq!((table.slot("c"), table.slot("d"), table.slot("a")), (Some(2), Some(3), None));
        assert_eq!(table.assign(&names(&["c", "d", "e", "f"]), 5, "").unwrap(), [4, 0]);
    }

    #[test]
    fn a_full_table_is_refused() {
        assert!(Table::default().assign(&names(&["a", "b"]), 1, "rules").is_err());
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
