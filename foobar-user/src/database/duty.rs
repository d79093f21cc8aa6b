//! What a server's PostgreSQL has to be, from the keeper to the task that starts it.

use std::net::IpAddr;

use tokio::sync::watch;

/// What PostgreSQL is started as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// Not at all yet; the reason, for people.
    #[default]
    Undecided,
    /// Not now.
    Wait(String),
    /// The server that is written. It makes the cluster if it has none.
    Lead,
    /// A replica of this server.
    Follow {
        /// Its name.
        leader: String,
        /// Its address.
        address: IpAddr,
    },
}

/// Both ends of a duty.
#[derive(Clone, Debug)]
pub struct Duties {
    sender: watch::Sender<Duty>,
}

impl Default for Duties {
    fn default() -> Self {
        Self { sender: watch::Sender::new(Duty::default()) }
    }
}

impl Duties {
    /// Asks for it anew, before each start: nothing may be started by what was said before it ended.
    pub fn ask(&self) {
        self.give(Duty::Undecided);
    }

    /// Gives another duty; returns whether it was another.
    pub fn give(&self, duty: Duty) -> bool {
        self.sender.send_if_modified(|now| {
            let changed = *now != duty;
            *now = duty;
            changed
        })
    }

    /// The duty of now.
    #[must_use]
    pub fn now(&self) -> Duty {
        self.sender.borrow().clone()
    }

    /// Wakes when it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Duty> {
        self.sender.subscribe()
    }
}
