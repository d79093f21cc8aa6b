//! The TCP stack of this network namespace: what it agrees to, and the settings by which it takes cookies that XDP gives out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use foobar_common::abi::{SYN_ECN, SYN_SACK, SYN_SCALE, SYN_TIMESTAMPS, SynSettings};

use crate::host::settings::{self, ROOT};

/// A window scale is never larger (`TCP_MAX_WSCALE`).
const MAX_SCALE: u32 = 14;

/// Has the stack give and take cookies, and remembers in `memory` what was there before.
///
/// Cookies bear a client's options in a timestamp, which the stack reads only without secret offsets (2): that is why
/// this holds for the time of a flood alone.
///
/// # Errors
/// A setting cannot be written.
pub(super) fn begin(memory: &Path) -> Result<()> {
    let mut wanted = vec![("ipv4/tcp_syncookies".to_owned(), "2")];
    if setting("ipv4/tcp_timestamps")? != 0 {
        wanted.push(("ipv4/tcp_timestamps".to_owned(), "2"));
    }
    settings::hold(wanted, memory)
}

/// What SYN-ACKs may promise in this namespace, in the way of the kernel's `cookie_timestamp_decode`.
///
/// # Errors
/// A setting cannot be read.
pub(super) fn agreed(answer: bool, half_open: u32) -> Result<SynSettings> {
    let flag = |name: &str, flag: u32| Ok::<u32, anyhow::Error>(if setting(name)? == 0 { 0 } else { flag });
    let timestamps = if setting("ipv4/tcp_timestamps")? == 2 { SYN_TIMESTAMPS } else { 0 };
    let flags = timestamps
        | flag("ipv4/tcp_sack", SYN_SACK)?
        | flag("ipv4/tcp_window_scaling", SYN_SCALE)?
        | flag("ipv4/tcp_ecn", SYN_ECN)?;
    let space = receive_space()?;
    Ok(SynSettings { answer: u32::from(answer), half_open, flags, window_scale: window_scale(space) })
}

/// The largest buffer that a socket may come to have, as `tcp_select_initial_window` takes it.
fn receive_space() -> Result<u32> {
    let buffers = text("ipv4/tcp_rmem")?;
    let largest = buffers.split_ascii_whitespace().nth(2).and_then(|last| last.parse().ok()).unwrap_or(0);
    // Only the first namespace shows this one; it holds for all.
    let shared = fs::read_to_string("/proc/sys/net/core/rmem_max").ok();
    Ok(shared.and_then(|value| value.trim().parse().ok()).unwrap_or(0).max(largest))
}

/// The scale for a buffer of so many bytes.
fn window_scale(space: u32) -> u32 {
    space.checked_ilog2().unwrap_or(0).saturating_sub(15).min(MAX_SCALE)
}

fn setting(name: &str) -> Result<u32> {
    Ok(text(name)?.trim().parse()?)
}

fn text(name: &str) -> Result<String> {
    let path = Path::new(ROOT).join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The file in which the settings of before a flood are remembered.
#[must_use]
pub(super) fn memory(run: &Path) -> PathBuf {
    run.join("flood.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_those_of_the_kernel() {
        let expected =
            [(0, 0), (65_535, 0), (65_536, 1), (131_071, 1), (6_291_456, 7), (33_554_432, 10), (u32::MAX, 14)];
        for (space, scale) in expected {
            assert_eq!(window_scale(space), scale, "{space}");
        }
    }
}
