//! The programs, loaded once for an agent's life: their rules change beside them, without them.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya::maps::{Array, Map, MapData, MapInfo, ProgramArray};
use aya::programs::{CgroupSkb, CgroupSock, CgroupSockAddr, Program, ProgramError, SchedClassifier, SockOps, Xdp};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use foobar_common::verdict::Stage;
use nix::errno::Errno;
use tracing::warn;

use super::{listeners, object, shapes};

/// Maps that outlive programs and agents, by their names in the object.
pub const STATE_MAPS: [&str; 47] = [
    "VERDICTS",
    "RULE_COUNTS",
    "TUNNELS",
    "SERVICE_COUNTS",
    "BACKEND_COUNTS",
    "CURSORS",
    "SERVICES4",
    "SERVICES6",
    "ENDPOINTS4",
    "ENDPOINTS6",
    "RINGS",
    "BACKENDS",
    "ACTIVE",
    "LOCAL_ACTIVE",
    "HELD",
    "CONNECT_FAILURES",
    "EPOCH",
    "STUCK",
    "ASKED4",
    "ASKED6",
    "CHOSEN4",
    "CHOSEN6",
    "FLOWS4",
    "FLOWS6",
    "HALF_OPEN4",
    "HALF_OPEN6",
    "DATAGRAMS4",
    "DATAGRAMS6",
    "REPLIES4",
    "REPLIES6",
    "HALF_OPEN_REPLIES4",
    "HALF_OPEN_REPLIES6",
    "DATAGRAM_REPLIES4",
    "DATAGRAM_REPLIES6",
    "SOURCES",
    "BUCKETS",
    "OPEN_COUNTS",
    "SEED",
    "CONNECTIONS",
    "SYN_SETTINGS",
    "FLOOD_SEEN",
    "EVENTS",
    "EVENTS_LOST",
    "VLANS",
    "VLAN_LINKS",
    "FENCE",
    "FENCED",
];

/// Maps of one loading of the programs.
const OWN_MAPS: [&str; 4] = ["RULES", "CONTROL", "MEMBERS", "MEMBERSHIPS"];

/// The programs that `foobar` goes on in. Emptied by the kernel when nobody holds it: pinned, it outlives this process.
const STAGES: &str = "STAGES";

/// The programs for local sockets.
pub const HOOKS: [&str; 8] =
    ["connect4", "connect6", "sendmsg4", "sendmsg6", "recvmsg4", "recvmsg6", "getpeername4", "getpeername6"];
/// The program that bounds the segment sizes which backends of tunnels announce.
pub const CLAMP: &str = "clamp";
/// The program that holds the database's answers back once this server's lease is over.
pub const FENCE: &str = "answers";
/// The program that follows connections.
pub const FOLLOWER: &str = "connections";
/// The program that sees the end of sockets.
pub const CLOSER: &str = "closed";

/// The tables whose size the site file says, in flows. What the kernel drives out of a flow table leaves its reply until the
/// agent's next walk.
const SIZED: [(&str, u32); 4] = [("FLOWS4", 1), ("FLOWS6", 1), ("REPLIES4", 2), ("REPLIES6", 2)];
/// What they hold where no flows are forwarded: maps must have a size.
const LEAST_FLOWS: u32 = 1024;

/// The memories for flows: map, constant with the bits of one CPU's pairs of entries, and bits of all pairs at the most: 32 MiB
/// for IPv4, 64 MiB for IPv6.
const EXPRESS: [(&str, &str, u32); 2] = [("EXPRESS4", "EXPRESS4_BITS", 18), ("EXPRESS6", "EXPRESS6_BITS", 18)];

/// `asm-generic/socket.h`, which libc does not have.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Time between two looks at the program's messages.
const LOG_INTERVAL: Duration = Duration::from_millis(200);
/// `aya_log_common::Level::Info`.
const LOG_INFO: u8 = 3;

