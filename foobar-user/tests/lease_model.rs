//! The lease against chance: three servers, their clocks, pauses, cuts and deaths, and a store that answers late or not at all.
//!
//! Every decision about the lease is the real one; time, network, PostgreSQL and who is in sync are a model. Whatever happens, two servers are never open to
//! writers at once, and who leads has everything that was ever acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use foobar_user::database::Snapshot;
use foobar_user::database::decide::{Own, Step, View, decide};
use foobar_user::database::state::{Member, Role, State};
use proptest::prelude::*;

const SERVERS: [&str; 3] = ["db1", "db2", "db3"];
const TTL_MS: u64 = 2_000;
const MARGIN_MS: u64 = TTL_MS / 8;
/// A step of the model.
const STEP_MS: u64 = 50;
/// A member's word is old after this.
const HEARD_MS: u64 = 1_500;

/// What chance does to one server for a while.
#[derive(Clone, Copy, Debug)]
enum Chance {
    /// Its agent does not run; PostgreSQL and the kernel go on.
    AgentPaused,
    /// Its questions do not reach the store.
    CutOut,
    /// The store does what it asks, and the answers are lost.
    CutIn,
    /// PostgreSQL is dead.
    Dead,
    /// PostgreSQL does not reach the others: nobody replicates from or to it.
    Apart,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    server: usize,
    chance: Chance,
    from: u64,
    until: u64,
}

#[derive(Clone, Debug, Default)]
struct Server {
    role: Role,
    /// What it has made durable.
    position: u64,
    /// The history that this is of: epochs in which it was written, by the position at which each began.
    fence_end: u64,
    /// A replica may be read, which is no matter here.
    seen: Snapshot,
    since: u64,
    heard: BTreeMap<String, (u64, u64)>,
    count: u64,
    answered: u64,
    lease_renewed: u64,
    /// Clock rate in parts of a thousand.
    rate: u64,
    remembered: (u64, String),
}

struct World {
    now: u64,
    servers: Vec<Server>,
    store: Snapshot,
    events: Vec<Event>,
    /// Up to where writers were told that it is kept.
    acknowledged: u64,
    /// Promotions that happened.
    epochs: u64,
}

impl World {
    fn new(events: Vec<Event>, rates: [u64; 3]) -> Self {
        let servers = rates.map(|rate| Server { rate, ..Server::default() }).to_vec();
        Self { now: 0, servers, store: Snapshot::default(), events, acknowledged: 0, epochs: 0 }
    }

    fn is(&self, server: usize, chance: fn(&Chance) -> bool) -> bool {
        self.events.iter().any(|event| {
            event.server == server && chance(&event.chance) && (event.from..event.until).contains(&self.now)
        })
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        for server in 0..SERVERS.len() {
            self.postgres(server);
        }
        for server in 0..SERVERS.len() {
            if !self.is(server, |chance| matches!(chance, Chance::AgentPaused)) {
                self.agent(server);
            }
        }
        self.write();
        let open: Vec<usize> = (0..SERVERS.len()).filter(|server| self.is_open(*server)).collect();
        assert!(open.len() <= 1, "at {} ms {open:?} are open at once", self.now);
    }

    fn is_open(&self, server: usize) -> bool {
        let Server { role, fence_end, .. } = &self.servers[server];
        *role == Role::Primary && self.clock(server) < *fence_end
    }

    /// The server's own clock.
    fn clock(&self, server: usize) -> u64 {
        self.now * self.servers[server].rate / 1_000
    }

