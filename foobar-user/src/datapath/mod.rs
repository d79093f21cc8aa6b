//! The data path of one server: programs, maps, links and pins.
//!
//! A plan is applied whole: its rules are written beside those in force first, then put in force by one store; what fails
//! before that changes nothing. Everything is pinned, so the data path outlives the agent.

mod change;
mod clamps;
mod classes;
pub mod clock;
pub mod counters;
mod epoch;
pub mod events;
pub mod failures;
pub mod fence;
mod flow_map;
pub mod flows;
mod grace;
pub mod handshakes;
pub mod instance;
mod kernel_types;
pub mod links;
mod listeners;
pub mod load;
mod mapping;
pub mod object;
pub mod pins;
pub mod programs;
mod replies;
mod ring;
mod rules;
mod services;
pub mod sets;
mod shapes;
pub mod slots;
pub mod state;
pub mod vlans;
pub mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::Trace;

use self::events::Events;
use self::flows::FlowTables;
use self::handshakes::Handshakes;
use self::instance::{Instance, InstanceError, Place};
use self::links::{Mode, Wanted};
use self::pins::Pins;
use self::services::Planned;
use self::sets::{Entry, Set};
use self::slots::Slots;
use self::vlans::Vlan;
use crate::health::Member;

/// Where a server's data path is, and how it is attached.
#[derive(Clone, Debug)]
pub struct Options {
    /// Mount point of bpffs.
    pub bpffs: PathBuf,
    /// Run folder of this server.
    pub run: PathBuf,
    /// The cgroup v2 folder whose processes the connect hooks serve.
    pub cgroup: PathBuf,
    /// XDP mode.
    pub mode: Wanted,
    /// Whether the program tells about each packet that it drops.
    pub log_drops: bool,
}

/// Where the contents of named sets come from.
pub trait SetSource {
    /// Another number for other contents; single changes that the data path was told of are none.
    fn version(&self) -> u64;
    /// All sets that the plan names, in its order.
    fn sets(&self) -> Vec<Set>;
}

/// The data path in force.
#[derive(Debug)]
pub struct Datapath {
    options: Options,
    pins: Pins,
    slots: Slots,
    /// `None` until the first plan is applied.
    in_force: Option<InForce>,
    modes: BTreeMap<String, Mode>,
    /// Indices of the interfaces that carry the firewall.
    indices: BTreeMap<String, u32>,
    /// Devices of VLANs.
    vlans: Vec<Vlan>,
    adopted: bool,
    /// Since when backends that are leaving have had no flow.
    idle: BTreeMap<String, Instant>,
}

/// What a plan has put in force.
#[derive(Debug)]
struct InForce {
    /// Kept, so that it can be put back when its successor fails.
    instance: Instance,
    /// Number of the generation with which it was loaded.
    loading: u32,
    services: Vec<Planned>,
    /// Version of the named sets, and their names.
    sets: (u64, Vec<String>),
    /// Whether the plan has a fence.
    fenced: bool,
}

/// What has become of an interface since its firewall was put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Its name stands for another one now. A link belongs to the interface that it was made for, and goes with it.
    Replaced(String),
    /// It takes frames that the loaded programs do not know: of more than one buffer.
    LargerFrames(String),
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replaced(name) => write!(f, "another interface is called `{name}` now"),
            Self::LargerFrames(name) => write!(f, "interface `{name}` takes larger frames now"),
        }
    }
}

impl Datapath {
    /// Opens the place of a server's data path, with what an earlier agent has left there.
    ///
    /// # Errors
    /// No bpffs, foreign or incompatible pins.
    pub fn open(options: Options, server: &str) -> Result<Self> {
        let pins = Pins::new(&options.bpffs, server);
        pins.open()?;
        let found = Slots::read(&slots_path(&options.run))?;
        let adopted = pins.exist();
        ensure!(
            !adopted || found.is_some(),
            "there are pinned maps for {server}, but {} which tells what is in them is missing: `foobar detach --server \
             {server}` removes them; established flows are lost by it",
            slots_path(&options.run).display()
        );
        let slots = found.unwrap_or_default();
        // From the first map on there is a list: a crash in between is told from a lost one.
        slots.write(&slots_path(&options.run))?;
        Ok(Self {
            options,
            pins,
            slots,
            in_force: None,
            modes: BTreeMap::new(),
            indices: BTreeMap::new(),
            vlans: Vec::new(),
            adopted,
            idle: BTreeMap::new(),
        })
    }

    /// Keeps a change that waits for confirmation.
    ///
    /// # Errors
    /// No plan is in force.
    pub fn confirm(&mut self) -> Result<()> {
        self.instance()?.confirm()?;
        // Interfaces that the change has left were kept closed for its time.
        links::retain_interfaces(&self.pins.links(), &self.modes.keys().cloned().collect::<Vec<_>>())
    }

    /// Adds an entry to a named set in force, or gives it another time to live; `keep` false: takes it out.
    ///
    /// # Errors
    /// No rule in force names the set; no room, and then the plan has to be applied again with the whole sets.
    pub fn change_set(&mut self, set: &str, entry: Entry, keep: bool) -> Result<(), InstanceError> {
        self.instance()?.change_set(set, entry, keep)
    }

