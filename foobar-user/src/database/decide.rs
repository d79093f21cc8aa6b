//! What a server does next by what it knows: a pure function, so that every order of events can be tried.

use std::time::Duration;

use super::state::{Members, Role, State};

/// Time after which PostgreSQL that does not answer is given up, if another server may take over.
pub const HUNG: Duration = Duration::from_secs(2);
/// Time that the best of several candidates has before another one takes the lease.
const PRECEDENCE: Duration = Duration::from_secs(1);
/// Time that others have to take a lease that was given up, before who gave it up takes it again.
const TURN: Duration = Duration::from_secs(5);

/// What a server knows about its own PostgreSQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Identifier of the cluster in its data folder.
    pub cluster: Option<u64>,
    /// What it is, as it said last.
    pub role: Role,
    /// Where its log ends.
    pub position: u64,
    /// How long it has not answered; zero while it does.
    pub silent: Duration,
}

/// Everything that is decided by.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// This server.
    pub me: &'a str,
    /// All database servers of the site, this one among them.
    pub servers: &'a [String],
    /// The one that makes the cluster.
    pub first: &'a str,
    /// How long a lease lasts.
    pub ttl: Duration,
    /// What is kept; `None`: nothing.
    pub state: Option<&'a State>,
    /// For how long this server has seen its version unchanged.
    pub unchanged: Duration,
    /// What servers said lately; who was silent for long is not in here.
    pub members: &'a Members,
    /// This server's PostgreSQL.
    pub own: Own,
    /// The last epoch that this server knows of, and its leader; 0 when it knows none.
    pub remembered: (u64, &'a str),
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, for this reason.
    Wait(String),
    /// PostgreSQL must not run on its data here, for this reason.
    Refuse(String),
    /// Lead: renew the lease with this state, the present one or a changed one.
    Renew(State),
    /// Take the lease with this state, which begins a new epoch.
    Take(State),
    /// Give the lease up: fence, kill, and put in this state.
    GiveUp(State),
    /// Hand it over in order: fence, stop, and put in this state when the successor has the whole log.
    HandOver {
        /// Who takes it.
        to: String,
    },
    /// Follow this server.
    Follow(String),
}

/// Decides.
#[must_use]
pub fn decide(view: &View<'_>) -> Step {
    let (epoch, leader) = known(view);
    // A store that knows less than its servers has lost what it was told, wherever its memory comes from.
    let Some(state) = view.state.filter(|state| state.epoch >= epoch) else { return begin(view, epoch, leader) };
    if let (Some(theirs), Some(own)) = (state.cluster, view.own.cluster)
        && theirs != own
    {
        return Step::Refuse(format!(
            "the data folder holds another cluster ({own}) than the site's ({theirs}): move it away, and this server \
             copies the site's"
        ));
    }
    if state.leader == view.me { lead(view, state) } else { follow(view, state) }
}

/// The last epoch that anybody knows of, with its leader.
fn known<'v>(view: &View<'v>) -> (u64, &'v str) {
    let words = view.members.values().map(|word| (word.epoch, word.leader.as_str()));
    words.chain([view.remembered]).max().unwrap_or_default()
}

/// There is no state, or an old one: the first start of all, or the store has forgotten. Nothing is made before everybody has been
/// heard: somebody may know of more.
fn begin(view: &View<'_>, epoch: u64, leader: &str) -> Step {
    let (first, why) = if epoch > 0 {
        (leader, "it led when the store lost its state")
    } else {
        (view.first, "the site's first leader")
    };
    if let Some(missing) = view.servers.iter().find(|server| *server != view.me && !view.members.contains_key(*server))
    {
        return Step::Wait(format!("the store knows of no leader; waiting to hear from {missing} what it knows"));
    }
    if view.me != first {
        return Step::Wait(format!("the store knows of no leader; {first} leads first"));
    }
    let has_cluster = |server: &&String| view.members.get(*server).is_some_and(|word| word.cluster.is_some());
    if view.own.cluster.is_none()
        && let Some(other) = view.servers.iter().filter(|server| *server != view.me).find(has_cluster)
    {
        return Step::Wait(format!(
            "{other} has a cluster, and this server, which is to lead first, has none: say `primary = \"{other}\"` in [database]"
        ));
    }
    let lost = State { epoch, leader: leader.to_owned(), cluster: view.own.cluster, ..State::default() };
    Step::Take(lost.led_by(view.me, why))
}

