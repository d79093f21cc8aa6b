//! The data path of one server: programs, maps, links and pins.
//!
//! A plan is applied whole: its rules are written beside those in force first, then put in force by one store; what fails
//! before that changes nothing. Everything is pinned, so the data path outlives the agent.

mod classes;
pub mod counters;
pub mod events;
mod flows;
mod grace;
pub mod instance;
pub mod links;
mod mapping;
pub mod object;
pub mod pins;
pub mod programs;
mod rules;
mod services;
pub mod sets;
pub mod slots;
pub mod state;
pub mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::Trace;
use foobar_common::generation::{USES_BALANCER, USES_REVERSE_PATH};
use foobar_common::rules::Rule;

use self::events::Events;
use self::flows::FlowTables;
use self::instance::{Instance, InstanceError, Place};
use self::links::{Mode, Wanted};
use self::pins::Pins;
use self::services::Planned;
use self::sets::{Entry, Set};
use self::slots::{Fresh, Slots};
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
    adopted: bool,
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
}

/// A plan on its way into force.
struct Next {
    rules: Vec<Rule>,
    counters: Vec<u32>,
    uses: u32,
    interfaces: Vec<(String, u32)>,
    services: Vec<Planned>,
    slots: Slots,
    fresh: Fresh,
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
        Ok(Self { options, pins, slots, in_force: None, modes: BTreeMap::new(), indices: BTreeMap::new(), adopted })
    }

    /// Puts a plan in force, whole. With `confirm_within` its rules hold only so long, unless they are confirmed.
    ///
    /// # Errors
    /// The plan cannot be loaded or attached; then what was in force is in force again.
    pub fn apply(&mut self, plan: &Plan, sets: &dyn SetSource, confirm_within: Option<Duration>) -> Result<()> {
        let jumbo = links::jumbo(&plan.interfaces)?;
        // A number is never used twice, also when this attempt fails: flows bear the number that judged them. 0 is none.
        self.slots.generation = self.slots.generation.wrapping_add(1).max(1);
        self.slots.write(&slots_path(&self.options.run))?;
        let next = self.prepare(plan)?;
        let kept = self.in_force.as_ref().is_some_and(|in_force| in_force.instance.jumbo() == jumbo);
        let done = if kept { self.rewrite(plan, &next, sets, confirm_within)? } else { false };
        if !done {
            ensure!(
                confirm_within.is_none() || self.in_force.is_none(),
                "this change needs its programs loaded anew, which cannot wait for confirmation: apply it without"
            );
            self.reload(plan, &next, sets, jumbo)?;
        }
        let in_force = self.in_force.as_mut().context("a plan was put in force")?;
        // A crash before this line costs nothing: the same names get the same slots again.
        next.slots.write(&slots_path(&self.options.run))?;
        let state = in_force.instance.state_mut();
        services::remove_others(state, &next.services, &retired(&self.slots, &next.slots))?;
        in_force.services = next.services;
        in_force.sets = (sets.version(), set_names(plan));
        self.slots = next.slots;
        Ok(())
    }

    /// What a plan needs, with its slots.
    fn prepare(&self, plan: &Plan) -> Result<Next> {
        let rules: Vec<Rule> = plan.rules.iter().map(|planned| planned.rule.clone()).collect();
        let names: Vec<String> = rules.iter().map(|rule| rule.name.clone()).collect();
        let mut slots = self.slots.clone();
        let (service_names, backend_names) = services::names(&plan.services);
        let fresh = slots.assign(&names, &service_names, &backend_names)?;
        let counters = names.iter().filter_map(|name| slots.rules.slot(name)).collect();
        let interfaces =
            plan.interfaces.iter().map(|name| Ok((name.clone(), links::index(name)?))).collect::<Result<_>>()?;
        let services = services::plan(&plan.services, &slots)?;
        let balances = plan.services.iter().any(|service| service.scope == Scope::Nat);
        let uses = if balances { USES_BALANCER } else { 0 } | if plan.reverse_path { USES_REVERSE_PATH } else { 0 };
        Ok(Next { rules, counters, uses, interfaces, services, slots, fresh })
    }

    /// Changes the rules of the programs that are loaded; false: there is no room, they have to be loaded anew.
    fn rewrite(
        &mut self,
        plan: &Plan,
        next: &Next,
        sets: &dyn SetSource,
        confirm_within: Option<Duration>,
    ) -> Result<bool> {
        let Some(in_force) = self.in_force.as_mut() else { return Ok(false) };
        let InForce { instance, services, sets: known, .. } = in_force;
        if *known != (sets.version(), set_names(plan)) {
            match instance.replace_sets(&sets.sets()) {
                Ok(()) => {}
                Err(InstanceError::Room) => return Ok(false),
                Err(InstanceError::Other(error)) => return Err(error),
            }
        }
        write(instance, next)?;
        services::add(instance.state_mut(), &next.services, &next.fresh.services, &next.fresh.backends)?;
        let old: Vec<String> = self.modes.keys().cloned().collect();
        match attach(&self.pins, &self.options, instance, &plan.interfaces, &self.modes, &self.indices) {
            Ok(modes) => {
                instance.flip(confirm_within)?;
                links::retain_interfaces(&self.pins.links(), &plan.interfaces)?;
                (self.modes, self.indices) = (modes, next.interfaces.iter().cloned().collect());
                Ok(true)
            }
            Err(error) => {
                links::retain_interfaces(&self.pins.links(), &old)?;
                services::add(instance.state_mut(), services, &[], &[])?;
                services::remove_others(instance.state_mut(), services, &[])?;
                Err(error)
            }
        }
    }

    /// Loads the programs anew, with everything in place, and then puts them in the place of those that run.
    fn reload(&mut self, plan: &Plan, next: &Next, sets: &dyn SetSource, jumbo: bool) -> Result<()> {
        let number = self.slots.generation;
        let own = self.pins.loading(number)?;
        let loaded = self.load(&own, next, &sets.sets(), jumbo);
        let attached = loaded.and_then(|mut instance| {
            let empty = (BTreeMap::new(), BTreeMap::new());
            let modes = attach(&self.pins, &self.options, &mut instance, &plan.interfaces, &empty.0, &empty.1)?;
            links::put_on_cgroup(instance.programs(), &self.pins.links(), &self.options.cgroup)?;
            Ok((instance, modes))
        });
        let (instance, modes) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                self.restore().context("and what was in force could not be restored: restart the agent")?;
                return Err(error);
            }
        };
        links::retain_interfaces(&self.pins.links(), &plan.interfaces)?;
        self.pins.retain_loading(Some(number))?;
        (self.modes, self.indices) = (modes, next.interfaces.iter().cloned().collect());
        let sets = (sets.version(), set_names(plan));
        self.in_force = Some(InForce { instance, loading: number, services: next.services.clone(), sets });
        Ok(())
    }

    fn load(&self, own: &Path, next: &Next, sets: &[Set], jumbo: bool) -> Result<Instance> {
        let state = self.pins.state();
        let log_drops = self.options.log_drops;
        let mut instance = Instance::load(&Place { state: Some(&state), own: Some(own), jumbo, log_drops }, sets)?;
        write(&mut instance, next)?;
        instance.flip(None)?;
        services::add(instance.state_mut(), &next.services, &next.fresh.services, &next.fresh.backends)?;
        Ok(instance)
    }

    /// Puts back what was in force before a loading that failed halfway.
    fn restore(&mut self) -> Result<()> {
        let Some(old) = &mut self.in_force else { return self.pins.retain_loading(None) };
        services::add(old.instance.state_mut(), &old.services, &[], &[])?;
        services::remove_others(old.instance.state_mut(), &old.services, &[])?;
        let interfaces: Vec<String> = self.modes.keys().cloned().collect();
        let empty = (BTreeMap::new(), BTreeMap::new());
        self.modes = attach(&self.pins, &self.options, &mut old.instance, &interfaces, &empty.0, &empty.1)?;
        links::retain_interfaces(&self.pins.links(), &interfaces)?;
        links::put_on_cgroup(old.instance.programs(), &self.pins.links(), &self.options.cgroup)?;
        self.pins.retain_loading(Some(old.loading))
    }

    /// Keeps a change that waits for confirmation.
    ///
    /// # Errors
    /// No plan is in force.
    pub fn confirm(&mut self) -> Result<()> {
        self.instance()?.confirm();
        Ok(())
    }

    /// Adds an entry to a named set in force, or gives it another time to live; `keep` false: takes it out.
    ///
    /// # Errors
    /// No rule in force names the set; no room, and then the plan has to be applied again with the whole sets.
    pub fn change_set(&mut self, set: &str, entry: Entry, keep: bool) -> Result<(), InstanceError> {
        self.instance()?.change_set(set, entry, keep)
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
        instance.explain(&Place { state: Some(&state), own: Some(&own), jumbo, log_drops: false }, frame, index)
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
        let InForce { instance, services, .. } = self.in_force.as_mut().context("no plan is in force yet")?;
        for planned in services.iter().filter(|planned| planned.name == service) {
            services::set_members(instance.state_mut(), planned, members)?;
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

/// Writes the rules of a plan beside those in force, and begins new names' counters at zero.
fn write(instance: &mut Instance, next: &Next) -> Result<()> {
    for slot in &next.fresh.rules {
        instance.state_mut().clear_rule(*slot)?;
    }
    instance.write(&next.rules, &next.counters, next.slots.generation, next.uses, &next.interfaces)
}

/// Puts the programs on every interface that does not carry them yet; the mode of each.
fn attach(
    pins: &Pins,
    options: &Options,
    instance: &mut Instance,
    interfaces: &[String],
    modes: &BTreeMap<String, Mode>,
    indices: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, Mode>> {
    let mut attached = BTreeMap::new();
    for interface in interfaces {
        let carries =
            indices.get(interface).is_some_and(|index| links::index(interface).is_ok_and(|now| now == *index));
        let mode = match modes.get(interface) {
            Some(mode) if carries => *mode,
            _ => links::put_on_interface(instance.programs(), &pins.links(), interface, options.mode)?,
        };
        attached.insert(interface.clone(), mode);
    }
    Ok(attached)
}

fn set_names(plan: &Plan) -> Vec<String> {
    plan.sets.iter().map(|set| set.name.clone()).collect()
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
