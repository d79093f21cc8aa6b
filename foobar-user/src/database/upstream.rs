//! From whom a replica receives the leader's log: another replica where the site file says so and that one is fit, else the leader.

use std::collections::BTreeMap;

use super::state::{Members, Role};

/// Whom each server follows that does not follow the leader; such a server is never waited for, and never leads.
pub type Follows = BTreeMap<String, String>;

/// Chooses it. `members` are those who were heard lately, `leads` whether the leader is there and can be written.
#[must_use]
pub(super) fn upstream<'n>(me: &str, leader: &'n str, follows: &'n Follows, members: &Members, leads: bool) -> &'n str {
    let Some(wanted) = follows.get(me) else { return leader };
    let fit = members.get(wanted).is_some_and(|word| {
        // While nobody leads nobody receives, and who is there now may be the next one.
        word.role == Role::Replica && (word.receiving || !leads)
    });
    if fit { wanted } else { leader }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::state::Member;

    fn asked(leader: &str, db2: Option<(Role, bool)>, leads: bool) -> String {
        let follows = Follows::from([("db3".to_owned(), "db2".to_owned())]);
        let word = |(role, receiving)| ("db2".to_owned(), Member { role, receiving, ..Member::default() });
        upstream("db3", leader, &follows, &db2.map(word).into_iter().collect(), leads).to_owned()
    }

    #[test]
    fn a_replica_is_followed_while_it_receives() {
        assert_eq!(asked("db1", Some((Role::Replica, true)), true), "db2");
        for unfit in [None, Some((Role::Down, false)), Some((Role::Replica, false)), Some((Role::Primary, false))] {
            assert_eq!(asked("db1", unfit, true), "db1", "{unfit:?}");
        }
        assert_eq!(asked("db2", Some((Role::Primary, false)), true), "db2", "it was promoted");
        assert_eq!(upstream("db2", "db1", &Follows::new(), &Members::new(), true), "db1");
    }

    #[test]
    fn nobody_is_left_while_nobody_leads() {
        assert_eq!(asked("db1", Some((Role::Replica, false)), false), "db2");
        assert_eq!(asked("db1", None, false), "db1");
    }
}
