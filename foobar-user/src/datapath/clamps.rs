//! Links that hold the bound of segment sizes to interfaces: backends of tunnels announce what fits into one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions, TcAttachType};

use super::links;
use super::programs::{CLAMP, Programs};

/// Beginning of a pin's name.
const PIN: &str = "clamp-";

/// Puts the program on the way out of exactly these interfaces.
///
/// # Errors
/// An interface does not exist, or the kernel is older than Linux 6.6.
pub(super) fn put(programs: &mut Programs, folder: &Path, interfaces: &[String]) -> Result<()> {
    let mut kept = Vec::new();
    for interface in interfaces {
        let pin = pin(folder, interface)?;
        if !pin.exists() || !replace(programs, &pin)? {
            attach(programs, interface)?.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        }
        kept.push(pin);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let is_one = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PIN));
        if is_one && !kept.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The pin of an interface's link; see [`links`].
fn pin(folder: &Path, interface: &str) -> Result<PathBuf> {
    Ok(folder.join(format!("{PIN}{}-{}", links::index(interface)?, interface.replace('.', "%"))))
}

/// Swaps the program of a pinned link; false when it is dead, see [`links::alive`].
fn replace(programs: &mut Programs, pin: &Path) -> Result<bool> {
    let link = PinnedLink::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    let link = SchedClassifierLink::try_from(FdLink::from(link))?;
    let program = programs.leaving(CLAMP)?;
    let Some(id) = links::alive(pin, program.attach_to_link(link))? else { return Ok(false) };
    // The pin keeps the link; only this process's handle is dropped.
    drop(program.take_link(id)?);
    Ok(true)
}

fn attach(programs: &mut Programs, interface: &str) -> Result<FdLink> {
    let program = programs.leaving(CLAMP)?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Egress, order)?;
    links::fd_link(program.take_link(id)?)
}