    /// What is dead comes back as what it was told to be; replicas that reach the leader catch up.
    fn postgres(&mut self, server: usize) {
        if self.is(server, |chance| matches!(chance, Chance::Dead)) {
            self.servers[server].role = Role::Down;
            self.servers[server].fence_end = 0;
            return;
        }
        let Some(state) = self.servers[server].seen.state.clone() else { return };
        let leads = state.leader == SERVERS[server] && state.held;
        let own = &mut self.servers[server];
        own.answered = self.now;
        match own.role {
            Role::Down if leads => own.role = Role::Primary,
            Role::Down => own.role = Role::Replica,
            Role::Replica | Role::Primary => {}
        }
        if own.role == Role::Replica && self.reaches(server) {
            let Some(leader) = self.leader() else { return };
            // Rewound where it had more, else caught up.
            self.servers[server].position = self.servers[leader].position;
        }
    }

    /// The one that can be written by its own state, fenced or not.
    fn leader(&self) -> Option<usize> {
        let state = self.store.state.as_ref()?;
        let leader = SERVERS.iter().position(|name| *name == state.leader)?;
        (self.servers[leader].role == Role::Primary).then_some(leader)
    }

    fn reaches(&self, server: usize) -> bool {
        let apart = |server| self.is(server, |chance| matches!(chance, Chance::Apart));
        self.leader().is_some_and(|leader| !apart(server) && !apart(leader))
    }

    /// A writer writes to whoever is open, and is told when all who may take over have it.
    fn write(&mut self) {
        for (server, name) in SERVERS.iter().enumerate() {
            if !self.is_open(server) {
                continue;
            }
            assert!(
                self.servers[server].position >= self.acknowledged,
                "at {} ms {name} leads without what was acknowledged",
                self.now
            );
            self.servers[server].position += 1;
            // Whom PostgreSQL waits for is what its own agent has last put into the state.
            let waits: Vec<usize> = self.servers[server].seen.state.as_ref().map_or_else(Vec::new, |state| {
                (0..SERVERS.len()).filter(|other| state.in_sync.contains(SERVERS[*other])).collect()
            });
            let position = self.servers[server].position;
            let kept = waits.iter().all(|other| {
                let ready = self.servers[*other].role == Role::Replica && self.reaches(*other);
                if ready {
                    self.servers[*other].position = position;
                }
                ready
            });
            if kept {
                self.acknowledged = self.acknowledged.max(position);
            }
        }
    }

    fn agent(&mut self, server: usize) {
        let clock = self.clock(server);
        if self.is(server, |chance| matches!(chance, Chance::CutOut | Chance::CutIn)) {
            // Renewals may arrive although nobody hears of them.
            let seen = self.servers[server].seen.clone();
            let arrives = self.is(server, |chance| matches!(chance, Chance::CutIn));
            if arrives && let Some(state) = seen.state.filter(|state| state.held && state.leader == SERVERS[server]) {
                self.swap(seen.version, &state);
            }
            return;
        }
        self.look(server, clock);
        let own = &self.servers[server];
        let members = own
            .seen
            .members
            .iter()
            .filter(|(name, _)| own.heard.get(*name).is_some_and(|(_, at)| clock - at < HEARD_MS))
            .map(|(name, word)| (name.clone(), word.clone()))
            .collect();
        let (names, silent) = (SERVERS.map(str::to_owned), self.now - own.answered);
        let step = decide(&View {
            me: SERVERS[server],
            servers: &names,
            first: "db1",
            ttl: Duration::from_millis(TTL_MS),
            state: own.seen.state.as_ref(),
            unchanged: Duration::from_millis(clock - own.since),
            members: &members,
            own: Own {
                cluster: None,
                role: own.role,
                position: own.position,
                silent: Duration::from_millis(if silent <= STEP_MS { 0 } else { silent }),
            },
            remembered: (own.remembered.0, &own.remembered.1),
        });
        self.act(server, clock, step);
    }

