//! The whole run: verifier's table, named cases, and what is left over for chance.

use std::path::PathBuf;
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::check::check;
use super::core::Core;
use super::differential::{self, Contest};
use super::kernel::{Kernel, prepare};
use super::model::Model;
use super::network::Network;
use super::own::Sockets;
use super::world::RuleSet;
use super::{fence, handshakes, seeds, tables, verified, walks};
use crate::bpffs;

/// Rules of the frames by chance.
const SET: RuleSet = RuleSet::Everything;
/// A test run of a program that knows only frames of one buffer takes no more than a page holds beside its headroom.
const ONE_BUFFER: usize = 3400;

/// Runs packets through the host's core and the kernel's program
#[derive(clap::Parser, Debug)]
pub struct Options {
    /// Random frames to compare; by default 1,000,000, and 10,000,000 with `FOOBAR_LONG` in the environment
    #[arg(long)]
    pub frames: Option<usize>,
    /// Seed of the random frames; by default another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the frames of the cases into this folder, as seeds of the fuzz target `packet`, and do nothing else
    #[arg(long, value_name = "FOLDER")]
    pub seeds: Option<PathBuf>,
    /// Run only cases whose name contains this
    pub filter: Option<String>,
}

impl Options {
    fn frames(&self) -> usize {
        let long = std::env::var_os("FOOBAR_LONG").is_some();
        self.frames.unwrap_or(if long { 10_000_000 } else { 1_000_000 })
    }
}

/// What has passed and failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Notes a check, and prints why it failed.
    pub fn note(&mut self, name: &str, faults: &[String]) {
        if faults.is_empty() {
            self.passed += 1;
            return;
        }
        self.failed += 1;
        println!("FAILED {name}");
        for fault in faults {
            println!("    {fault}");
        }
    }
}

/// Runs everything in a namespace of its own; whether all passed.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(folder) = &options.seeds {
        println!("{} passed, 0 failed", seeds::write(folder)?);
        return Ok(true);
    }
    std::thread::scope(|scope| scope.spawn(|| inside(options)).join().expect("the packets' thread panicked"))
}

fn inside(options: &Options) -> Result<bool> {
    let network = Network::enter()?;
    let _sockets = Sockets::open()?;
    let mut tally = Tally::default();
    let wanted = |name: &str| options.filter.as_ref().is_none_or(|filter| name.contains(filter.as_str()));
    let pins = own_bpffs()?;
    let mut kernel = Kernel::load(network, true, Some(&pins))?;
    prepare(kernel.programs())?;
    let faults = verified::check(kernel.programs())?;
    tally.note("bounds of verified instructions", &faults);
    for set in RuleSet::ALL {
        kernel.judge_by(set, true)?;
        let mut core = Core::new(set, network)?;
        let rules = set.rules();
        let started = Instant::now();
        let cases = tables::all().into_iter().filter(|case| case.rules == set && wanted(&case.name));
        let mut count = 0;
        for case in cases {
            count += 1;
            let faults = check(&case, &rules, &mut core, Some(&mut kernel)).with_context(|| case.name.clone())?;
            tally.note(&case.name, &faults);
        }
        println!("{count} cases on {} rules in {:.1} s", rules.len(), started.elapsed().as_secs_f64());
    }
    if wanted("answer") {
        fence::check(&mut kernel, &mut tally)?;
    }
    if wanted("handshake") {
        handshakes::check(&mut kernel, &mut tally)?;
    }
    if wanted("walk") {
        tally.note("walks: a flow that is established meanwhile is met once", &walks::check(&mut kernel, &pins)?);
    }
    if options.filter.is_none() {
        by_chance(options, network, kernel, &mut tally)?;
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// A BPF file system that only this thread sees, and that ends with it.
fn own_bpffs() -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace: this needs root")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("cannot keep mounts from other namespaces")?;
    mount(Some("bpf"), bpffs::MOUNT, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount the BPF file system at {}", bpffs::MOUNT))?;
    Ok(PathBuf::from(bpffs::MOUNT))
}

/// Frames that nobody has thought of: sensible ones cut and bent, and random ones; each through both shells, and with the
/// firewall alone through the model, too.
fn by_chance(options: &Options, network: Network, kernel: Kernel, tally: &mut Tally) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64));
    let started = Instant::now();
    let run = |mut kernel: Kernel, balances: bool, frames: usize| -> Result<(Vec<String>, usize)> {
        let core = Core::new(SET, network)?;
        kernel.judge_by(SET, balances)?;
        let mut contest = if balances {
            Contest { core, kernel, model: None }
        } else {
            Contest { core: core.firewall_only(), kernel, model: Some(Model::new(SET.rules())) }
        };
        let bent = differential::cut_and_bent(&tables::samples());
        let sweep = options.frames().min(bent.len());
        let mut faults = contest.all(bent.into_iter().take(sweep))?;
        faults.extend(contest.random(seed, frames, if balances { ONE_BUFFER } else { usize::MAX })?);
        Ok((faults, sweep + frames))
    };
    // One frame in four goes through the services; where rules alone decide, the model knows better.
    let quarter = options.frames() / 4;
    let without = Kernel::load(network, false, None)?;
    let (rules, services) =
        differential::both(|| run(kernel, false, options.frames() - quarter), || run(without, true, quarter));
    let ((rules, judged), (services, served)) = (rules?, services?);
    tally.note("frames by chance: host, kernel and model agree on the rules", &rules);
    tally.note("frames by chance: host and kernel agree on services", &services);
    let seconds = started.elapsed().as_secs_f64();
    println!("{judged} frames against the model, {served} more with services, seed {seed}, in {seconds:.1} s");
    Ok(())
}