fn lead(view: &View<'_>, state: &State) -> Step {
    let candidates = || state.in_sync.iter().filter(|name| is_candidate(view, name));
    if !state.held {
        return if candidates().next().is_some() && view.unchanged < TURN {
            Step::Wait("it gave the lease up; another server takes it".to_owned())
        } else {
            let again = State { held: true, handover: None, epoch: state.epoch + 1, ..state.clone() };
            Step::Take(again.with_event(format!("{} leads again: nobody else took the lease", view.me)))
        };
    }
    match &state.handover {
        None if view.own.silent >= HUNG && candidates().next().is_some() => {
            let given = State { held: false, ..state.clone() };
            Step::GiveUp(given.with_event(format!("{} gave up: its PostgreSQL does not answer", view.me)))
        }
        None => Step::Renew(state.clone()),
        // Who is stopped in order does not answer either.
        Some(to) => match candidates().find(|name| to.is_empty() || *name == to) {
            Some(to) => Step::HandOver { to: to.clone() },
            None => {
                let who = if to.is_empty() { "nobody" } else { to };
                let refused = State { handover: None, ..state.clone() };
                Step::Renew(refused.with_event(format!("no switchover: {who} is not in sync and ready")))
            }
        },
    }
}

/// Whether a server says that it could take over.
fn is_candidate(view: &View<'_>, name: &str) -> bool {
    view.members.get(name).is_some_and(|word| word.role == Role::Replica)
}

