//! The fence of a database server: what raises and lowers it, and what holds it to PostgreSQL's cgroup.
//!
//! Its clock is the boot-time clock, see `foobar_common::fence`. Everything is pinned: it falls on time with nobody alive.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::MapData;
use foobar_common::abi::{Fenced, MAX_FREE};
use foobar_common::fence::{CLOSED, OPEN};
use nix::time::{ClockId, clock_gettime};

use super::mapping::Mapping;
use super::pins::Pins;
use super::{Datapath, InForce, links};
use crate::plan::Plan;

/// The end of this server's lease, as the kernel reads it at every packet; every clone is the same.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Word>);

#[derive(Debug)]
struct Word {
    /// Kept as the map's own descriptor, beside its memory.
    _map: MapData,
    memory: Mapping,
}

impl Fence {
    /// Of a pinned map, `fence` in the folder of a server's state maps.
    ///
    /// # Errors
    /// It cannot be opened, or mapped into memory.
    pub fn pinned(pin: &Path) -> Result<Self> {
        let map = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
        let memory = Mapping::new(map.fd(), 1).context("cannot map the fence into memory")?;
        Ok(Self(Arc::new(Word { _map: map, memory })))
    }

    /// The fence that an earlier agent has left in force; `None`: there is none.
    ///
    /// # Errors
    /// It is there and cannot be used.
    pub fn adopt(bpffs: &Path, server: &str) -> Result<Option<Self>> {
        let pin = pin(&Pins::new(bpffs, server));
        pin.exists().then(|| Self::pinned(&pin)).transpose()
    }

    /// Raises it at once: no client is let in or answered.
    pub fn close(&self) {
        self.open_until(CLOSED);
    }

    /// Lowers it for good.
    pub fn open(&self) {
        self.open_until(OPEN);
    }

    /// Lowers it until a moment of [`boot_now`]'s clock, in nanoseconds; a moment that has passed raises it.
    ///
    /// A store of one word, without a system call: every packet from now on sees it whole.
    pub fn open_until(&self, boot_ns: u64) {
        self.0.memory.word(0).store(boot_ns, Ordering::SeqCst);
    }

    /// When it goes up, in nanoseconds of [`boot_now`]'s clock; 0: it is up, and nobody has lowered it yet. `u64::MAX`: never.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.memory.word(0).load(Ordering::SeqCst)
    }

    /// Time until it goes up, in seconds; 0: it is up. Infinite: it does not.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        match self.end() {
            OPEN => f64::INFINITY,
            end => Duration::from_nanos(end.saturating_sub(boot_now())).as_secs_f64(),
        }
    }
}

/// This moment in nanoseconds since the machine was started, the time that it was suspended included.
///
/// # Panics
/// Never: Linux has this clock since 2.6.39.
#[must_use]
pub fn boot_now() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has a boot-time clock");
    Duration::from(now).as_nanos() as u64
}

impl Datapath {
    /// A handle on this server's fence; `None`: its plan has none.
    ///
    /// # Errors
    /// No plan is in force, or the map cannot be opened.
    pub fn fence(&self) -> Result<Option<Fence>> {
        let InForce { fenced, .. } = self.in_force.as_ref().context("no plan is in force yet")?;
        fenced.then(|| Fence::pinned(&pin(&self.pins))).transpose()
    }

    /// Holds the fence to PostgreSQL's cgroup, which is made if it is not there yet. To be called before PostgreSQL is started, and
    /// at any time again: whatever is attached already leaves only when its successor is there.
    ///
    /// A socket belongs to the cgroup in which it, or the one that listened for it, was made.
    ///
    /// # Errors
    /// No plan is in force, the folder cannot be made on a cgroup v2 mount, or the kernel refuses.
    pub fn attach_fence(&mut self, cgroup: &Path) -> Result<()> {
        fs::create_dir_all(cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        let folder = self.pins.links();
        links::put_fence(self.instance()?.programs(), &folder, cgroup)
    }
}

/// Whether a fence is held to PostgreSQL's cgroup, by an agent of whichever version.
#[must_use]
pub fn is_held(bpffs: &Path, server: &str) -> bool {
    Pins::new(bpffs, server).links().join(links::FENCE_PIN).exists()
}

fn pin(pins: &Pins) -> PathBuf {
    pins.state().join("fence")
}

/// What a plan has held back.
pub(super) fn held_back(plan: &Plan) -> Result<Fenced> {
    let Some(fence) = &plan.fence else { return Ok(Fenced::default()) };
    let free = [plan.addresses.as_slice(), &fence.peers].concat();
    Fenced::new(fence.port, &free).with_context(|| {
        format!("the database servers have {} addresses, and the fence takes {MAX_FREE} at the most", free.len())
    })
}
