//! One generation of rules: a fresh instance of the programs with fresh rule maps, filled before anything is attached.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData};
use aya::programs::{CgroupSockAddr, Program, ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use aya_log::EbpfLogger;
use foobar_common::abi::{RuleEntry, RuleSet};
use foobar_common::address::Address;
use foobar_common::rules::compile::{Compiled, Prefixes};
use ipnet::IpNet;

use super::{object, wire::Wire};

/// Maps that outlive generations and agents, by their names in the object.
pub const STATE_MAPS: [&str; 13] = [
    "VERDICTS",
    "RULE_COUNTS",
    "SERVICE_COUNTS",
    "BACKEND_COUNTS",
    "CURSORS",
    "SERVICES4",
    "SERVICES6",
    "ENDPOINTS4",
    "ENDPOINTS6",
    "RINGS",
    "BACKENDS",
    "FLOWS4",
    "FLOWS6",
];

/// Time between two looks at the program's messages.
const LOG_INTERVAL: Duration = Duration::from_millis(200);
/// `aya_log_common::Level::Info`.
const LOG_INFO: u8 = 3;

/// The programs of one generation, loaded, with their rules in place, attached to nothing.
#[derive(Debug)]
pub struct Generation {
    ebpf: Ebpf,
}

/// What a generation is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Folder in which state maps are pinned, and found again; `None`: they live and die with the generation.
    pub state: Option<&'a Path>,
    /// The rules.
    pub rules: &'a Compiled,
    /// Counter slot of each rule.
    pub counters: &'a [u32],
    /// Number of the generation.
    pub number: u32,
    /// Whether this server has services on the wire.
    pub balances: bool,
    /// Whether the program tells about each packet that it drops.
    pub log_drops: bool,
}

impl Generation {
    /// Loads the programs and fills the rule maps.
    ///
    /// # Errors
    /// What the kernel refused, with the end of the verifier's log.
    pub fn load(parts: &Parts<'_>) -> Result<Self> {
        let balances = u32::from(parts.balances);
        let log_level = if parts.log_drops { LOG_INFO } else { 0_u8 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global("GENERATION", &parts.number, true)
            .override_global("BALANCES", &balances, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("SOURCE_SETS", count(&parts.rules.sources.sets))
            .map_max_entries("DESTINATION_SETS", count(&parts.rules.destinations.sets))
            .map_max_entries("KIND_SETS", count(&parts.rules.kind_sets));
        if let Some(folder) = parts.state {
            for map in STATE_MAPS {
                loader.map_pin_path(map, folder.join(map.to_lowercase()));
            }
        }
        let ebpf = loader.load(object::bytes()?).context("cannot create the packet path's maps")?;
        let mut generation = Self { ebpf };
        generation.fill(parts)?;
        for name in ["foobar", "connect4", "connect6"] {
            generation.verify(name)?;
        }
        if parts.log_drops {
            generation.follow_log()?;
        }
        Ok(generation)
    }

    /// Writes what the program tells into this process's log, until the process ends.
    fn follow_log(&mut self) -> Result<()> {
        let mut log = EbpfLogger::init(&mut self.ebpf).context("cannot read the program's messages")?;
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(LOG_INTERVAL);
            loop {
                tick.tick().await;
                log.flush();
            }
        });
        Ok(())
    }

    /// The firewall and balancer.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the object"))?;
        Ok(program.try_into()?)
    }

    /// A connect hook: `connect4` or `connect6`.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn hook(&mut self, name: &str) -> Result<&mut CgroupSockAddr> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the object"))?;
        Ok(program.try_into()?)
    }

    /// Takes a map out of the generation.
    ///
    /// # Errors
    /// The object lacks it, or it was taken before.
    pub fn take_map(&mut self, name: &str) -> Result<Map> {
        self.ebpf.take_map(name).with_context(|| format!("no map `{name}` in the object"))
    }

    /// Has the kernel verify and load a program.
    ///
    /// # Errors
    /// What the kernel said, with the end of the verifier's log.
    pub fn verify(&mut self, name: &str) -> Result<()> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the object"))?;
        let loaded = match program {
            Program::Xdp(xdp) => xdp.load(),
            Program::CgroupSockAddr(hook) => hook.load(),
            _ => return Err(anyhow!("program `{name}` is of an unexpected type")),
        };
        loaded.map_err(|error| explain(name, &error))
    }

    fn fill(&mut self, parts: &Parts<'_>) -> Result<()> {
        let rules = parts.rules;
        self.fill_sets("SOURCE_SETS", &rules.sources.sets)?;
        self.fill_sets("DESTINATION_SETS", &rules.destinations.sets)?;
        self.fill_sets("KIND_SETS", &rules.kind_sets)?;
        self.fill_prefixes("SOURCES4", "SOURCES6", &rules.sources)?;
        self.fill_prefixes("DESTINATIONS4", "DESTINATIONS6", &rules.destinations)?;
        let mut kinds = self.array::<u32>("KIND_CLASSES")?;
        for (index, class) in &rules.kinds {
            kinds.set(*index, class, 0)?;
        }
        let mut entries = self.array::<Wire<RuleEntry>>("RULES")?;
        for (index, (action, counter)) in (0..).zip(rules.actions.iter().zip(parts.counters)) {
            entries.set(index, Wire(RuleEntry { action: *action, counter: *counter }), 0)?;
        }
        Ok(())
    }

    fn fill_sets(&mut self, name: &str, sets: &[RuleSet]) -> Result<()> {
        let mut map = self.array::<Wire<RuleSet>>(name)?;
        for (index, set) in (0..).zip(sets) {
            map.set(index, Wire(*set), 0)?;
        }
        Ok(())
    }

    fn fill_prefixes(&mut self, name4: &str, name6: &str, prefixes: &Prefixes) -> Result<()> {
        let mut trie4 = LpmTrie::<_, Wire<Address<1>>, u32>::try_from(self.map(name4)?)?;
        for (prefix, class) in &prefixes.classes {
            if let IpNet::V4(prefix) = prefix {
                let key = Key::new(u32::from(prefix.prefix_len()), Wire(Address::from(prefix.network())));
                trie4.insert(&key, class, 0).with_context(|| format!("cannot insert {prefix} into {name4}"))?;
            }
        }
        let mut trie6 = LpmTrie::<_, Wire<Address<4>>, u32>::try_from(self.map(name6)?)?;
        for (prefix, class) in &prefixes.classes {
            if let IpNet::V6(prefix) = prefix {
                let key = Key::new(u32::from(prefix.prefix_len()), Wire(Address::from(prefix.network())));
                trie6.insert(&key, class, 0).with_context(|| format!("cannot insert {prefix} into {name6}"))?;
            }
        }
        Ok(())
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(Array::try_from(self.map(name)?)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map `{name}` in the object"))
    }
}

fn count(sets: &[RuleSet]) -> u32 {
    u32::try_from(sets.len()).unwrap_or(u32::MAX).max(1)
}

/// The verifier's last lines say why; the hundreds before them only how it got there.
fn explain(name: &str, error: &ProgramError) -> anyhow::Error {
    const LINES: usize = 12;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow!("cannot load program `{name}`: {error}");
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n    ");
    anyhow!("the kernel refuses program `{name}`: {io_error}\n    {end}")
}