/// The programs, loaded, attached to nothing.
pub struct Programs {
    ebpf: Ebpf,
    /// See [`STAGES`].
    stages: Option<ProgramArray<MapData>>,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

/// How programs are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Folder in which state maps are pinned, and found again; `None`: they live and die with the programs.
    pub state: Option<&'a Path>,
    /// Folder in which the maps of this loading are pinned, so that its dry twin finds them.
    pub own: Option<&'a Path>,
    /// Words for the prefix tables of named sets.
    pub member_words: u32,
    /// Whether frames may have more than one buffer.
    pub jumbo: bool,
    /// Established flows of each family at the most; 0: none are forwarded here.
    pub flows: u32,
    /// Whether the program tells about each packet that it drops.
    pub log_drops: bool,
}

impl Programs {
    /// Loads the programs; without rules they deny everything.
    ///
    /// # Errors
    /// What the kernel refused, with the end of the verifier's log.
    pub fn load(parts: &Parts<'_>) -> Result<Self> {
        let mut programs = Self::open(parts, false)?;
        programs.verify("foobar")?;
        for name in HOOKS.iter().chain(&[FOLLOWER, CLOSER, CLAMP, FENCE]) {
            programs.verify(name)?;
        }
        programs.join(|_| true)?;
        programs.sow()?;
        if parts.log_drops {
            programs.follow_log()?;
        }
        Ok(programs)
    }