fn follow(view: &View<'_>, state: &State) -> Step {
    let free = !state.held || view.unchanged >= view.ttl;
    let follow = || Step::Follow(state.leader.clone());
    if !free || !state.in_sync.contains(view.me) || view.own.role != Role::Replica || !view.own.silent.is_zero() {
        return follow();
    }
    let since = if state.held { view.unchanged - view.ttl } else { view.unchanged };
    let wanted = |to: &&String| to.is_empty() || state.in_sync.contains(*to);
    let chosen = state.handover.as_ref().filter(wanted).filter(|to| !to.is_empty());
    let better = |name: &&String| {
        let word = &view.members[*name];
        let ahead =
            (word.position, std::cmp::Reverse(*name)) > (view.own.position, std::cmp::Reverse(&view.me.to_owned()));
        chosen.map_or(ahead, |to| to == *name)
    };
    let others = state.in_sync.iter().filter(|name| *name != view.me && is_candidate(view, name));
    let yields = chosen.is_none_or(|to| to != view.me) && others.filter(better).count() > 0;
    if yields && since < PRECEDENCE {
        return follow();
    }
    let why = match (&state.handover, state.held) {
        (Some(_), false) => format!("{} handed over", state.leader),
        (None, false) => format!("{} gave the lease up", state.leader),
        (_, true) => format!("the lease of {} is over", state.leader),
    };
    Step::Take(state.led_by(view.me, &why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::state::Member;

    const TTL: Duration = Duration::from_secs(2);

    fn servers() -> Vec<String> {
        ["db1", "db2", "db3"].map(str::to_owned).to_vec()
    }

    fn state(leader: &str, held: bool, in_sync: &[&str]) -> State {
        let in_sync = in_sync.iter().map(|name| (*name).to_owned()).collect();
        State { epoch: 3, leader: leader.into(), held, in_sync, cluster: Some(1), ..State::default() }
    }

    fn replica(position: u64) -> Member {
        let (epoch, leader) = (3, "db1".to_owned());
        Member { role: Role::Replica, position, cluster: Some(1), epoch, leader, ..Member::default() }
    }

    fn own(role: Role, position: u64) -> Own {
        Own { cluster: Some(1), role, position, silent: Duration::ZERO }
    }

    fn ask(me: &str, state: Option<&State>, unchanged_ms: u64, members: &[(&str, Member)], own: Own) -> Step {
        let members = members.iter().map(|(name, word)| ((*name).to_owned(), word.clone())).collect();
        let (servers, unchanged) = (servers(), Duration::from_millis(unchanged_ms));
        decide(&View {
            me,
            servers: &servers,
            first: "db1",
            ttl: TTL,
            state,
            unchanged,
            members: &members,
            own,
            remembered: (0, ""),
        })
    }

    fn taken_by(step: &Step) -> Option<(&str, u64)> {
        if let Step::Take(state) = step { Some((&state.leader, state.epoch)) } else { None }
    }

    #[test]
    fn the_first_start_is_the_named_servers() {
        let nothing = Own::default();
        let word = Member::default;
        let all = ["db1", "db2", "db3"].map(|server| (server, word()));
        assert_eq!(taken_by(&ask("db1", None, 0, &all, nothing)), Some(("db1", 1)));
        assert!(matches!(ask("db2", None, 60_000, &all, nothing), Step::Wait(_)));
        // Somebody has not been heard, or has a cluster: nothing is made beside it.
        assert!(matches!(ask("db1", None, 60_000, &all[..2], nothing), Step::Wait(_)));
        let made = Member { cluster: Some(9), ..word() };
        let one = [("db1", word()), ("db2", made), ("db3", word())];
        assert!(matches!(ask("db1", None, 0, &one, nothing), Step::Wait(_)));
    }

    #[test]
    fn a_store_without_memory_waits_for_everybody_and_for_the_last_leader() {
        let (db1, db2, db3) = (replica(1), replica(1), replica(1));
        let some = [("db1", db1.clone()), ("db2", db2.clone())];
        assert!(matches!(ask("db1", None, 0, &some, own(Role::Primary, 1)), Step::Wait(_)));
        let all = [("db1", db1), ("db2", db2), ("db3", db3)];
        assert_eq!(taken_by(&ask("db1", None, 0, &all, own(Role::Primary, 1))), Some(("db1", 4)));
        assert!(matches!(ask("db2", None, 0, &all, own(Role::Replica, 1)), Step::Wait(_)));
    }

    #[test]
    fn an_old_state_is_none() {
        let old = state("db1", true, &["db2"]);
        let word = |leader: &str| Member { epoch: 9, leader: leader.into(), ..replica(1) };
        let all = [("db1", word("db2")), ("db2", word("db2")), ("db3", word("db2"))];
        assert!(matches!(ask("db1", Some(&old), 0, &all, own(Role::Primary, 1)), Step::Wait(_)));
        assert!(matches!(ask("db2", Some(&old), 60_000, &all[..2], own(Role::Replica, 1)), Step::Wait(_)));
        assert_eq!(taken_by(&ask("db2", Some(&old), 0, &all, own(Role::Primary, 1))), Some(("db2", 10)));
    }

    #[test]
    fn the_lease_is_taken_when_it_is_over_and_not_before() {
        let state = state("db1", true, &["db2"]);
        for (unchanged_ms, taken) in [(0, false), (1_999, false), (2_000, true)] {
            let step = ask("db2", Some(&state), unchanged_ms, &[], own(Role::Replica, 5));
            assert_eq!(taken_by(&step), taken.then_some(("db2", 4)), "{unchanged_ms}");
        }
        // Not in sync, not a replica, or silent: never.
        for (me, own) in [
            ("db3", own(Role::Replica, 5)),
            ("db2", own(Role::Down, 5)),
            ("db2", own(Role::Primary, 5)),
            ("db2", Own { silent: Duration::from_millis(1), ..own(Role::Replica, 5) }),
        ] {
            assert_eq!(ask(me, Some(&state), 60_000, &[], own), Step::Follow("db1".into()), "{me} {own:?}");
        }
    }

    #[test]
    fn the_most_advanced_comes_first_and_another_one_later() {
        let state = state("db1", true, &["db2", "db3"]);
        let db3 = [("db3", replica(7))];
        assert_eq!(ask("db2", Some(&state), 2_500, &db3, own(Role::Replica, 5)), Step::Follow("db1".into()));
        assert!(taken_by(&ask("db2", Some(&state), 3_000, &db3, own(Role::Replica, 5))).is_some());
        assert!(taken_by(&ask("db2", Some(&state), 2_000, &db3, own(Role::Replica, 8))).is_some());
        // As far as each other: the first by name.
        assert!(taken_by(&ask("db2", Some(&state), 2_000, &db3, own(Role::Replica, 7))).is_some());
        let db2 = [("db2", replica(7))];
        assert_eq!(ask("db3", Some(&state), 2_000, &db2, own(Role::Replica, 7)), Step::Follow("db1".into()));
    }

    #[test]
    fn a_leader_that_hangs_gives_up_when_somebody_can_take_over() {
        let state = state("db1", true, &["db2"]);
        let hung = Own { silent: HUNG, ..own(Role::Primary, 5) };
        let ready = [("db2", replica(5))];
        assert!(matches!(ask("db1", Some(&state), 0, &ready, hung), Step::GiveUp(State { held: false, .. })));
        assert!(matches!(ask("db1", Some(&state), 0, &[], hung), Step::Renew(_)));
        assert!(matches!(ask("db1", Some(&state), 0, &ready, own(Role::Primary, 5)), Step::Renew(_)));
    }

    #[test]
    fn what_was_given_up_is_taken_at_once_and_later_by_who_gave_it_up() {
        let state = state("db1", false, &["db2"]);
        assert_eq!(taken_by(&ask("db2", Some(&state), 0, &[], own(Role::Replica, 5))), Some(("db2", 4)));
        let ready = [("db2", replica(5))];
        assert!(matches!(ask("db1", Some(&state), 4_999, &ready, own(Role::Down, 5)), Step::Wait(_)));
        assert_eq!(taken_by(&ask("db1", Some(&state), 5_000, &ready, own(Role::Down, 5))), Some(("db1", 4)));
        assert_eq!(taken_by(&ask("db1", Some(&state), 0, &[], own(Role::Down, 5))), Some(("db1", 4)));
    }

    #[test]
    fn a_switchover_goes_to_who_is_in_sync_and_is_refused_otherwise() {
        let wanted = |to: &str| State { handover: Some(to.into()), ..state("db1", true, &["db2"]) };
        let ready = [("db2", replica(5))];
        let leader = own(Role::Primary, 5);
        let to_db2 = Step::HandOver { to: "db2".into() };
        assert_eq!(ask("db1", Some(&wanted("")), 0, &ready, leader), to_db2);
        assert_eq!(ask("db1", Some(&wanted("db2")), 0, &ready, leader), to_db2);
        let stopped = Own { silent: HUNG, ..leader };
        assert_eq!(ask("db1", Some(&wanted("db2")), 0, &ready, stopped), to_db2);
        for (to, ready) in [("db3", &ready[..]), ("db2", &[])] {
            assert!(matches!(
                ask("db1", Some(&wanted(to)), 0, ready, leader),
                Step::Renew(State { handover: None, .. })
            ));
        }
    }

    #[test]
    fn the_chosen_successor_comes_before_one_that_is_further() {
        let chosen = State { handover: Some("db3".into()), ..state("db1", false, &["db2", "db3"]) };
        let (db2, db3) = ([("db2", replica(9))], [("db3", replica(5))]);
        assert_eq!(ask("db2", Some(&chosen), 0, &db3, own(Role::Replica, 9)), Step::Follow("db1".into()));
        assert!(taken_by(&ask("db3", Some(&chosen), 0, &db2, own(Role::Replica, 5))).is_some());
    }

    #[test]
    fn a_foreign_cluster_is_refused() {
        let state = state("db1", true, &["db2"]);
        let foreign = Own { cluster: Some(2), ..own(Role::Replica, 5) };
        assert!(matches!(ask("db2", Some(&state), 0, &[], foreign), Step::Refuse(_)));
        assert!(matches!(ask("db1", Some(&state), 0, &[], foreign), Step::Refuse(_)));
    }
}
