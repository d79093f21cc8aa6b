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
                        let known = self.primaries.entry(service.name.clone()).or_default();
                        replaced(known, &wanted.0).iter().for_each(|gone| end_connections(&service.name, gone));
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

/// Those of the primaries of before whose server has been replaced by another one; the others are known from now on. An address whose
/// server still is the primary by another one of its addresses is no more than that.
fn replaced(known: &mut Vec<Member>, now: &[Member]) -> Vec<Member> {
    let (stay, gone) = known.drain(..).partition(|old| now.iter().any(|member| member.server == old.server));
    *known = stay;
    for member in now {
        if !known.iter().any(|old| old.address == member.address) {
            known.push(member.clone());
        }
    }
    gone
}

/// Ends what local programs have open to a primary that another one has replaced: it may be gone without a word.
fn end_connections(service: &str, gone: &Member) {
    match sockets::end_connections_to(gone.address) {
        Ok(0) => {}
        Ok(ended) => info!(service, server = gone.server, ended, "connections to the primary of before are ended"),
        Err(error) => warn!(service, server = gone.server, "programs wait for the primary of before: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_is_replaced_by_another_server_alone() {
        let member =
            |server: &str, end: &str| Member { server: server.into(), address: end.parse().unwrap(), weight: 1 };
        let (v4, v6) = (member("db1", "10.0.1.31:5432"), member("db1", "[fd00:1::31]:5432"));
        let mut known = Vec::new();
        assert!(replaced(&mut known, &[v4.clone(), v6.clone()]).is_empty());
        assert!(replaced(&mut known, std::slice::from_ref(&v6)).is_empty());
        let other = member("db2", "10.0.1.32:5432");
        assert_eq!(replaced(&mut known, std::slice::from_ref(&other)), [v4, v6]);
        assert_eq!(known, [other]);
    }
}
