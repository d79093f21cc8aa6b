//! The parent's listening sockets: one for each address and worker (`SO_REUSEPORT`), kept open while edges come and go.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use super::limits;

/// Descriptors that are passed on are at or above this number, so that descriptor 3 is never one of them.
const LOWEST_PASSED: i32 = 10;

/// The sockets of one address, one for each worker.
pub(crate) fn bind_all(address: SocketAddr, workers: usize) -> anyhow::Result<Vec<OwnedFd>> {
    (0..workers).map(|_| bind_one(address).map_err(|error| explain(address, error))).collect()
}

fn bind_one(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(limits::LISTEN_BACKLOG)?)?;
    raise(&socket)
}

/// A copy of a descriptor with a number that is free for passing on.
pub(crate) fn raise(descriptor: &impl AsRawFd) -> nix::Result<OwnedFd> {
    // SAFETY: fcntl only allocates a new descriptor for an open one.
    let raised = Errno::result(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LOWEST_PASSED) })?;
    // SAFETY: the kernel has just made it, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raised) })
}

fn explain(address: SocketAddr, error: Errno) -> anyhow::Error {
    let advice = match error {
        Errno::EADDRINUSE => {
            format!(
                "another program listens there; `ss -ltnp sport = :{}` shows which; stop it or change `listen`",
                address.port()
            )
        }
        Errno::EADDRNOTAVAIL => {
            format!("this server does not hold {}; the agent adds VIPs before the edge starts", address.ip())
        }
        Errno::EACCES => "ports below 1024 need root; start the agent as root".to_owned(),
        _ => return anyhow!(error).context(format!("cannot listen on {address}")),
    };
    anyhow!("cannot listen on {address}: {}: {advice}", error.desc())
}

/// A unix listener at `path` for the metrics; a socket left there is replaced.
pub(crate) fn bind_metrics(path: &std::path::Path) -> anyhow::Result<OwnedFd> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let what = || format!("cannot listen for the edge's metrics at {}", path.display());
    if std::fs::symlink_metadata(path).is_ok_and(|old| old.file_type().is_socket()) {
        std::fs::remove_file(path).with_context(what)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path).with_context(what)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(what)?;
    raise(&listener).with_context(what)
}
