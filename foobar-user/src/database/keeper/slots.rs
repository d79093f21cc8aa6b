//! Slots of the other servers: each server keeps the log that they lack, whoever they receive it from now.
//!
//! A slot that nobody uses is moved along by what its server says. So whoever loses the server that it follows finds all it lacks
//! at any other. What a server that is away has last used holds back log, up to `max_slot_wal_keep_size`, and the clean-up of old
//! rows, until it is back or no server of the site any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{STATEMENT, Work};
use crate::database::state::{Members, Role};
use crate::database::store::Store;
use crate::process::postgres::{SLOTS, slot};

/// Time between two looks at them.
const INTERVAL: Duration = Duration::from_secs(10);

/// When they were last looked after, and for whom.
#[derive(Debug)]
pub(super) struct Kept {
    at: Instant,
    of: BTreeSet<String>,
}

impl<S: Store> Work<S> {
    /// Has PostgreSQL, which answers, keep slots for all others but the leader: what that one may lack is known when another one leads.
    pub(super) fn look_after_slots(&mut self, leader: &str, members: &Members) {
        let of: BTreeSet<String> = self.others.iter().filter(|name| *name != leader).cloned().collect();
        let kept = self.slots.as_ref().is_some_and(|kept| kept.of == of && kept.at.elapsed() < INTERVAL);
        if kept || self.errand.is_some() {
            return;
        }
        let statements = statements(&of, |name| {
            let word = members.get(name).filter(|word| word.epoch == self.epoch && word.receiving);
            word.filter(|word| word.role == Role::Replica).map(|word| word.position)
        });
        self.slots = Some(Kept { at: Instant::now(), of });
        let socket = self.socket.clone();
        self.send(async move {
            // One that is taken or left just now is looked after the next time.
            if let Err(fault) = socket.run(&statements, STATEMENT).await {
                warn!("{fault:#}");
            }
            Ok(())
        });
    }
}

/// Removes slots that nobody needs, and those that only hold back what their server has got elsewhere; makes what is missing; and moves
/// on what is not in use, up to what each server has by its own word.
///
/// A new slot keeps what comes after the last checkpoint: one that holds back old rows is exchanged only for who lacks no more than that.
/// A replica moves on what it has replayed.
fn statements(of: &BTreeSet<String>, has: impl Fn(&str) -> Option<u64>) -> String {
    let wanted: Vec<String> = of.iter().map(|server| format!("'{}'", slot(server))).collect();
    let position = |at: u64| format!("'{:X}/{:X}'", at >> 32, at & u64::from(u32::MAX));
    let told = of.iter().filter_map(|server| Some((format!("'{}'", slot(server)), position(has(server)?))));
    let (reached, positions): (Vec<String>, Vec<String>) = told.unzip();
    let (wanted, reached, positions) = (wanted.join(", "), reached.join(", "), positions.join(", "));
    let (wanted, reached) = (format!("array[{wanted}]::name[]"), format!("array[{reached}]::name[]"));
    let idle = format!(
        "pg_replication_slots left join unnest({reached}, array[{positions}]::pg_lsn[]) as reached (name, position) on slot_name = name \
         where slot_type = 'physical' and not active"
    );
    format!(
        "select pg_drop_replication_slot(slot_name) from {idle} \
           and (starts_with(slot_name, '{SLOTS}') and slot_name <> all({wanted}) or position is not null and wal_status = 'lost' \
             or xmin is not null and position >= (select redo_lsn from pg_control_checkpoint())); \
         select pg_create_physical_replication_slot(name, true) from unnest({wanted}) as wanted (name) \
           where not exists (select from pg_replication_slots where slot_name = name); \
         select pg_replication_slot_advance(slot_name, position) from {idle} and restart_lsn < position \
           and (not pg_is_in_recovery() or restart_lsn <= pg_last_wal_replay_lsn())"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_named_where_it_belongs() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let said = statements(&set(&["db1", "db-3"]), |name| (name == "db-3").then_some((5 << 32) + 0xab));
        for part in [
            "slot_name <> all(array['foobar_db_3', 'foobar_db1']::name[])",
            "from unnest(array['foobar_db_3', 'foobar_db1']::name[]) as wanted",
            "join unnest(array['foobar_db_3']::name[], array['5/AB']::pg_lsn[])",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(statements(&set(&["db1"]), |_| None).contains("unnest(array[]::name[], array[]::pg_lsn[])"));
    }
}
