//! A change: one plan on its way into the place of another, whole or not at all.
//!
//! Rules are written beside those in force, and one store puts them in their place. Only what cannot be changed so, frames of
//! more than one buffer or sets that have outgrown their memory, has the programs loaded anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use foobar_common::abi::Fenced;
use foobar_common::generation::{Tunnels, USES_BALANCER, USES_REVERSE_PATH};
use foobar_common::rules::Rule;
use tracing::{error, warn};

use super::clamps;
use super::fence;
use super::instance::{Instance, InstanceError, Place};
use super::links::{self, Mode};
use super::pins::Pins;
use super::services::{self, Planned};
use super::sets::Set;
use super::slots::{Fresh, Slots};
use super::{Datapath, InForce, Options, SetSource, slots_path};
use crate::plan::{Plan, Role, Scope};

/// A backend that is leaving must have had no flow for so long: over several walks through the flow tables, each of which may
/// have missed some.
const IDLE: Duration = Duration::from_secs(30);

/// A plan on its way into force.
struct Next {
    rules: Vec<Rule>,
    counters: Vec<u32>,
    uses: u32,
    interfaces: Vec<(String, u32)>,
    tunnels: Tunnels,
    fenced: Fenced,
    services: Vec<Planned>,
    slots: Slots,
    fresh: Fresh,
}

/// Why programs have to be loaded anew.
enum Outgrown {
    /// None are loaded yet.
    Nothing,
    /// An interface takes larger frames than before, or smaller ones.
    Frames,
    /// The named sets have no room in the memory that these were loaded with.
    Sets,
}

impl Outgrown {
    /// Why a change cannot be taken back by the kernel alone, and what to do.
    const fn refusal(&self) -> &'static str {
        match self {
            Self::Nothing => "no programs are loaded yet: this is a bug",
            Self::Frames => {
                "this change cannot wait for confirmation: an interface now takes frames of more than 1,500 bytes, for which \
                 the programs are loaded anew, and the kernel goes back by itself only to rules of the same programs. Nothing \
                 was changed. Run `foobar apply` with the site file as it was, which loads them; then try the change again"
            }
            Self::Sets => {
                "this change cannot wait for confirmation: the named sets have outgrown the memory that the programs were \
                 loaded with, or an earlier change of them has failed; and the kernel goes back by itself only to rules of the \
                 same programs. Nothing was changed. Put the sets in force first, with the rules as they were: `foobar apply` \
                 without --confirm; then try the rules again"
            }
        }
    }
}

