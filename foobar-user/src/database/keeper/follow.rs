//! What a replica does: it follows the leader of the state, or another replica of it, whatever it was before.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::{HURRY, Work};
use crate::database::duty::Duty;
use crate::database::state::{Members, Role};
use crate::database::store::Store;
use crate::database::upstream::{Follows, upstream};
use crate::process::postgres::Grip;

/// Time that a replica may be without its leader's log before it is asked whether their histories have parted.
const PARTED: Duration = Duration::from_secs(5);
/// Time that a server follows the leader when another replica, which it is to follow, has sent it nothing.
const SHUNNED: Duration = Duration::from_secs(60);
/// Time to reach the leader.
const REACH: Duration = Duration::from_secs(1);
/// Time that PostgreSQL has to stop in order.
const STOP: Duration = Duration::from_secs(10);

impl<S: Store> Work<S> {
    /// What a replica does in a round.
    pub(super) fn follow(&mut self, leader: &str, members: &Members) -> Result<bool> {
        self.lease = None;
        self.note = String::new();
        let Some(address) = self.address(leader) else {
            self.rest(format!("{leader} leads, which is no database server of this site file"));
            return Ok(false);
        };
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
        let leads = members.get(leader).is_some_and(|word| word.role == Role::Primary && word.epoch == self.epoch);
        let from = self.upstream(leader, members, leads);
        if self.grip.runs()
            && let Some(address) = self.address(&from)
            && self.grip.follows().is_some_and(|other| other != address)
        {
            info!(leader, from, "following another server");
            self.grip.follow(address)?;
            self.following = Instant::now();
        }
        let Some(look) = self.watcher.look().filter(|look| look.role == Role::Replica) else {
            self.fence.close();
            self.following = Instant::now();
            self.slots = None;
            return Ok(true);
        };
        self.fence.open();
        self.look_after_slots(leader, members);
        // What replays its own log lacks nothing yet.
        let replays = look.replayed > self.replayed;
        self.replayed = look.replayed;
        if look.source.is_some() {
            if std::mem::take(&mut self.doubted) {
                self.grip.trust()?;
            }
            self.following = Instant::now();
        } else if replays || !leads {
            self.following = Instant::now();
        } else if self.following.elapsed() >= PARTED && from != leader {
            warn!(from, "it streams nothing: following the leader for a while");
            self.shunned = Some(Instant::now());
        } else if self.following.elapsed() >= PARTED && self.errand.is_none() {
            warn!(leader, "it streams nothing although the leader is there: their histories may have parted");
            self.following = Instant::now();
            self.doubted = true;
            self.mend_if_reached(SocketAddr::new(address, self.socket.port), look.position);
        }
        // Who may have to take over looks often.
        Ok(false)
    }

    fn address(&self, server: &str) -> Option<IpAddr> {
        self.post.servers.iter().find(|(name, _)| name == server).map(|(_, address)| *address)
    }

    /// The server that it is to receive the log from now.
    fn upstream(&self, leader: &str, members: &Members, leads: bool) -> String {
        let shuns = self.shunned.is_some_and(|at| at.elapsed() < SHUNNED);
        let nobody = Follows::new();
        let follows = if shuns { &nobody } else { &self.post.follows };
        upstream(&self.post.me, leader, follows, members, leads).to_owned()
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
