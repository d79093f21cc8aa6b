//! Rise and fall: how single results become a verdict.

use serde::Serialize;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    status: Status,
    /// Results in a row that speak against the status.
    against: u32,
}

impl Verdict {
    /// The present verdict.
    #[must_use]
    pub fn status(self) -> Status {
        self.status
    }

    /// Takes one result; returns whether the verdict changed.
    pub fn take(&mut self, success: bool, rise: u32, fall: u32) -> bool {
        let (wanted, needed) = if success { (Status::Up, rise) } else { (Status::Down, fall) };
        if self.status == wanted {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        if self.status != Status::Unknown && self.against < needed {
            return false;
        }
        *self = Self { status: wanted, against: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `+` and `-`, and tells the status after each as `u`, `d`.
    fn run(results: &str, rise: u32, fall: u32) -> String {
        let mut verdict = Verdict::default();
        let step = |result| {
            let before = verdict.status();
            let changed = verdict.take(result == '+', rise, fall);
            assert_eq!(changed, before != verdict.status());
            if verdict.status() == Status::Up { 'u' } else { 'd' }
        };
        results.chars().map(step).collect()
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
            assert_eq!(run(results, rise, fall), expected, "{results} rise {rise} fall {fall}");
        }
    }
}
