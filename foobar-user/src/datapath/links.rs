//! Links: what holds the programs to interfaces and to the cgroup, pinned always.
//!
//! An unpinned link detaches at once when its process is killed, and the firewall would be open.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, ProgramError};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::programs::{CLOSER, FENCE, FOLLOWER, HOOKS, Programs};

/// Name of the pin of what holds the fence.
pub(super) const FENCE_PIN: &str = "fence";

/// How a program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// In the stack, for drivers without XDP: slower.
    Generic,
}

impl Mode {
    /// Its name in metrics, pins and options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn xdp(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Native, and generic where the driver refuses.
    Native,
    /// Generic.
    Generic,
}

/// Puts the firewall on an interface: into the link that is pinned, or into a new one.
///
/// # Errors
/// The interface does not exist, or the kernel refuses. A link that lives stays pinned, with the program it has.
pub fn put_on_interface(programs: &mut Programs, folder: &Path, interface: &str, wanted: Wanted) -> Result<Mode> {
    let index = index(interface)?;
    for mode in [Mode::Native, Mode::Generic] {
        let pin = interface_pin(folder, interface, index, mode);
        if pin.exists() && replace(programs, &pin)? {
            if wanted == Wanted::Generic && mode == Mode::Native {
                // The kernel allows one mode at a time: a change would leave the interface bare for a moment.
                warn!(interface, "stays in native mode: `foobar detach` comes before a start with --mode generic");
            }
            return Ok(mode);
        }
    }
    if wanted == Wanted::Native {
        match attach(programs, index, Mode::Native) {
            Ok(link) => return pin_interface(link, folder, interface, index, Mode::Native),
            Err(error) => {
                warn!(interface, "the driver refuses native XDP, falling back to generic, which is slower: {error:#}");
            }
        }
    }
    let link = attach(programs, index, Mode::Generic)
        .with_context(|| format!("cannot attach the firewall to `{interface}`: is another XDP program there?"))?;
    pin_interface(link, folder, interface, index, Mode::Generic)
}

/// Index of an interface.
///
/// # Errors
/// It does not exist.
pub fn index(interface: &str) -> Result<u32> {
    if_nametoindex(interface)
        .with_context(|| format!("interface `{interface}` does not exist here: `ip link` lists those that do"))
}

/// Frames up to this MTU lie in one buffer with every driver.
const PLAIN_MTU: i32 = 1500;

/// Whether frames of an interface may have more than one buffer.
///
/// # Errors
/// An interface does not exist.
pub fn jumbo(interfaces: &[String]) -> Result<bool> {
    let mut any = false;
    for interface in interfaces {
        index(interface)?;
        any |= mtu(interface)? > PLAIN_MTU;
    }
    Ok(any)
}

