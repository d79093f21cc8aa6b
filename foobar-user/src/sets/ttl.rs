//! Times as operators type them: `30s`, `10m`, `2h`, `7d`.

use std::time::Duration;

/// Units, from the largest one down.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
/// Longest time, a hundred years: longer ones are typing errors.
const SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// Reads a time; parts may follow each other, as in `1h30m`.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: write 30s, 10m, 2h, 7d or 1h30m");
    let (mut seconds, mut number) = (0_u64, String::new());
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == character).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(*unit)).ok_or_else(wrong)?;
        seconds = seconds.saturating_add(part);
        number.clear();
    }
    if text.is_empty() || !number.is_empty() {
        return Err(wrong());
    }
    match seconds {
        0 => Err(format!("`{text}` is no time at all: it must be at least 1s")),
        seconds if seconds > SECONDS_MAX => Err(format!("`{text}` is longer than a hundred years")),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

/// The two largest units of a time, begun seconds counted whole; less than a second is told in milliseconds.
#[must_use]
pub fn format(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        return format!("{}ms", time.as_millis());
    }
    let mut rest = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let mut parts = Vec::new();
    for (name, unit) in UNITS {
        if rest >= unit {
            parts.push(format!("{}{name}", rest / unit));
            rest %= unit;
        }
    }
    parts.truncate(2);
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7_200), ("7d", 604_800), ("1h30m", 5_400)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "10", "m", "10 m", "-1s", "1w", "0s", "99999999999999999999s", "200000d"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, text) in [(30, "30s"), (600, "10m"), (5_400, "1h30m"), (90_061, "1d1h"), (3_601, "1h1s")] {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        assert_eq!(
            (format(Duration::from_millis(250)), format(Duration::from_millis(1_001))),
            ("250ms".into(), "2s".into())
        );
    }
}
