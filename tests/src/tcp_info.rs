//! What the kernel knows of a TCP connection.

use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context, Result};

/// Options of the handshake (`tcpi_options`): place among the bytes of [`read`].
pub const OPTIONS: usize = 5;
/// Size of the segments that are sent (`tcpi_snd_mss`), in 32 bits from this place on, in the host's byte order.
pub const SEND_MSS: usize = 16;

/// The first bytes of its `struct tcp_info`.
///
/// # Errors
/// It is no TCP connection.
pub fn read<const N: usize>(stream: &impl AsFd) -> Result<[u8; N]> {
    let mut info = [0; N];
    let mut length = libc::socklen_t::try_from(N)?;
    // SAFETY: the descriptor is open, and the kernel writes no more than `length` bytes to the buffer of that many.
    let result = unsafe {
        libc::getsockopt(
            stream.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    nix::errno::Errno::result(result).context("no TCP_INFO")?;
    Ok(info)
}
