//! When SYNs are answered with cookies: at once when a flood is seen, and until it has been over for a while.
//!
//! Nothing here touches the kernel: time and counters come in, steps come out.

use std::time::Duration;

use crate::datapath::handshakes::Seen;

/// A flood must have been over for so long.
const CALM: Duration = Duration::from_secs(5);
/// ACKs of the last cookies are still accepted for so long: the stack reads their options by these settings.
const DRAIN: Duration = Duration::from_secs(10);
/// Answers from which no handshake has come for so long may not arrive at all: then the stack is given a chance.
const FRUITLESS: Duration = Duration::from_secs(30);
/// For so long at first, and then each time for twice the time: with only attackers around, its own cookies serve as well.
const SPARED: Duration = Duration::from_secs(60);
/// Times that this is doubled, at the most.
const SPARED_DOUBLINGS: u32 = 2;
/// Time over which SYNs without an ACK are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Time in seconds for which the stack keeps a half-open connection: five retries, each after twice the time.
const HALF_OPEN_SECONDS: u64 = 63;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Have the stack take cookies, then answer SYNs.
    Begin,
    /// Leave SYNs to the stack again.
    End,
    /// Put the stack's settings back.
    Restore,
}

/// How the last agent has left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// SYNs are the stack's, and so are its settings.
    Normal,
    /// SYNs are answered.
    Answering,
    /// SYNs are the stack's again, its settings are not yet.
    Draining,
}

/// The watch over one server's listeners.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Half-open connections above which a flood is seen.
    half_open: u32,
    state: State,
    /// The last flood that was acted on.
    flood_ns: u64,
    /// Times in a row that answers have led to no handshake at all.
    fruitless: u32,
    /// Until then floods are left to the stack, because answers seem to get lost.
    spared_until: Duration,
}

/// While SYNs are answered.
#[derive(Clone, Copy, Debug)]
struct Answering {
    /// When the last window began, and what was seen then.
    since: Duration,
    before: Seen,
    /// When there were last too many SYNs without an ACK.
    busy: Duration,
    /// When a handshake was last known to have come from an answer.
    fruit: Duration,
}

impl Answering {
    const fn from(now: Duration, seen: Seen) -> Self {
        Self { since: now, before: seen, busy: now, fruit: now }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Normal,
    Answering(Answering),
    Draining { until: Duration },
}

impl Watch {
    /// Of a server that starts.
    #[must_use]
    pub(super) fn new(half_open: u32, left: Left, now: Duration, seen: Seen) -> Self {
        let state = match left {
            Left::Normal => State::Normal,
            Left::Answering => State::Answering(Answering::from(now, seen)),
            Left::Draining => State::Draining { until: now + DRAIN },
        };
        Self { half_open, state, flood_ns: seen.flood_ns, fruitless: 0, spared_until: Duration::ZERO }
    }

    /// Half-open connections above which a flood is seen; 0: never.
    #[must_use]
    pub(super) const fn half_open(&self) -> u32 {
        self.half_open
    }

    /// Changes [`Watch::half_open`].
    pub(super) const fn set_half_open(&mut self, half_open: u32) {
        self.half_open = half_open;
    }

    /// What was to begin could not: the next sign of a flood is another chance.
    pub(super) const fn give_up(&mut self) {
        self.state = State::Normal;
    }

    /// Whether SYNs are answered.
    #[must_use]
    pub(super) const fn answering(&self) -> bool {
        matches!(self.state, State::Answering { .. })
    }

    /// Looks at what the kernel tells now.
    pub(super) fn look(&mut self, now: Duration, seen: Seen) -> Option<Step> {
        let flooded = seen.flood_ns > self.flood_ns;
        match self.state {
            State::Normal | State::Draining { .. } if flooded && now >= self.spared_until => {
                self.flood_ns = seen.flood_ns;
                self.state = State::Answering(Answering::from(now, seen));
                Some(Step::Begin)
            }
            State::Normal => None,
            State::Draining { until } => {
                if now < until {
                    return None;
                }
                self.state = State::Normal;
                Some(Step::Restore)
            }
            State::Answering(answering) => self.answered(now, seen, answering),
        }
    }

