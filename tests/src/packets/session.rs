//! The whole run: verifier's table, named cases, and what is left over for chance.

use std::path::PathBuf;
use std::time::{Instant, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::check::check;
use super::core::Core;
use super::kernel::{Kernel, prepare};
use super::network::Network;
use super::own::Sockets;
use super::world::RuleSet;
use super::{differential, seeds, tables, verified};

/// Runs packets through the host's core and the kernel's program
#[derive(clap::Parser, Debug)]
pub struct Options {
    /// Random frames to compare
    #[arg(long, default_value_t = 10_000)]
    pub frames: usize,
    /// Seed of the random frames; by default another one each time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Write the frames of the cases into this folder, as seeds of the fuzz target `packet`, and do nothing else
    #[arg(long, value_name = "FOLDER")]
    pub seeds: Option<PathBuf>,
    /// Run only cases whose name contains this
    pub filter: Option<String>,
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
    for set in [RuleSet::Site, RuleSet::Thousand] {
        let mut kernel = Kernel::load(set, network, true)?;
        if set == RuleSet::Site {
            prepare(kernel.programs())?;
            let faults = verified::check(kernel.programs())?;
            tally.note("bounds of verified instructions", &faults);
        }
        let mut core = Core::new(set, network)?;
        let rules = set.rules();
        let started = Instant::now();
        let cases = tables::all().into_iter().filter(|case| case.rules == set && wanted(&case.name));
        let mut count = 0;
        for case in cases {
            count += 1;
            let faults = check(&case, &rules, &mut core, &mut kernel).with_context(|| case.name.clone())?;
            tally.note(&case.name, &faults);
        }
        if set == RuleSet::Site && options.filter.is_none() {
            by_chance(options, network, &mut core, &mut kernel, &mut tally)?;
        }
        println!("{count} cases on {} rules in {:.1} s", rules.len(), started.elapsed().as_secs_f64());
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

/// Random frames: the whole path in both shells, and the firewall against the model.
fn by_chance(
    options: &Options,
    network: Network,
    core: &mut Core,
    kernel: &mut Kernel,
    tally: &mut Tally,
) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64));
    println!("{} random frames, seed {seed}", options.frames);
    let started = Instant::now();
    let faults = differential::compare(seed, options.frames, core, kernel)?;
    tally.note("random frames: host and kernel agree", &faults);
    let mut firewall = Core::new(RuleSet::Site, network)?.firewall_only();
    let mut loaded = Kernel::load(RuleSet::Site, network, false)?;
    let rules = RuleSet::Site.rules();
    let faults = differential::against_model(seed, options.frames, &rules, &mut firewall, &mut loaded)?;
    tally.note("random frames: the firewall and the model agree", &faults);
    println!("random frames took {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
