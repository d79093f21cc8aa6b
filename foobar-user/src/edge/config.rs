//! What the agent passes to `foobar edge`: certificates as text and sockets as descriptors, so that the child opens no file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::limits;
use crate::certificates::{Pem, UpstreamPem};

/// The whole configuration of one edge process.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct EdgeConfig {
    /// Threads, each with a runtime, its own listeners and its own backend connections.
    pub(crate) workers: usize,
    /// Run although the process is root.
    pub(crate) allow_root: bool,
    /// Listening unix stream socket: every connection gets the metrics' text.
    pub(crate) metrics: RawFd,
    /// The services.
    pub(crate) services: Vec<ServiceConfig>,
}

/// One TLS service.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ServiceConfig {
    /// Label of its metrics.
    pub(crate) name: String,
    /// Public name.
    pub(crate) domain: String,
    /// Where TLS is accepted; clients may name these addresses as host.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where plain HTTP is redirected from.
    pub(crate) redirect: Vec<SocketAddr>,
    /// TLS listeners of each worker.
    pub(crate) tls_listeners: Vec<Vec<RawFd>>,
    /// Redirect listeners of each worker.
    pub(crate) redirect_listeners: Vec<Vec<RawFd>>,
    /// Public certificate and key.
    pub(crate) identity: Pem,
    /// Where backends are reached.
    pub(crate) upstream: SocketAddr,
    /// Names that backends' certificates may bear.
    pub(crate) upstream_servers: Vec<String>,
    /// mTLS to the backends; `None`: plain HTTP.
    pub(crate) upstream_tls: Option<UpstreamPem>,
}

/// Reads the configuration from an inherited descriptor, which is closed thereafter.
pub(crate) fn read(descriptor: RawFd) -> anyhow::Result<EdgeConfig> {
    let mut file = File::from(inherit(descriptor).context("`foobar edge` is started by the agent, not by hand")?);
    // A pipe cannot seek; a memfd may have been read by a process before us.
    let _ = file.seek(SeekFrom::Start(0));
    let mut text = Vec::new();
    file.take(limits::CONFIG_BYTES).read_to_end(&mut text).context("read the configuration from the agent")?;
    serde_json::from_slice(&text).context("the agent's configuration is not what this version of foobar understands")
}

/// Takes ownership of a descriptor that the parent passed, and keeps it from our own children.
pub(crate) fn inherit(descriptor: RawFd) -> anyhow::Result<OwnedFd> {
    ensure!(descriptor > 2, "descriptor {descriptor} is standard input or output");
    // SAFETY: fcntl reads and writes only the descriptor's own flags; a closed number gives EBADF.
    let done = unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    ensure!(done == 0, "descriptor {descriptor} is not open: {}", std::io::Error::last_os_error());
    // SAFETY: it is open (checked above), and the configuration names every descriptor once, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
