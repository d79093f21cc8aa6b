//! How a leader hands over: in order, with its clients told, and not before its successor has the whole log.

use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::info;

use super::{RENEW, Work};
use crate::database::duty::Duty;
use crate::database::state::{Members, State};
use crate::database::store::Store;

/// Time that a switchover may take.
const HANDOVER: Duration = Duration::from_secs(10);

impl<S: Store> Work<S> {
    /// Stops PostgreSQL in order, with its clients told, and lets the lease go when the successor has the whole log.
    pub(super) async fn hand_over(&mut self, to: &str, members: &Members) -> Result<bool> {
        let Some(state) = self.sight.snapshot.state.clone() else { return Ok(true) };
        let began = *self.handover.get_or_insert_with(Instant::now);
        if self.grip.runs() {
            if self.duties.give(Duty::Wait(format!("handing over to {to}"))) {
                info!(to, "handing over");
                self.grip.stop()?;
            }
        } else if let Some(end) = self.grip.end().await {
            self.fence.close();
            if members.get(to).is_some_and(|word| word.position >= end) {
                let given = State { held: false, handover: Some(to.to_owned()), ..state };
                self.swap(given.with_event(format!("{} hands over to {to}", self.post.me))).await?;
                self.lease = None;
                return Ok(true);
            }
        }
        if began.elapsed() >= HANDOVER {
            let kept =
                State { handover: None, ..state }.with_event(format!("no switchover: {to} did not get the whole log"));
            self.swap(kept).await?;
            self.duties.give(Duty::Lead);
        } else if self.lease.is_none_or(|lease| lease.renewed.elapsed() >= RENEW) {
            self.swap(state).await?;
        }
        Ok(true)
    }
}