    fn answered(&mut self, now: Duration, seen: Seen, answering: Answering) -> Option<Step> {
        let Answering { since, before, busy, fruit } = answering;
        // Floods are seen as before: half-open connections from before the cookies take their time to go.
        self.flood_ns = self.flood_ns.max(seen.flood_ns);
        let passed = now.saturating_sub(since);
        if passed < WINDOW {
            return None;
        }
        let answered = seen.answered.saturating_sub(before.answered);
        let accepted = seen.accepted.saturating_sub(before.accepted);
        let open = answered.saturating_sub(accepted);
        let fruit = if accepted > 0 { now } else { fruit };
        // What the stack would hold of these in the long run must stay below half of what is a flood: no flapping.
        let held = u128::from(open) * u128::from(HALF_OPEN_SECONDS) * 1000 / passed.as_millis().max(1);
        let busy = if self.half_open != 0 && held > u128::from(self.half_open / 2) { now } else { busy };
        if accepted > 0 {
            self.fruitless = 0;
        }
        let lost = now.saturating_sub(fruit) >= FRUITLESS;
        if now.saturating_sub(busy) >= CALM || lost {
            if lost {
                self.spared_until = now + SPARED * (1 << self.fruitless);
                self.fruitless = (self.fruitless + 1).min(SPARED_DOUBLINGS);
            }
            self.state = State::Draining { until: now + DRAIN };
            return Some(Step::End);
        }
        self.state = State::Answering(Answering { since: now, before: seen, busy, fruit });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    /// Runs a watch with so many unanswered and accepted SYNs a second, and tells its steps with their seconds.
    fn run(
        watch: &mut Watch,
        from: Duration,
        seconds: u64,
        open: u64,
        accepted: u64,
        seen: &mut Seen,
    ) -> Vec<(u64, Step)> {
        let (mut steps, mut now) = (Vec::new(), from);
        while now < from + Duration::from_secs(seconds) {
            now += TICK;
            if now.subsec_millis() == 0 {
                (seen.answered, seen.accepted) = (seen.answered + open + accepted, seen.accepted + accepted);
            }
            steps.extend(watch.look(now, *seen).map(|step| ((now - from).as_secs(), step)));
        }
        steps
    }

    #[test]
    fn a_flood_is_answered_until_it_is_over_and_the_last_acks_have_come() {
        let mut seen = Seen::default();
        let mut watch = Watch::new(256, Left::Normal, Duration::ZERO, seen);
        assert_eq!(run(&mut watch, Duration::ZERO, 5, 0, 0, &mut seen), []);
        seen.flood_ns = 1;
        assert_eq!(run(&mut watch, Duration::from_secs(5), 20, 100_000, 50, &mut seen), [(0, Step::Begin)]);
        assert!(watch.answering());
        let steps = run(&mut watch, Duration::from_secs(25), 20, 0, 50, &mut seen);
        assert_eq!(steps.iter().map(|(_, step)| *step).collect::<Vec<_>>(), [Step::End, Step::Restore]);
        assert!(steps[0].0 >= 4 && steps[1].0 == steps[0].0 + 10, "{steps:?}");
    }

    #[test]
    fn answers_that_lead_nowhere_are_given_up_for_a_while_and_longer_each_time() {
        let mut seen = Seen { flood_ns: 1, ..Seen::default() };
        let mut watch = Watch::new(256, Left::Answering, Duration::ZERO, seen);
        assert_eq!(run(&mut watch, Duration::ZERO, 35, 100_000, 0, &mut seen), [(30, Step::End)]);
        seen.flood_ns = 2;
        // The settings are put back although the flood goes on, and a minute after the end it is answered again.
        let steps = run(&mut watch, Duration::from_secs(35), 90, 100_000, 0, &mut seen);
        assert_eq!(steps, [(5, Step::Restore), (55, Step::Begin), (85, Step::End)]);
        seen.flood_ns = 3;
        let steps = run(&mut watch, Duration::from_secs(125), 130, 100_000, 1, &mut seen);
        assert_eq!(steps, [(5, Step::Restore), (115, Step::Begin)]);
    }

    #[test]
    fn what_would_fill_half_the_queue_again_keeps_the_cookies() {
        let mut seen = Seen { flood_ns: 1, ..Seen::default() };
        let mut watch = Watch::new(256, Left::Answering, Duration::ZERO, seen);
        assert_eq!(run(&mut watch, Duration::ZERO, 60, 3, 1, &mut seen), [], "three a second are 189 in the long run");
        assert_eq!(run(&mut watch, Duration::from_secs(60), 8, 2, 1000, &mut seen).len(), 1, "two are 126");
    }

    #[test]
    fn a_flood_that_comes_back_while_it_drains_is_answered_at_once() {
        let mut seen = Seen { flood_ns: 1, ..Seen::default() };
        let mut watch = Watch::new(256, Left::Answering, Duration::ZERO, seen);
        assert_eq!(run(&mut watch, Duration::ZERO, 8, 0, 0, &mut seen).len(), 1);
        seen.flood_ns = 2;
        assert_eq!(watch.look(Duration::from_secs(9), seen), Some(Step::Begin));
        assert_eq!(watch.look(Duration::from_secs(9), seen), None);
    }

    #[test]
    fn what_the_last_agent_left_is_taken_up() {
        let seen = Seen::default();
        let mut watch = Watch::new(256, Left::Draining, Duration::ZERO, seen);
        assert_eq!(watch.look(DRAIN - TICK, seen), None);
        assert_eq!(watch.look(DRAIN, seen), Some(Step::Restore));
        assert_eq!(watch.look(DRAIN + TICK, seen), None);
    }

    #[test]
    fn without_a_threshold_an_answer_ends() {
        let mut seen = Seen { flood_ns: 1, ..Seen::default() };
        let mut watch = Watch::new(256, Left::Answering, Duration::ZERO, seen);
        watch.set_half_open(0);
        assert_eq!(run(&mut watch, Duration::ZERO, 10, 100_000, 0, &mut seen).len(), 1);
    }

    #[test]
    fn a_flood_of_before_the_start_is_no_flood() {
        let seen = Seen { flood_ns: 7, ..Seen::default() };
        assert_eq!(Watch::new(256, Left::Normal, Duration::ZERO, seen).look(TICK, seen), None);
    }
}
