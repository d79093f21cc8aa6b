//! Events of the packet path on their way to who watches: one reader of the kernel's ring, as many watchers as there are.
//!
//! While nobody watches, the kernel tells only what rules log, and what is read is thrown away. A watcher that is too slow
//! loses the oldest events, and is told how many.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Events that a watcher may be behind.
const BACKLOG: usize = 4096;

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// A packet.
    Event(Box<Event>),
    /// So many events could not be told, because this watcher was too slow.
    LostByWatcher(u64),
    /// So many events could not be told, because the kernel's buffer was full.
    LostByKernel(u64),
}

/// One packet that a rule logs, or that was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// `drop`, `pass`, `forward`; `would drop` by a shadow rule.
    pub verdict: String,
    /// The rule that decided, if one did.
    pub rule: Option<String>,
    /// Label of the reason.
    pub reason: String,
    /// Interface by which it came.
    pub interface: String,
    /// IANA protocol number; `None`: the headers could not be read.
    pub protocol: Option<u8>,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Source port; 0 where the protocol has none.
    pub source_port: u16,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// TCP flags, or type of ICMP.
    pub detail: u8,
    /// Length of the frame in bytes.
    pub length: u32,
}

/// Tells the packet path whether somebody watches.
pub(super) type SetWatched = Box<dyn Fn(bool) + Send>;

/// Where events are handed on.
#[derive(Clone, Debug)]
pub(super) struct Events {
    sender: broadcast::Sender<Told>,
    watchers: Arc<Mutex<Watchers>>,
}

struct Watchers {
    count: usize,
    set_watched: SetWatched,
}

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchers").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Watchers {
    fn change(&mut self, by: isize) {
        let before = self.count;
        self.count = before.saturating_add_signed(by);
        if (before == 0) != (self.count == 0) {
            (self.set_watched)(self.count > 0);
        }
    }
}

impl Events {
    /// No watcher yet.
    pub(super) fn new(set_watched: SetWatched) -> Self {
        let (sender, _) = broadcast::channel(BACKLOG);
        Self { sender, watchers: Arc::new(Mutex::new(Watchers { count: 0, set_watched })) }
    }

    /// Tells the packet path again: programs that were loaded anew know of no watcher.
    pub(super) fn tell_watched(&self) {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.count > 0 {
            (watchers.set_watched)(true);
        }
    }

    /// Whether anybody listens.
    pub(super) fn are_wanted(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Hands on; that nobody listens is no fault.
    pub(super) fn tell(&self, told: Told) {
        drop(self.sender.send(told));
    }

    /// What is told from now on; of one rule only, if it is named.
    pub(super) fn subscribe(&self, rule: Option<String>) -> Subscription {
        let receiver = self.sender.subscribe();
        change(&self.watchers, 1);
        Subscription { receiver, rule, watchers: Arc::clone(&self.watchers) }
    }
}

fn change(watchers: &Mutex<Watchers>, by: isize) {
    watchers.lock().unwrap_or_else(PoisonError::into_inner).change(by);
}

/// One watcher.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Told>,
    rule: Option<String>,
    watchers: Arc<Mutex<Watchers>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        change(&self.watchers, -1);
    }
}

impl Subscription {
    /// The next thing told; `None`: the agent ends.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            match self.receiver.recv().await {
                Ok(told) if self.wants(&told) => return Some(told),
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => return Some(Told::LostByWatcher(count)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, told: &Told) -> bool {
        match (told, &self.rule) {
            (Told::Event(event), Some(rule)) => event.rule.as_ref() == Some(rule),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn event(rule: &str) -> Told {
        Told::Event(Box::new(Event {
            time_ms: 0,
            verdict: "drop".to_owned(),
            rule: Some(rule.to_owned()),
            reason: "rule".to_owned(),
            interface: "eth0".to_owned(),
            protocol: Some(6),
            source: None,
            source_port: 0,
            destination: None,
            destination_port: 0,
            detail: 0,
            length: 54,
        }))
    }

    #[tokio::test]
    async fn watchers_hear_of_their_rule_only() {
        let events = Events::new(Box::new(|_| {}));
        events.tell(event("before"));
        let (mut all, mut one) = (events.subscribe(None), events.subscribe(Some("b".to_owned())));
        events.tell(event("a"));
        events.tell(event("b"));
        assert_eq!((all.next().await, all.next().await), (Some(event("a")), Some(event("b"))));
        assert_eq!(one.next().await, Some(event("b")));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_lost() {
        let events = Events::new(Box::new(|_| {}));
        let mut slow = events.subscribe(None);
        for _ in 0..BACKLOG + 10 {
            events.tell(event("a"));
        }
        assert_eq!(slow.next().await, Some(Told::LostByWatcher(10)));
        assert_eq!(slow.next().await, Some(event("a")));
    }

    #[test]
    fn the_packet_path_is_told_of_the_first_and_of_the_last_watcher() {
        let (on, off) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&on), Arc::clone(&off));
        let events = Events::new(Box::new(move |watched| {
            let count = if watched { &counts.0 } else { &counts.1 };
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let first = events.subscribe(None);
        drop(events.subscribe(None));
        assert_eq!((on.load(Ordering::Relaxed), off.load(Ordering::Relaxed)), (1, 0));
        drop(first);
        assert_eq!((on.load(Ordering::Relaxed), off.load(Ordering::Relaxed)), (1, 1));
    }
}
