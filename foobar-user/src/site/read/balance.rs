//! How a `[service.name]` spreads connections: schedule, weights, who is spared, who steps in.

use super::eject;
use crate::plan::{Schedule, Transport};
use crate::sets::ttl;
use crate::site::model::{Balance, Forward};
use crate::site::section::{Section, nearest};
use crate::site::text;

/// Heaviest weight.
const WEIGHT_MAX: u64 = 1000;
/// Most connections of one backend: all that the flow tables hold.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// Longest affinity: what the kernel's table does not remember anyway.
const AFFINITY_S_MAX: u64 = 7 * 86_400;
/// Longest slow start.
const SLOW_START_S_MAX: u64 = 3600;

const SCHEDULES: [(&str, Schedule); 3] = [
    ("round-robin", Schedule::RoundRobin),
    ("least-connections", Schedule::LeastConnections),
    ("maglev", Schedule::Maglev),
];

pub(super) fn read(section: &mut Section<'_>, protocol: Transport, forward: Option<&Forward>) -> Balance {
    let schedule = section.parse("schedule", "a string", schedule);
    if schedule.as_ref().is_some_and(|schedule| schedule.value == Schedule::Maglev) {
        refuse_off_the_wire(
            section,
            "schedule",
            forward,
            "a local socket has no port yet when it is given a backend, so that `maglev` has nothing to go by; write \
             `round-robin` or `least-connections`, or forward by `nat` or `direct`",
        );
    }
    if section.has("affinity") {
        refuse_off_the_wire(
            section,
            "affinity",
            forward,
            "every connection of local sockets has one client, this server, so that one backend would be given all of \
             them; leave it out, or forward by `nat` or `direct`",
        );
    }
    let connections = section.integer("max_connections", 1..=CONNECTIONS_MAX).map_or(0, |number| number.value);
    let affinity_s = time(section, "affinity", AFFINITY_S_MAX);
    let slow_start_s = time(section, "slow_start", SLOW_START_S_MAX);
    let weights = section.table("weights", "{ web1 = 2, web2 = 1 }").map(|table| table.integers(0..=WEIGHT_MAX));
    let fallback = section.list("fallback", "a list of server names", text::name);
    Balance {
        schedule: schedule.map_or(Schedule::RoundRobin, |schedule| schedule.value),
        max_connections: u32::try_from(connections).unwrap_or(u32::MAX),
        affinity_s,
        slow_start_s,
        eject: eject::read(section, protocol, forward),
        weights: weights.unwrap_or_default(),
        fallback: fallback.map_or_else(Vec::new, |list| list.value),
    }
}

fn schedule(word: &str) -> Result<Schedule, String> {
    let known = SCHEDULES.iter().find(|(name, _)| *name == word);
    known.map(|(_, schedule)| *schedule).ok_or_else(|| {
        let names = SCHEDULES.map(|(name, _)| name);
        let hint = nearest(word, &names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        format!("unknown schedule `{word}`; write `round-robin`, `least-connections` or `maglev`{hint}")
    })
}

/// Refuses a key that goes by the client, where all clients are one.
fn refuse_off_the_wire(section: &Section<'_>, key: &'static str, forward: Option<&Forward>, why: &str) {
    if matches!(forward, Some(Forward::Tls(_) | Forward::Socket)) {
        section.faults.error(section.place(key), format!("`{key}` in {}: {why}", section.title));
    }
}

/// Seconds; 0 when it is absent.
pub(super) fn time(section: &mut Section<'_>, key: &'static str, longest_s: u64) -> u32 {
    let read = |text: &str| match ttl::parse(text)?.as_secs() {
        seconds if seconds > longest_s => {
            let longest = ttl::format(std::time::Duration::from_secs(longest_s));
            Err(format!("`{text}` is longer than {longest}, which is the limit"))
        }
        seconds => Ok(u32::try_from(seconds).unwrap_or(u32::MAX)),
    };
    section.parse(key, "a time such as \"30s\"", read).map_or(0, |time| time.value)
}
