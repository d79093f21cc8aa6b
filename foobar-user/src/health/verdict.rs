//! Rise and fall: how single results become a verdict.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Who falls again within this time flaps.
const CALM: Duration = Duration::from_secs(60);
/// Times that the successes which bring up a backend that flaps are doubled, at the most.
const STRIKES_MAX: u32 = 4;

/// What is believed about a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// No result yet.
    #[default]
    Unknown,
    /// May be a member.
    Up,
    /// Must not be a member.
    Down,
}

/// The verdict on one backend; the first result decides at once, so that a start is quick.
///
/// A backend that falls again and again needs twice as many successes each time, so that it does not come and go with its
/// connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    status: Status,
    /// Results in a row that speak against the status.
    against: u32,
    /// When it fell last.
    fell: Option<Instant>,
    /// Times that it fell soon after the fall before.
    strikes: u32,
}

impl Verdict {
    /// The present verdict.
    #[must_use]
    pub fn status(self) -> Status {
        self.status
    }

    /// Takes one result; returns whether the verdict changed.
    pub fn take(&mut self, success: bool, rise: u32, fall: u32, now: Instant) -> bool {
        let (wanted, needed) =
            if success { (Status::Up, rise.saturating_mul(1 << self.strikes)) } else { (Status::Down, fall) };
        if self.status == wanted {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        if self.status != Status::Unknown && self.against < needed {
            return false;
        }
        if wanted == Status::Down {
            let soon = self.fell.is_some_and(|fell| now.saturating_duration_since(fell) < CALM);
            self.strikes = if soon { (self.strikes + 1).min(STRIKES_MAX) } else { 0 };
            self.fell = Some(now);
        }
        (self.status, self.against) = (wanted, 0);
        true
    }
}

impl Verdict {
    /// Takes one success of who has no substitute: it is up at once, however often it fell. Returns whether the verdict changed.
    pub fn rise(&mut self) -> bool {
        let changed = self.status != Status::Up;
        (self.status, self.against) = (Status::Up, 0);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `+` and `-`, a second apart, and tells the status after each as `u`, `d`.
    fn run(verdict: &mut Verdict, start: Instant, results: &str, rise: u32, fall: u32) -> String {
        let step = |(second, result)| {
            let before = verdict.status();
            let changed = verdict.take(result == '+', rise, fall, start + Duration::from_secs(second));
            assert_eq!(changed, before != verdict.status());
            if verdict.status() == Status::Up { 'u' } else { 'd' }
        };
        (0..).zip(results.chars()).map(step).collect()
    }

    #[test]
    fn results_become_verdicts() {
        for (results, rise, fall, expected) in [
            ("+", 3, 3, "u"),
            ("-", 3, 3, "d"),
            ("+--", 2, 2, "uud"),
            ("+-+-+--", 2, 2, "uuuuuud"),
            ("-++", 2, 2, "ddu"),
            ("-+-+-++", 2, 2, "ddddddu"),
            ("+-", 1, 1, "ud"),
            ("+---+++", 3, 3, "uuudddu"),
            ("+-", 0, 0, "ud"),
        ] {
            let said = run(&mut Verdict::default(), Instant::now(), results, rise, fall);
            assert_eq!(said, expected, "{results} rise {rise} fall {fall}");
        }
    }

    #[test]
    fn who_flaps_needs_longer_to_come_up() {
        let (mut verdict, start) = (Verdict::default(), Instant::now());
        // One success after the first fall, then two, then four.
        assert_eq!(run(&mut verdict, start, "+-+-++-++++", 1, 1), "ududdudddd".to_owned() + "u");
    }

    #[test]
    fn who_has_no_substitute_is_up_at_once() {
        let (mut verdict, start) = (Verdict::default(), Instant::now());
        assert_eq!(run(&mut verdict, start, "+-+-++-", 1, 1), "ududdud");
        assert!(verdict.rise() && !verdict.rise());
        assert_eq!(verdict.status(), Status::Up);
    }

    #[test]
    fn calm_forgives() {
        let (mut verdict, start) = (Verdict::default(), Instant::now());
        assert_eq!(run(&mut verdict, start, "+-+-++", 1, 1), "ududdu");
        let later = start + CALM + Duration::from_secs(10);
        assert_eq!(run(&mut verdict, later, "-+", 1, 1), "du");
    }
}
