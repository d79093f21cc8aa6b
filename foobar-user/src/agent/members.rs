//! The members of services as health sees them, on their way into the kernel's tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tracing::error;

use crate::datapath::Datapath;
use crate::health::HealthState;
use crate::health::Status as Verdict;

/// What was last written for each service.
#[derive(Debug, Default)]
pub(super) struct Members {
    written: BTreeMap<String, Vec<(String, SocketAddr)>>,
}

impl Members {
    /// Writes what has changed.
    ///
    /// While a backend has not been judged yet, a service keeps the members that it has.
    pub(super) fn follow(&mut self, state: &HealthState, datapath: &mut Datapath) {
        for service in &state.services {
            let members = service.members();
            let judged = service.backends.iter().all(|backend| backend.status != Verdict::Unknown);
            if !judged && (members.is_empty() || datapath.has_members(&service.name)) {
                continue;
            }
            if self.written.get(&service.name) == Some(&members) {
                continue;
            }
            match datapath.set_members(&service.name, &members) {
                Ok(()) => {
                    self.written.insert(service.name.clone(), members);
                }
                Err(error) => error!(service = service.name, "cannot write the members of a service: {error:#}"),
            }
        }
    }

    /// Forgets what was written: after a new plan everything is written again.
    pub(super) fn forget(&mut self) {
        self.written.clear();
    }
}