/// MTU of an interface.
fn mtu(interface: &str) -> Result<i32> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).or_else(|_| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
    // SAFETY: a plain C structure, for which zero is a value everywhere.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    // SAFETY: the request lives for the call, and its name ends with a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    Errno::result(result).with_context(|| format!("cannot read the MTU of `{interface}`"))?;
    // SAFETY: the call has written this member.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Takes the firewall off every interface that is not in `keep`.
///
/// # Errors
/// A pin cannot be removed.
pub fn retain_interfaces(folder: &Path, keep: &[String]) -> Result<()> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for interface in keep {
        let index = index(interface)?;
        kept.extend([Mode::Native, Mode::Generic].map(|mode| interface_pin(folder, interface, index, mode)));
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let is_interface = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xdp-"));
        if is_interface && !kept.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Puts the programs for sockets on a cgroup; the old ones leave only when the new ones are there.
///
/// # Errors
/// The cgroup cannot be opened, or the kernel refuses.
pub fn put_on_cgroup(programs: &mut Programs, folder: &Path, cgroup: &Path) -> Result<()> {
    let target = File::open(cgroup).with_context(|| format!("cannot open the cgroup {}", cgroup.display()))?;
    // First what follows a socket to its end, then what gives it something to give back.
    for name in [CLOSER, FOLLOWER].into_iter().chain(HOOKS) {
        let link = on_cgroup(programs, name, &target)
            .with_context(|| format!("cannot attach {name} to {}: is it a cgroup v2 folder?", cgroup.display()))?;
        put_in_place(link, folder, name)?;
    }
    Ok(())
}

/// Puts the fence on the database's cgroup; the old one leaves only when the new one is there.
///
/// # Errors
/// The cgroup cannot be opened, or the kernel refuses.
pub(super) fn put_fence(programs: &mut Programs, folder: &Path, cgroup: &Path) -> Result<()> {
    let target = File::open(cgroup).with_context(|| format!("cannot open the cgroup {}", cgroup.display()))?;
    let program = programs.sending(FENCE)?;
    let attached = program.attach(&target, CgroupSkbAttachType::Egress, CgroupAttachMode::Single);
    let id = attached.with_context(|| format!("cannot attach the fence to {}", cgroup.display()))?;
    put_in_place(program.take_link(id)?.try_into()?, folder, FENCE_PIN)
}

/// Pins a link in the place of another one.
fn put_in_place(link: FdLink, folder: &Path, name: &str) -> Result<()> {
    let (new, pin) = (folder.join(format!("{name}-new")), folder.join(name));
    fs::remove_file(&new).ok();
    link.pin(&new).with_context(|| format!("cannot pin {}", new.display()))?;
    fs::rename(&new, &pin).with_context(|| format!("cannot pin {}", pin.display()))
}

fn on_cgroup(programs: &mut Programs, name: &str, cgroup: &File) -> Result<FdLink> {
    if name == FOLLOWER {
        let follower = programs.follower(name)?;
        let id = follower.attach(cgroup, CgroupAttachMode::Single)?;
        return Ok(follower.take_link(id)?.try_into()?);
    }
    if name == CLOSER {
        let closer = programs.closer(name)?;
        let id = closer.attach(cgroup, CgroupAttachMode::Single)?;
        return Ok(closer.take_link(id)?.try_into()?);
    }
    let hook = programs.hook(name)?;
    let id = hook.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(hook.take_link(id)?.try_into()?)
}

/// Swaps the program of a pinned link for the new one: each packet meets the one or the other.
///
/// False when the link is dead, see [`alive`].
fn replace(programs: &mut Programs, pin: &Path) -> Result<bool> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let link = XdpLink::try_from(FdLink::from(link))?;
    let program = programs.xdp("foobar")?;
    let Some(id) = alive(pin, program.attach_to_link(link))? else { return Ok(false) };
    // The pin keeps the link; only this process's handle is dropped.
    drop(program.take_link(id)?);
    Ok(true)
}

/// What a pinned link was given; `None` when it is dead, because its interface has gone: then its pin is removed.
pub(super) fn alive<T>(pin: &Path, given: std::result::Result<T, ProgramError>) -> Result<Option<T>> {
    match given {
        Ok(id) => Ok(Some(id)),
        Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOLINK) => {
            fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))?;
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot replace the program of {}", pin.display())),
    }
}

/// A link that can be pinned.
pub(super) fn fd_link(link: impl TryInto<FdLink>) -> Result<FdLink> {
    link.try_into().ok().context("the kernel gives no link that can be pinned")
}

fn attach(programs: &mut Programs, index: u32, mode: Mode) -> Result<FdLink> {
    let program = programs.xdp("foobar")?;
    let id = program.attach_to_if_index(index, mode.xdp())?;
    fd_link(program.take_link(id)?)
}

fn pin_interface(link: FdLink, folder: &Path, interface: &str, index: u32, mode: Mode) -> Result<Mode> {
    let pin = interface_pin(folder, interface, index, mode);
    link.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
    info!(interface, mode = mode.name(), "firewall attached");
    Ok(mode)
}

/// The pin of an interface's link; bpffs reserves names with dots.
///
/// A link belongs to an interface and not to its name: another interface of that name has another index.
fn interface_pin(folder: &Path, interface: &str, index: u32, mode: Mode) -> PathBuf {
    folder.join(format!("xdp-{mode}-{index}-{}", interface.replace('.', "%")))
}
