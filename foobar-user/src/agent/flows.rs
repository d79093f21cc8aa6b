//! How full the flow tables are: counted in a thread of its own now and then, told at every scrape.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::datapath::Datapath;

/// Age at which the count is made anew.
const AGE_MAX: Duration = Duration::from_secs(5);

/// The last count.
#[derive(Debug, Default)]
pub(super) struct FlowCount(Mutex<Count>);

#[derive(Debug, Default)]
struct Count {
    entries: [u64; 2],
    begun: Option<Instant>,
    counting: bool,
}

impl FlowCount {
    /// Entries of the IPv4 and the IPv6 table at the last count; begins another when that is old.
    pub(super) fn latest(self: &Arc<Self>, datapath: &Datapath) -> [u64; 2] {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = count.begun.is_some_and(|begun| begun.elapsed() < AGE_MAX);
        if !fresh && !count.counting {
            match datapath.flow_tables() {
                Ok(tables) => {
                    (count.begun, count.counting) = (Some(Instant::now()), true);
                    let this = Arc::clone(self);
                    thread::spawn(move || this.store(tables.count()));
                }
                Err(error) => warn!("the flow tables cannot be counted: {error:#}"),
            }
        }
        count.entries
    }

    fn store(&self, (ipv4, ipv6): (u64, u64)) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (count.entries, count.counting) = ([ipv4, ipv6], false);
    }
}
