//! The data path of one server: programs, maps, links and pins.
//!
//! A plan is applied whole: its generation is loaded and filled first, then put in force; what fails before that
//! changes nothing. Everything is pinned, so the data path outlives the agent.

pub mod counters;
mod flows;
pub mod generation;
pub mod links;
pub mod object;
pub mod pins;
mod services;
pub mod slots;
pub mod state;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use foobar_common::rules::Rule;
use foobar_common::rules::compile::compile;

use self::flows::FlowTables;
use self::generation::{Generation, Parts};
use self::links::{Mode, Wanted};
use self::pins::Pins;
use self::services::Planned;
use self::slots::{Fresh, Slots};
use self::state::State;
use crate::plan::{Plan, Scope};

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
    adopted: bool,
}

/// What a plan has put in force.
#[derive(Debug)]
struct InForce {
    /// Kept, so that it can be put back when its successor fails.
    generation: Generation,
    state: State,
    services: Vec<Planned>,
}

/// A plan on its way into force.
struct Next {
    generation: Generation,
    state: State,
    services: Vec<Planned>,
    slots: Slots,
    fresh: Fresh,
}

impl Datapath {
    /// Opens the place of a server's data path, with what an earlier agent has left there.
    ///
    /// # Errors
    /// Not root, no bpffs, foreign or incompatible pins.
    pub fn open(options: Options, server: &str) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "the agent loads programs into the kernel: it must run as root");
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
        Ok(Self { options, pins, slots, in_force: None, modes: BTreeMap::new(), indices: BTreeMap::new(), adopted })
    }

    /// Puts a plan in force, whole.
    ///
    /// # Errors
    /// The plan cannot be loaded or attached; then what was in force is in force again.
    pub fn apply(&mut self, plan: &Plan) -> Result<()> {
        for interface in &plan.interfaces {
            links::index(interface)?;
        }
        // A number is never used twice, also when this attempt fails: flows bear the number that judged them.
        self.slots.generation = self.slots.generation.wrapping_add(1);
        self.slots.write(&slots_path(&self.options.run))?;
        let mut next = self.prepare(plan)?;
        services::add(&mut next.state, &next.services, &next.fresh.services, &next.fresh.backends)?;
        let modes = match self.attach(&mut next.generation, &plan.interfaces) {
            Ok(modes) => modes,
            Err(error) => {
                self.restore().context("and what was in force could not be restored: restart the agent")?;
                return Err(error);
            }
        };
        // A crash before this line costs nothing: the same names get the same slots again.
        next.slots.write(&slots_path(&self.options.run))?;
        services::remove_others(&mut next.state, &next.services, &retired(&self.slots, &next.slots))?;
        self.slots = next.slots;
        self.modes = modes;
        self.indices = plan
            .interfaces
            .iter()
            .map(|interface| Ok((interface.clone(), links::index(interface)?)))
            .collect::<Result<_>>()?;
        self.in_force = Some(InForce { generation: next.generation, state: next.state, services: next.services });
        Ok(())
    }

    /// Loads a plan's generation; nothing of it is in force.
    fn prepare(&self, plan: &Plan) -> Result<Next> {
        let rules: Vec<Rule> = plan.rules.iter().map(|planned| planned.rule.clone()).collect();
        let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        let mut slots = self.slots.clone();
        let (service_names, backend_names) = services::names(&plan.services);
        let fresh = slots.assign(&names, &service_names, &backend_names)?;
        let services = services::plan(&plan.services, &slots)?;
        let compiled = compile(&rules)?;
        let counters: Vec<u32> = names.iter().filter_map(|name| slots.rules.slot(name)).collect();
        let mut generation = Generation::load(&Parts {
            state: Some(&self.pins.state()),
            rules: &compiled,
            counters: &counters,
            number: slots.generation,
            balances: plan.services.iter().any(|service| service.scope == Scope::Nat),
            log_drops: self.options.log_drops,
        })?;
        let mut state = State::of(&mut generation)?;
        for slot in &fresh.rules {
            state.clear_rule(*slot)?;
        }
        Ok(Next { generation, state, services, slots, fresh })
    }

    /// Puts a generation on the cgroup and on every interface, and takes the others' firewall off.
    fn attach(&self, generation: &mut Generation, interfaces: &[String]) -> Result<BTreeMap<String, Mode>> {
        let links = self.pins.links();
        links::put_on_cgroup(generation, &links, &self.options.cgroup)?;
        let mut modes = BTreeMap::new();
        for interface in interfaces {
            let mode = links::put_on_interface(generation, &links, interface, self.options.mode)?;
            modes.insert(interface.clone(), mode);
        }
        links::retain_interfaces(&links, interfaces)?;
        Ok(modes)
    }

    /// Puts back what was in force before an attempt that failed halfway.
    fn restore(&mut self) -> Result<()> {
        let Some(mut old) = self.in_force.take() else { return Ok(()) };
        services::add(&mut old.state, &old.services, &[], &[])?;
        services::remove_others(&mut old.state, &old.services, &[])?;
        let interfaces: Vec<String> = self.modes.keys().cloned().collect();
        self.modes = self.attach(&mut old.generation, &interfaces)?;
        self.in_force = Some(old);
        Ok(())
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

    /// An interface of the plan whose name now stands for another one, which has no firewall yet.
    ///
    /// A link belongs to the interface that it was made for, and goes with it.
    #[must_use]
    pub fn displaced(&self) -> Option<&str> {
        let other = |(name, index): &(&String, &u32)| links::index(name).is_ok_and(|now| now != **index);
        self.indices.iter().find(other).map(|(name, _)| name.as_str())
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

    /// Makes exactly these backends the members of a service.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn set_members(&mut self, service: &str, members: &[(String, SocketAddr)]) -> Result<()> {
        let InForce { state, services, .. } = self.in_force.as_mut().context("no plan is in force yet")?;
        for planned in services.iter().filter(|planned| planned.name == service) {
            services::set_members(state, planned, members)?;
        }
        Ok(())
    }

    /// Whether a service has any member, of whichever agent.
    #[must_use]
    pub fn has_members(&self, service: &str) -> bool {
        self.in_force.as_ref().is_some_and(|InForce { state, services, .. }| {
            let mut slots = services.iter().filter(|planned| planned.name == service);
            slots.any(|planned| state.members(&planned.vips, planned.slot).is_ok_and(|members| !members.is_empty()))
        })
    }
}

/// Backend slots that a new assignment has given up.
fn retired(old: &Slots, new: &Slots) -> Vec<u32> {
    old.backends.iter().filter(|(name, _)| new.backends.slot(name).is_none()).map(|(_, slot)| slot).collect()
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