    /// Has known flows judged again, after a set has changed: who is denied now is not let through by what was said before.
    ///
    /// # Errors
    /// No plan is in force; the number cannot be remembered.
    pub fn judge_again(&mut self) -> Result<()> {
        self.slots.generation = self.slots.generation.wrapping_add(1).max(1);
        self.slots.write(&slots_path(&self.options.run))?;
        let number = self.slots.generation;
        self.instance()?.renumber(number)
    }

    /// Whether somebody watches: then drops are told, too.
    ///
    /// # Errors
    /// No plan is in force.
    pub fn set_watched(&mut self, watched: bool) -> Result<()> {
        self.instance()?.set_watched(watched);
        Ok(())
    }

    /// What the packet path would do with a frame that comes by an interface; nothing is counted or changed.
    ///
    /// # Errors
    /// The interface carries no firewall, or the kernel refuses the run.
    pub fn explain(&mut self, frame: &[u8], interface: &str) -> Result<Trace> {
        let index =
            *self.indices.get(interface).with_context(|| format!("`{interface}` carries no firewall of ours"))?;
        let state = self.pins.state();
        let InForce { instance, loading, .. } = self.in_force.as_mut().context("no plan is in force yet")?;
        let own = self.pins.loading(*loading)?;
        let jumbo = instance.jumbo();
        let place = Place { state: Some(&state), own: Some(&own), jumbo, flows: 0, log_drops: false };
        instance.explain(&place, frame, index)
    }

    /// Has the packet path know these devices of VLANs and no others, from now on and when a first plan is put in force.
    ///
    /// # Errors
    /// There are too many, or a map cannot be changed.
    pub fn set_vlans(&mut self, vlans: &[Vlan]) -> Result<()> {
        if self.vlans != vlans {
            if let Some(InForce { instance, .. }) = &mut self.in_force {
                instance.state_mut().set_vlans(vlans)?;
            }
            self.vlans = vlans.to_vec();
        }
        Ok(())
    }

    /// Interfaces that carry the firewall, with their indices.
    #[must_use]
    pub const fn indices(&self) -> &BTreeMap<String, u32> {
        &self.indices
    }

    /// Names of the slots of rules, services and backends.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The ring of events; to be read by one reader.
    ///
    /// # Errors
    /// No plan has been in force yet.
    pub fn events(&self) -> Result<Events> {
        Events::open(&self.pins.state())
    }

    /// Handles of their own on how handshakes are judged.
    ///
    /// # Errors
    /// No plan has been in force yet.
    pub fn handshakes(&self) -> Result<Handshakes> {
        Handshakes::open(&self.pins.state())
    }

    fn instance(&mut self) -> Result<&mut Instance> {
        Ok(&mut self.in_force.as_mut().context("no plan is in force yet")?.instance)
    }

    /// Handles of their own on the flow tables.
    ///
    /// # Errors
    /// No plan has been in force yet.
    pub fn flow_tables(&self) -> Result<FlowTables> {
        FlowTables::open(&self.pins.state())
    }

    /// Whether the maps of an earlier agent were found.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.adopted
    }

    /// An interface of the plan that needs its firewall put on anew.
    #[must_use]
    pub fn changed_interface(&self) -> Option<Changed> {
        let other = |(name, index): &(&String, &u32)| links::index(name).is_ok_and(|now| now != **index);
        if let Some((name, _)) = self.indices.iter().find(other) {
            return Some(Changed::Replaced(name.clone()));
        }
        let plain = self.in_force.as_ref().is_some_and(|in_force| !in_force.instance.jumbo());
        let outgrown = |name: &&String| links::jumbo(std::slice::from_ref(*name)).unwrap_or(false);
        self.indices.keys().filter(|_| plain).find(outgrown).map(|name| Changed::LargerFrames(name.clone()))
    }

    /// Number of the generation in force.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.slots.generation
    }

    /// Mode of each interface.
    #[must_use]
    pub const fn modes(&self) -> &BTreeMap<String, Mode> {
        &self.modes
    }

    /// Makes exactly these backends the members of a service; flows to servers that are disabled end.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn set_members(&mut self, service: &str, members: &[Member], disabled: &[String]) -> Result<()> {
        let InForce { instance, services, .. } = self.in_force.as_mut().context("no plan is in force yet")?;
        for planned in services.iter().filter(|planned| planned.name == service) {
            services::set_members(instance.state_mut(), planned, members, disabled)?;
        }
        Ok(())
    }

    /// Whether a service has any member, of whichever agent.
    #[must_use]
    pub fn has_members(&self, service: &str) -> bool {
        self.in_force.as_ref().is_some_and(|InForce { instance, services, .. }| {
            let mut slots = services.iter().filter(|planned| planned.name == service);
            slots.any(|planned| {
                instance.state().members(&planned.vips, planned.slot).is_ok_and(|members| !members.is_empty())
            })
        })
    }
}

/// Takes a server's data path out of the kernel.
///
/// # Errors
/// A pin cannot be removed.
pub fn detach(bpffs: &Path, run: &Path, server: &str) -> Result<()> {
    Pins::new(bpffs, server).remove()?;
    let slots = slots_path(run);
    match std::fs::remove_file(&slots) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", slots.display()))
        }
        _ => Ok(()),
    }
}

fn slots_path(run: &Path) -> PathBuf {
    run.join("slots.json")
}
