//! Reading what libtest and libtest-mimic print: `test result: ok. 3 passed; 0 failed; 1 ignored; …`,
//! and what `foobar-packets` prints: `3 passed, 0 failed`.

use super::report::Counts;

/// The counts of a summary line; `None` for every other line.
pub(super) fn summary(line: &str) -> Option<Counts> {
    if let Some(counts) = plain(line) {
        return Some(counts);
    }
    let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
    let count = |what: &str| {
        let part = counts.split(';').find_map(|part| part.trim().strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// The counts of a line `253 passed, 0 failed`, with which `foobar-packets` ends.
fn plain(line: &str) -> Option<Counts> {
    let (passed, failed) = line.trim().strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Counts { passed: passed.parse().ok()?, failed: failed.parse().ok()?, skipped: 0 })
}

/// The counts of a whole output: every summary in it; without any, the program as a single test.
pub(super) fn counts(lines: &[String], success: bool) -> Counts {
    let mut counts = Counts::default();
    let mut summaries = 0;
    for found in lines.iter().filter_map(|line| summary(line)) {
        counts += found;
        summaries += 1;
    }
    if summaries == 0 && success {
        counts.passed = 1;
    }
    // Died before or after its summary.
    if !success && counts.failed == 0 {
        counts.failed = 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read_and_other_lines_are_not() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.10s";
        assert_eq!(summary(line), Some(Counts { passed: 12, failed: 2, skipped: 1 }));
        assert_eq!(summary("253 passed, 1 failed"), Some(Counts { passed: 253, failed: 1, skipped: 0 }));
        for line in ["", "test a ... ok", "test result: ok", "test result: ok. x passed; 0 failed; 0 ignored"] {
            assert_eq!(summary(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_program_without_a_summary_is_one_test() {
        assert_eq!(counts(&["verified".into()], true), Counts { passed: 1, failed: 0, skipped: 0 });
        assert_eq!(counts(&["killed".into()], false), Counts { passed: 0, failed: 1, skipped: 0 });
    }

    #[test]
    fn a_crash_after_a_good_summary_is_a_failure() {
        let line = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(&[line.into()], false), Counts { passed: 2, failed: 1, skipped: 0 });
    }
}