    /// Loads the firewall once more, over the maps that are pinned: it changes nothing, and writes to `TRACE` what it would.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn load_dry(parts: &Parts<'_>) -> Result<Self> {
        let mut programs = Self::open(parts, true)?;
        programs.verify("foobar")?;
        programs.join(Stage::runs_dry)?;
        Ok(programs)
    }

    fn open(parts: &Parts<'_>, dry: bool) -> Result<Self> {
        let log_level = if parts.log_drops { LOG_INFO } else { 0_u8 };
        let (jumbo, dry) = (u32::from(parts.jumbo), u32::from(dry));
        let namespace = namespace_cookie()?;
        let mut loader = EbpfLoader::new();
        loader
            .override_global("JUMBO", &jumbo, true)
            .override_global("DRY_RUN", &dry, true)
            .override_global("NAMESPACE", &namespace, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            .map_max_entries("MEMBERS", parts.member_words);
        let flows = parts.flows.max(LEAST_FLOWS);
        for (table, times) in SIZED {
            loader.map_max_entries(table, flows * times);
        }
        let cpus = cpus()?;
        let memories = EXPRESS.map(|(name, constant, all)| {
            let bits =
                if parts.flows > 0 && dry == 0 { all.saturating_sub(cpus.next_power_of_two().ilog2()) } else { 0 };
            (name, constant, bits)
        });
        for (name, constant, bits) in &memories {
            loader.override_global(constant, bits, true).map_max_entries(name, (cpus << bits) * 2);
        }
        let listeners = listeners::constants();
        if let Err(error) = &listeners {
            warn!(
                "SYN floods are left to the kernel's own cookies, and refused connections of local sockets are not counted: {error:#}"
            );
        }
        let listeners = listeners.unwrap_or_default();
        for (name, value) in &listeners {
            loader.override_global(name, value, true);
        }
        if let Some(folder) = parts.state {
            shapes::check(object::bytes()?, &STATE_MAPS, &SIZED.map(|(table, _)| table), folder)?;
            if dry == 0 {
                tell_sizes(folder, flows);
            }
        }
        for (maps, folder) in [(&STATE_MAPS[..], parts.state), (&OWN_MAPS[..], parts.own)] {
            for (map, folder) in maps.iter().zip(std::iter::repeat(folder)) {
                if let Some(folder) = folder {
                    loader.map_pin_path(map, folder.join(map.to_lowercase()));
                }
            }
        }
        // A dry twin shares the maps, and goes on in programs of its own.
        if let Some(folder) = parts.own
            && dry == 0
        {
            loader.map_pin_path(STAGES, folder.join(STAGES.to_lowercase()));
        }
        let ebpf = loader.load(object::bytes()?).context("cannot create the packet path's maps")?;
        Ok(Self { ebpf, stages: None })
    }

    /// Lets `foobar` go on in these stages.
    fn join(&mut self, wanted: impl Fn(Stage) -> bool) -> Result<()> {
        let mut array: ProgramArray<_> = self.take_map(STAGES)?.try_into()?;
        for stage in Stage::ALL.into_iter().filter(|stage| wanted(*stage)) {
            let name = stage.program();
            self.verify(name)?;
            let joined = array.set(stage as u32, self.xdp(name)?.fd()?, 0);
            joined.with_context(|| format!("cannot join `{name}` to `foobar`"))?;
        }
        self.stages = Some(array);
        Ok(())
    }

    /// Makes places in the tables of open connections and of half-open flows a secret, once for all loadings.
    fn sow(&mut self) -> Result<()> {
        let mut seed: Array<_, u64> = self.map_mut("SEED")?.try_into()?;
        if seed.get(&0, 0)? == 0 {
            let random = RandomState::new().hash_one(0_u8);
            seed.set(0, random.max(1), 0)?;
        }
        Ok(())
    }

    /// The secret of places, see `Programs::sow`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn seed(&mut self) -> Result<u64> {
        let seed: Array<_, u64> = self.map_mut("SEED")?.try_into()?;
        Ok(seed.get(&0, 0)?)
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

    /// An XDP program: `foobar` is the firewall and balancer.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.program(name)?.try_into()?)
    }

    /// A program for local sockets, one of [`HOOKS`].
    ///
    /// # Errors
    /// The object lacks it.
    pub fn hook(&mut self, name: &str) -> Result<&mut CgroupSockAddr> {
        Ok(self.program(name)?.try_into()?)
    }

    /// What follows connections: `connections`.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn follower(&mut self, name: &str) -> Result<&mut SockOps> {
        Ok(self.program(name)?.try_into()?)
    }

    /// What looks at frames that leave: [`CLAMP`].
    ///
    /// # Errors
    /// The object lacks it.
    pub fn leaving(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        Ok(self.program(name)?.try_into()?)
    }

    /// What looks at packets that the processes of a cgroup send: [`FENCE`].
    ///
    /// # Errors
    /// The object lacks it.
    pub fn sending(&mut self, name: &str) -> Result<&mut CgroupSkb> {
        Ok(self.program(name)?.try_into()?)
    }

    /// What sees the end of sockets: `closed`.
    ///
    /// # Errors
    /// The object lacks it.
    pub fn closer(&mut self, name: &str) -> Result<&mut CgroupSock> {
        Ok(self.program(name)?.try_into()?)
    }

    fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("no program `{name}` in the object"))
    }

    /// A map, left where it is.
    ///
    /// # Errors
    /// The object lacks it, or it was taken out.
    pub fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map `{name}` in the object"))
    }

    /// Takes a map out of the programs.
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
        let loaded = match self.program(name)? {
            Program::Xdp(xdp) => xdp.load(),
            Program::CgroupSockAddr(hook) => hook.load(),
            Program::CgroupSock(hook) => hook.load(),
            Program::CgroupSkb(hook) => hook.load(),
            Program::SockOps(hook) => hook.load(),
            Program::SchedClassifier(hook) => hook.load(),
            _ => return Err(anyhow!("program `{name}` is of an unexpected type")),
        };
        loaded.map_err(|error| explain(name, &error))
    }
}

/// Tells when tables that are pinned have another size than the site file wants.
fn tell_sizes(folder: &Path, flows: u32) {
    for (table, times) in SIZED {
        let found = MapInfo::from_pin(folder.join(table.to_lowercase())).map(|map| map.max_entries() / times);
        if let Ok(found) = found
            && found != flows
        {
            warn!(
                "{table} was made for {found} flows and stays so, because flows are in it; for the {flows} of now, run \
                 `foobar detach` and start the agent again: established flows are lost by that"
            );
        }
    }
}

/// CPUs that this machine may have.
fn cpus() -> Result<u32> {
    let cpus = nr_cpus().map_err(|(path, error)| anyhow!("cannot read {path}: {error}"))?;
    Ok(u32::try_from(cpus)?)
}

/// What the kernel calls the network namespace of the calling thread.
fn namespace_cookie() -> Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a socket")?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than the eight bytes that it is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).context("cannot ask which network namespace this is")?;
    Ok(cookie)
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
