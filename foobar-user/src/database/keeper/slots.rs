//! Slots of the other servers: each server keeps the log that they lack, whoever they receive it from now.
//!
//! A slot that nobody uses is moved along by what its server says. So whoever loses the server that it follows finds all it lacks
//! at any other, and a slot that was left behind holds back neither the log nor the clean-up of old rows.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{STATEMENT, Work};
use crate::database::state::{Members, Role};
use crate::database::store::Store;
use crate::process::postgres::slot;

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
        let statements = statements(&self.others, &of, |name| {
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
fn statements(others: &BTreeSet<String>, of: &BTreeSet<String>, has: impl Fn(&str) -> Option<u64>) -> String {
    let names = |servers: Vec<&String>| {
        let quoted: Vec<String> = servers.iter().map(|server| format!("'{}'", slot(server))).collect();
        format!("array[{}]::name[]", quoted.join(", "))
    };
    let (reached, positions): (Vec<&String>, Vec<String>) = of
        .iter()
        .filter_map(|server| Some((server, has(server)?)))
        .map(|(server, position)| (server, format!("'{:X}/{:X}'", position >> 32, position & u64::from(u32::MAX))))
        .unzip();
    let (positions, reached) = (positions.join(", "), names(reached));
    let (gone, wanted) = (names(others.difference(of).collect()), names(of.iter().collect()));
    format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
           where slot_type = 'physical' and not active and (slot_name = any({gone}) \
             or slot_name = any({reached}) and (xmin is not null or wal_status = 'lost')); \
         select pg_create_physical_replication_slot(name, true) from unnest({wanted}) as wanted (name) \
           where not exists (select from pg_replication_slots where slot_name = name); \
         select pg_replication_slot_advance(slot_name, position) from pg_replication_slots \
           join unnest({reached}, array[{positions}]::pg_lsn[]) as reached (name, position) on slot_name = name \
           where slot_type = 'physical' and not active and restart_lsn < position"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_is_named_where_it_belongs() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let said = statements(&set(&["db1", "db-3"]), &set(&["db-3"]), |_| Some((5 << 32) + 0xab));
        for part in [
            "slot_name = any(array['db1']::name[]) or slot_name = any(array['db_3']::name[])",
            "from unnest(array['db_3']::name[]) as wanted",
            "join unnest(array['db_3']::name[], array['5/AB']::pg_lsn[])",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(statements(&set(&["db1"]), &set(&["db1"]), |_| None).contains("array[]::pg_lsn[]"));
    }
}
