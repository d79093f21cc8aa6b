//! Virtual machines: one program, run once on one of Debian's kernels under software emulation.

mod archive;
mod boot;
mod image;
mod kernel;

use std::path::Path;

use anyhow::{Context, Result};
pub(crate) use boot::Outcome;
pub(crate) use kernel::SERIES;

use crate::workspace;

/// Runs the program on the newest kernel of the series that apt lists; prints its output line by line.
///
/// # Errors
/// No kernel, no emulator, or the machine ended without telling the program's exit code.
pub(crate) fn run(series: &str, program: &Path, arguments: &[String]) -> Result<Outcome> {
    let kernel = kernel::newest(series)?;
    let image = workspace::target().join(format!("kernels/{}.initramfs", kernel.package));
    image::build(&kernel, program, arguments)
        .and_then(|archive| std::fs::write(&image, archive).context("cannot write it"))
        .with_context(|| format!("cannot make {}", image.display()))?;
    eprintln!("kernel {series}: booting {}", kernel.release);
    boot::boot(series, &kernel, &image).with_context(|| format!("kernel {series} ({})", kernel.release))
}
