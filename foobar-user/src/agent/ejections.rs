//! The task that has health know, soon, which backends take no connections.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::server::{Shared, lock};
use crate::datapath::Datapath;
use crate::datapath::load::Place;
use crate::health::{Failures, Health};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// Looks until it is aborted.
///
/// # Errors
/// No plan has been in force yet.
pub(super) fn watch(datapath: Shared<Datapath>, health: Shared<Health>) -> Result<AbortHandle> {
    let failures = lock(&datapath).failures()?;
    let watch = async move {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut places, mut generation): (Vec<(u32, Place)>, _) = (Vec::new(), None);
        loop {
            look.tick().await;
            // While a plan is on its way into force, those of the plan before are looked at.
            if let Ok(datapath) = datapath.try_lock()
                && generation != Some(datapath.generation())
            {
                (places, generation) = (datapath.places().into_iter().collect(), Some(datapath.generation()));
            }
            let rows: Vec<Failures<'_>> = places
                .iter()
                .map(|(slot, place)| Failures {
                    service: &place.service,
                    server: &place.server,
                    address: place.endpoint,
                    row: failures.row(*slot),
                })
                .collect();
            lock(&health).look_at_failures(&rows, Instant::now());
        }
    };
    Ok(tokio::spawn(watch).abort_handle())
}
