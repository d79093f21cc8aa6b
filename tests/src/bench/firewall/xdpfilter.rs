//! Debian's xdp-filter: loaded by its own tool, which pins; its table of exact source addresses filled by us, in one go.
//!
//! The tool pins below `/sys/fs/bpf` by fixed names. It therefore runs in a mount namespace of its own, in which a folder of
//! the run lies there; with the run's folder its pins go. Its table holds 10,000 addresses: it is given a copy of its own
//! object with a larger one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::addresses::Who;
use crate::bpf::{self, map};
use crate::bpffs;
use crate::process::run;

/// Which of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Features {
    /// That which it loads unless told otherwise: addresses of all kinds and ports.
    All,
    /// The least one that knows addresses.
    Addresses,
}

impl Features {
    /// The program's name and the tool's word for it.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::All => ("xdpfilt_alw_all", "all"),
            Self::Addresses => ("xdpfilt_alw_ip", "ipv4"),
        }
    }
}

/// xdp-filter on an interface, with the first members in its table.
#[derive(Debug)]
pub(super) struct XdpFilter {
    /// Its program.
    pub(super) program: OwnedFd,
}

impl XdpFilter {
    /// Has its tool attach it to `interface` of the calling thread's namespace, and lets it drop what comes from `entries`
    /// members. `pins` is a folder in the BPF file system, `folder` one for files.
    pub(super) fn load(pins: &Path, folder: &Path, interface: &str, features: Features, entries: u32) -> Result<Self> {
        fs::create_dir(pins).with_context(|| format!("cannot make {}", pins.display()))?;
        let objects = objects(folder)?;
        let (program, word) = features.names();
        tool(pins, &objects, &["load", "--mode", "native", "--policy", "allow", "--features", word, interface])?;
        let pinned = pins.join("xdp-filter");
        let table = bpf::pinned(&pinned.join("filter_ipv4"))?;
        let keys: Vec<[u8; 4]> = (0..entries).map(|number| Who::Members.address(number).octets()).collect();
        map::fill(table.as_fd(), &keys, &vec![SOURCE; keys.len() * processors()?])?;
        Ok(Self { program: bpf::pinned(&pinned.join("programs").join(interface).join(program))? })
    }

    /// Takes it off the interface; the program can still be run by hand.
    pub(super) fn unload(pins: &Path, folder: &Path, interface: &str) -> Result<()> {
        tool(pins, &objects(folder)?, &["unload", interface])
    }
}

/// Runs the tool with `pins` in the place of the BPF file system.
fn tool(pins: &Path, objects: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("xdp-filter");
    command.args(arguments).env("LIBXDP_OBJECT_PATH", objects);
    let pins = pins.to_owned();
    // SAFETY: between fork and exec only system calls are made, on paths that the closure holds; nothing is allocated, since
    // the paths are short enough for the stack.
    unsafe {
        command.pre_exec(move || {
            let none = None::<&str>;
            unshare(CloneFlags::CLONE_NEWNS).map_err(io::Error::from)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(io::Error::from)?;
            mount(Some(&pins), bpffs::MOUNT, none, MsFlags::MS_BIND, none).map_err(io::Error::from)
        });
    }
    run(&mut command).map(drop)
}

/// Folder with copies of the tool's objects whose tables hold [`TABLE`] addresses.
fn objects(folder: &Path) -> Result<PathBuf> {
    let objects = folder.join("xdp-filter");
    if objects.exists() {
        return Ok(objects);
    }
    fs::create_dir(&objects)?;
    for features in [Features::All, Features::Addresses] {
        let object = format!("{}.o", features.names().0);
        let source = PathBuf::from(format!("/usr/lib/{}-linux-gnu/bpf/{object}", std::env::consts::ARCH));
        let mut bytes = fs::read(&source)
            .with_context(|| format!("cannot read {}: `cargo xtask setup` installs xdp-tools", source.display()))?;
        let here = |at: &usize| bytes[*at..*at + 4] == ITS_TABLE.to_le_bytes();
        let places: Vec<usize> = (0..bytes.len() - 3).filter(here).collect();
        ensure!(places.len() == 1, "{} is not the xdp-filter that this bench knows", source.display());
        bytes[places[0]..places[0] + 4].copy_from_slice(&TABLE.to_le_bytes());
        fs::write(objects.join(object), bytes)?;
    }
    Ok(objects)
}

/// Values of a map for each processor come for every processor that there could be.
fn processors() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("cannot read {file}: {error}"))
}

/// Its own table, and ours.
const ITS_TABLE: u32 = 10_000;
const TABLE: u32 = 131_072;
/// `MAP_FLAG_SRC` of the tool: the address is a source.
const SOURCE: u64 = 1;