    fn look(&mut self, server: usize, clock: u64) {
        let own = &mut self.servers[server];
        own.count += 1;
        let word = Member {
            count: own.count,
            epoch: own.remembered.0,
            leader: own.remembered.1.clone(),
            role: own.role,
            position: own.position,
            ..Member::default()
        };
        self.store.members.insert(SERVERS[server].to_owned(), word);
        if own.seen.version != self.store.version {
            own.since = clock;
        }
        own.seen = self.store.clone();
        for (name, word) in &own.seen.members {
            if own.heard.get(name).is_none_or(|(count, _)| *count != word.count) {
                own.heard.insert(name.clone(), (word.count, clock));
            }
        }
        if let Some(state) = &own.seen.state {
            own.remembered = (state.epoch, state.leader.clone());
        }
    }

    fn act(&mut self, server: usize, clock: u64, step: Step) {
        match step {
            Step::Wait(_) | Step::Refuse(_) => {}
            Step::Follow(_) => {
                let own = &mut self.servers[server];
                if own.role == Role::Primary {
                    (own.role, own.fence_end) = (Role::Down, 0);
                }
            }
            Step::Take(state) => {
                self.servers[server].fence_end = 0;
                if self.put(server, clock, &state) {
                    self.servers[server].role = Role::Primary;
                    self.epochs += 1;
                }
            }
            Step::Renew(state) => {
                let due = clock - self.servers[server].lease_renewed >= 500;
                let wanted = self.with_in_sync(server, &state);
                if due || Some(&wanted) != self.servers[server].seen.state.as_ref() {
                    self.put(server, clock, &wanted);
                }
            }
            Step::GiveUp(state) => {
                (self.servers[server].role, self.servers[server].fence_end) = (Role::Down, 0);
                self.put(server, clock, &state);
            }
            Step::HandOver { .. } => unreachable!("nobody asks for it"),
        }
    }

    /// Who streams joins, who does not leaves; nobody joins who has not everything.
    fn with_in_sync(&self, server: usize, state: &State) -> State {
        let whole = |other: &usize| {
            *other != server
                && self.servers[*other].role == Role::Replica
                && self.reaches(*other)
                && self.servers[*other].position >= self.acknowledged.max(self.servers[server].position)
        };
        let in_sync = (0..SERVERS.len()).filter(whole).map(|other| SERVERS[other].to_owned()).collect();
        if self.servers[server].role == Role::Primary { State { in_sync, ..state.clone() } } else { state.clone() }
    }

    fn put(&mut self, server: usize, clock: u64, state: &State) -> bool {
        let Some(version) = self.swap(self.servers[server].seen.version, state) else { return false };
        let own = &mut self.servers[server];
        own.seen.version = version;
        own.seen.state = Some(state.clone());
        (own.since, own.lease_renewed) = (clock, clock);
        own.fence_end = if state.held { clock + TTL_MS - MARGIN_MS } else { 0 };
        own.remembered = (state.epoch, state.leader.clone());
        true
    }

    fn swap(&mut self, version: (u64, u64), state: &State) -> Option<(u64, u64)> {
        if version != self.store.version {
            return None;
        }
        self.store.version.1 += 1;
        self.store.state = Some(state.clone());
        Some(self.store.version)
    }
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        Just(Chance::AgentPaused),
        Just(Chance::CutOut),
        Just(Chance::CutIn),
        Just(Chance::Dead),
        Just(Chance::Apart),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    (0..SERVERS.len(), chance(), 0_u64..40_000, 100_u64..9_000).prop_map(|(server, chance, from, length)| Event {
        server,
        chance,
        from,
        until: from + length,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn two_are_never_open_and_nothing_acknowledged_is_missing(
        events in prop::collection::vec(event(), 0..14),
        // Clocks differ by less than the margin allows: a twentieth is a hundred times what quartz does.
        rates in [980_u64..1_020, 980_u64..1_020, 980_u64..1_020],
    ) {
        let mut world = World::new(events, rates);
        while world.now < 60_000 {
            world.step();
        }
        // When everything is well again, somebody leads.
        prop_assert!((0..SERVERS.len()).any(|server| world.is_open(server)), "nobody leads at the end");
        prop_assert!(world.acknowledged > 0 && world.epochs > 0);
    }
}
