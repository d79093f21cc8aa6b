//! The edge as one of the server's processes.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use nix::sys::signal::Signal;

use super::ServerFolders;
use crate::edge::{Edge, EdgeOptions};
use crate::plan::EdgeService;
use crate::process::Spawned;

/// Name of the process in metrics and status.
pub(super) const NAME: &str = "edge";
/// Account of the edge.
const USER: &str = "nobody";
/// Time in which a stopping edge may end what is in flight, in milliseconds.
const STOP_TIMEOUT_MS: u64 = 12_000;

/// The edge's listeners, shared with the closure that starts its processes.
#[derive(Clone)]
pub(super) struct EdgeProcess(Arc<Mutex<Edge>>);

impl EdgeProcess {
    /// Reads certificates and binds listeners; starts nothing.
    ///
    /// # Errors
    /// A certificate that cannot be used, a port in use.
    pub(super) fn prepare(services: &[EdgeService], folders: &ServerFolders) -> Result<Self> {
        let options = EdgeOptions {
            user: Some(USER.to_owned()),
            cgroup: None,
            executable: PathBuf::from("/proc/self/exe"),
            metrics: folders.edge_metrics(),
        };
        Ok(Self(Arc::new(Mutex::new(Edge::prepare(services, options)?))))
    }

    /// Takes a changed plan; what runs is untouched.
    ///
    /// # Errors
    /// As `prepare`; then nothing has changed.
    pub(super) fn replan(&self, services: &[EdgeService]) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replan(services)
    }

    /// Closes the listeners that the plan does not have any more.
    pub(super) fn retire(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retire();
    }

    /// What the supervisor needs to run it.
    ///
    /// The listeners belong to this agent, so another agent's edge is never adopted but replaced.
    #[must_use]
    pub(super) fn spawned(&self, services: &[EdgeService]) -> Spawned {
        let edge = Arc::clone(&self.0);
        Spawned {
            name: NAME.to_owned(),
            fingerprint: fingerprint(services),
            stop_signal: Signal::SIGTERM,
            stop_timeout_ms: STOP_TIMEOUT_MS,
            spawn: Box::new(move || edge.lock().unwrap_or_else(PoisonError::into_inner).spawn()),
        }
    }
}

/// Changes with the agent, the plan, and the contents of the certificates.
fn fingerprint(services: &[EdgeService]) -> String {
    let mut hasher = DefaultHasher::new();
    std::process::id().hash(&mut hasher);
    for service in services {
        format!("{service:?}").hash(&mut hasher);
        let own = [&service.certificate, &service.key];
        let upstream = service.upstream_tls.iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]);
        for path in own.into_iter().chain(upstream) {
            fs::read(path).unwrap_or_default().hash(&mut hasher);
        }
    }
    format!("{:016x}", hasher.finish())
}
