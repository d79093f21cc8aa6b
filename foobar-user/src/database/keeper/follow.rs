//! What a replica does: it follows the leader of the state, whatever it was before.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{HURRY, Work};
use crate::database::duty::Duty;
use crate::database::state::{Members, Role};
use crate::database::store::Store;

/// Time that a replica may be without its leader's log before it is asked whether their histories have parted.
const PARTED: Duration = Duration::from_secs(5);

impl<S: Store> Work<S> {
    /// What a replica does in a round.
    pub(super) fn follow(&mut self, leader: &str, members: &Members) -> Result<bool> {
        self.lease = None;
        self.note = String::new();
        let Some((_, address)) = self.post.servers.iter().find(|(name, _)| name == leader) else {
            self.rest(format!("{leader} leads, which is no database server of this site file"));
            return Ok(false);
        };
        let address = *address;
        self.duties.give(Duty::Follow { leader: leader.to_owned(), address });
        if self.grip.runs_as_leader() {
            self.fence.close();
            if self.errand.is_some() {
                return Ok(true);
            }
            warn!(leader, "another server leads: PostgreSQL is killed here, to start again as its replica");
            let grip = self.grip.clone();
            self.send(async move { grip.kill().await });
            return Ok(true);
        }
        if self.grip.runs() && self.grip.follows().is_some_and(|other| other != address) {
            if self.errand.is_none() {
                info!(leader, "following another leader");
                self.restart_as_replica();
            }
            return Ok(true);
        }
        let Some(look) = self.watcher.look().filter(|look| look.role == Role::Replica) else {
            self.fence.close();
            self.following = Instant::now();
            return Ok(true);
        };
        self.fence.open();
        let leads = members.get(leader).is_some_and(|word| word.role == Role::Primary && word.epoch == self.epoch);
        if look.receiving || !leads {
            self.following = Instant::now();
        } else if self.following.elapsed() >= PARTED {
            warn!(leader, "it streams nothing although the leader is there: their histories may have parted");
            self.following = Instant::now();
            self.grip.doubt()?;
            self.restart_as_replica();
        }
        // Who may have to take over looks often.
        Ok(false)
    }

    /// Its task starts it again, as its duty says then.
    fn restart_as_replica(&mut self) {
        let grip = self.grip.clone();
        self.send(async move {
            grip.stop()?;
            let gone = async {
                while grip.runs() {
                    sleep(HURRY).await;
                }
            };
            if timeout(Duration::from_secs(10), gone).await.is_err() {
                grip.kill().await?;
            }
            Ok(())
        });
    }
}
