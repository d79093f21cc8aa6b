//! The members of services as health sees them, on their way into the kernel's tables.

use std::collections::BTreeMap;

use tracing::{error, info, warn};

use crate::datapath::Datapath;
use crate::health::{Duty, HealthState, Member, Status as Verdict};
use crate::host::sockets;
use crate::plan::Select;

/// What a service was last given: members, and servers whose flows end.
type Written = (Vec<Member>, Vec<String>);

/// What was last written for each service.
#[derive(Debug, Default)]
pub(super) struct Members {
    written: BTreeMap<String, Written>,
    /// The primaries that services led to last.
    primaries: BTreeMap<String, Vec<Member>>,
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
            let disabled = service.backends.iter().filter(|backend| backend.order.duty == Duty::Disabled);
            let disabled: Vec<String> = disabled.map(|backend| backend.server.clone()).collect();
            let wanted = (members, disabled);
            if self.written.get(&service.name) == Some(&wanted) {
                continue;
            }
            match datapath.set_members(&service.name, &wanted.0, &wanted.1) {
                Ok(()) => {
                    if service.select == Select::Primary && !wanted.0.is_empty() {
                        let before = self.primaries.insert(service.name.clone(), wanted.0.clone());
                        end_connections(&service.name, &before.unwrap_or_default(), &wanted.0);
                    }
                    self.written.insert(service.name.clone(), wanted);
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

/// Ends what local programs have open to a primary that another one has replaced: it may be gone without a word.
fn end_connections(service: &str, before: &[Member], now: &[Member]) {
    for gone in before.iter().filter(|old| !now.iter().any(|member| member.address == old.address)) {
        match sockets::end_connections_to(gone.address) {
            Ok(0) => {}
            Ok(ended) => info!(service, server = gone.server, ended, "connections to the primary of before are ended"),
            Err(error) => warn!(service, server = gone.server, "programs wait for the primary of before: {error:#}"),
        }
    }
}