impl Datapath {
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
        match self.try_rewrite(plan, &next, sets, jumbo, confirm_within)? {
            None => {}
            Some(why) if confirm_within.is_some() && self.in_force.is_some() => bail!(why.refusal()),
            Some(_) => self.reload(plan, &next, sets, jumbo)?,
        }
        let in_force = self.in_force.as_mut().context("a plan was put in force")?;
        let leaving: &[String] = if plan.tunnels.vips.is_empty() { &[] } else { &plan.interfaces };
        if let Err(error) = clamps::put(in_force.instance.programs(), &self.pins.links(), leaving) {
            warn!(
                "the segment sizes that this server announces are not bounded to what its tunnels have room for, so clients need \
                 the balancer's ICMP errors; a route to them with `advmss` does the same: {error:#}"
            );
        }
        let state = in_force.instance.state_mut();
        state.set_fenced(&next.fenced)?;
        let mut slots = next.slots;
        let free = slots.let_go(&self.slots, |slot| state.active(slot).is_ok_and(|flows| flows > 0));
        let kept = slots.leaving.values().try_for_each(|slot| state.keep_backend(*slot));
        let removed = kept.and_then(|()| services::remove_others(state, &next.services, &slots.leaving, &free));
        in_force.services = next.services;
        in_force.fenced = plan.fence.is_some();
        in_force.sets = (sets.version(), set_names(plan));
        self.slots = slots;
        // The plan is in force: what fails here is told, and does not undo it. A crash before the list is written costs nothing:
        // the same names get the same slots again.
        if let Err(error) = removed.and_then(|()| self.slots.write(&slots_path(&self.options.run))) {
            error!("what the plan has not any more is still in the tables: {error:#}");
        }
        Ok(())
    }

    /// Frees the slots of backends that were left to end their flows, and have none any more.
    ///
    /// # Errors
    /// A map cannot be read or changed.
    pub fn follow_leaving(&mut self) -> Result<()> {
        if self.slots.leaving.is_empty() {
            return Ok(());
        }
        let InForce { instance, services, .. } = self.in_force.as_mut().context("no plan is in force yet")?;
        let state = instance.state_mut();
        let (mut free, now) = (Vec::new(), Instant::now());
        for (name, slot) in &self.slots.leaving {
            if state.active(*slot)? > 0 {
                self.idle.remove(name);
            } else if now.duration_since(*self.idle.entry(name.clone()).or_insert(now)) >= IDLE {
                free.push((name.clone(), *slot));
            }
        }
        if free.is_empty() {
            return Ok(());
        }
        for (name, _) in &free {
            self.slots.leaving.remove(name);
            self.idle.remove(name);
        }
        let slots: Vec<u32> = free.into_iter().map(|(_, slot)| slot).collect();
        services::remove_others(state, services, &self.slots.leaving, &slots)?;
        self.slots.write(&slots_path(&self.options.run))
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
        let balances = plan.services.iter().any(|service| service.scope != Scope::Local);
        let uses = if balances { USES_BALANCER } else { 0 } | if plan.reverse_path { USES_REVERSE_PATH } else { 0 };
        let tunnels = plan.tunnels.ends().context("the packet path takes fewer VIPs by tunnel than the plan has")?;
        let fenced = fence::held_back(plan)?;
        Ok(Next { rules, counters, uses, interfaces, tunnels, fenced, services, slots, fresh })
    }

    /// Changes the rules of the programs that are loaded, unless they have to be loaded anew: then why.
    fn try_rewrite(
        &mut self,
        plan: &Plan,
        next: &Next,
        sets: &dyn SetSource,
        jumbo: bool,
        confirm_within: Option<Duration>,
    ) -> Result<Option<Outgrown>> {
        let Some(in_force) = &self.in_force else { return Ok(Some(Outgrown::Nothing)) };
        let loaded = in_force.instance.jumbo();
        // Programs for large frames take small ones, too, only not as fast: good enough for a trial.
        if jumbo && !loaded || loaded && !jumbo && confirm_within.is_none() {
            return Ok(Some(Outgrown::Frames));
        }
        let done = self.rewrite(plan, next, sets, confirm_within)?;
        Ok((!done).then_some(Outgrown::Sets))
    }

    /// Changes the rules of the programs that are loaded; false: there is no room for the sets.
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
                // The plan is in force: what fails from here on is told, and does not undo it.
                let mut carriers = plan.interfaces.clone();
                if confirm_within.is_some() {
                    // The kernel may go back by itself, and then they have to be closed.
                    carriers.extend(old.iter().filter(|name| links::index(name).is_ok()).cloned());
                }
                if let Err(error) = links::retain_interfaces(&self.pins.links(), &carriers) {
                    error!("the firewall stays on interfaces that the plan has not any more: {error:#}");
                }
                (self.modes, self.indices) = (modes, next.interfaces.iter().cloned().collect());
                Ok(true)
            }
            Err(error) => {
                links::retain_interfaces(&self.pins.links(), &old)?;
                services::add(instance.state_mut(), services, &[], &[])?;
                services::remove_others(instance.state_mut(), services, &self.slots.leaving, &[])?;
                Err(error)
            }
        }
    }

    /// Loads the programs anew, with everything in place, and then puts them in the place of those that run.
    fn reload(&mut self, plan: &Plan, next: &Next, sets: &dyn SetSource, jumbo: bool) -> Result<()> {
        let number = self.slots.generation;
        let own = self.pins.loading(number)?;
        let loaded = self.load(plan, &own, next, &sets.sets(), jumbo);
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
        self.in_force =
            Some(InForce { instance, loading: number, services: next.services.clone(), sets, fenced: false });
        Ok(())
    }

    fn load(&self, plan: &Plan, own: &Path, next: &Next, sets: &[Set], jumbo: bool) -> Result<Instance> {
        let state = self.pins.state();
        let flows = if plan.role == Role::Balancer { plan.flows } else { 0 };
        let log_drops = self.options.log_drops;
        let place = Place { state: Some(&state), own: Some(own), jumbo, flows, log_drops };
        let mut instance = Instance::load(&place, sets)?;
        write(&mut instance, next)?;
        instance.flip(None)?;
        services::add(instance.state_mut(), &next.services, &next.fresh.services, &next.fresh.backends)?;
        instance.state_mut().set_vlans(&self.vlans)?;
        Ok(instance)
    }

    /// Puts back what was in force before a loading that failed halfway.
    fn restore(&mut self) -> Result<()> {
        let Some(old) = &mut self.in_force else { return self.pins.retain_loading(None) };
        services::add(old.instance.state_mut(), &old.services, &[], &[])?;
        services::remove_others(old.instance.state_mut(), &old.services, &self.slots.leaving, &[])?;
        let interfaces: Vec<String> = self.modes.keys().cloned().collect();
        let empty = (BTreeMap::new(), BTreeMap::new());
        self.modes = attach(&self.pins, &self.options, &mut old.instance, &interfaces, &empty.0, &empty.1)?;
        links::retain_interfaces(&self.pins.links(), &interfaces)?;
        links::put_on_cgroup(old.instance.programs(), &self.pins.links(), &self.options.cgroup)?;
        self.pins.retain_loading(Some(old.loading))
    }
}

/// Writes the rules of a plan beside those in force, and begins new names' counters at zero.
fn write(instance: &mut Instance, next: &Next) -> Result<()> {
    for slot in &next.fresh.rules {
        instance.state_mut().clear_rule(*slot)?;
    }
    instance.write(&next.rules, &next.counters, next.slots.generation, next.uses, &next.interfaces, next.tunnels)
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
