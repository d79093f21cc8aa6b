//! What a replica does: it follows the leader of the state, whatever it was before.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{HURRY, Work};
use crate::database::duty::Duty;
use crate::database::state::{Members, Role};
use crate::database::store::Store;
use crate::process::postgres::Grip;

/// Time that a replica may be without its leader's log before it is asked whether their histories have parted.
const PARTED: Duration = Duration::from_secs(5);

/// Time to reach the leader.
const REACH: Duration = Duration::from_secs(1);
/// Time that PostgreSQL has to stop in order.
const STOP: Duration = Duration::from_secs(10);

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
        // What replays its own log lacks nothing yet.
        let replays = look.position > self.position;
        self.position = look.position;
        if look.receiving {
            if std::mem::take(&mut self.doubted) {
                self.grip.trust()?;
            }
            self.following = Instant::now();
        } else if replays || !leads {
            self.following = Instant::now();
        } else if self.following.elapsed() >= PARTED && self.errand.is_none() {
            warn!(leader, "it streams nothing although the leader is there: their histories may have parted");
            self.following = Instant::now();
            self.doubted = true;
            self.mend_if_reached(SocketAddr::new(address, self.socket.port), look.position);
        }
        // Who may have to take over looks often.
        Ok(false)
    }

    /// Stops it to be rewound, or copied anew where a rewind has not helped; not while the leader cannot be reached, for then nothing
    /// could be mended, and it may have to take over.
    fn mend_if_reached(&mut self, leader: SocketAddr, position: u64) {
        let grip = self.grip.clone();
        self.send(async move {
            timeout(REACH, TcpStream::connect(leader)).await.context("the leader is not reached")??;
            grip.doubt(position)?;
            stop(&grip).await
        });
    }

    /// Its task starts it again, as its duty says then.
    fn restart_as_replica(&mut self) {
        let grip = self.grip.clone();
        self.send(async move { stop(&grip).await });
    }
}

async fn stop(grip: &Grip) -> Result<()> {
    grip.stop()?;
    let gone = async {
        while grip.runs() {
            sleep(HURRY).await;
        }
    };
    if timeout(STOP, gone).await.is_err() {
        grip.kill().await?;
    }
    Ok(())
}
