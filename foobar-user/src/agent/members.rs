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
    /// A service of whose backends none has been judged yet keeps the members that an earlier agent left.
    pub(super) fn follow(&mut self, state: &HealthState, datapath: &mut Datapath) {
        for service in &state.services {
            if service.backends.iter().all(|backend| backend.status == Verdict::Unknown) {
                continue;
            }
            let members = service.members();
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
