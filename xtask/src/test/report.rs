//! The summary: one row a layer, and a last line that machines can read.

use std::fmt::Write;
use std::time::Duration;

/// Counts of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that failed.
    pub(super) failed: u32,
    /// Tests that did not run and said so.
    pub(super) skipped: u32,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What one layer did.
pub(super) struct Layer {
    /// Its name.
    pub(super) name: String,
    /// Its tests.
    pub(super) counts: Counts,
    /// How long it took.
    pub(super) time: Duration,
    /// Why it failed, when its tests do not tell.
    pub(super) note: Option<String>,
    /// Why it could not run here.
    pub(super) skipped: Option<String>,
}

impl Layer {
    /// Counts a layer that ran nothing, or broke, as one failure: no layer is skipped in silence.
    pub(super) fn settle(mut self, filtered: bool) -> Self {
        let ran = self.counts.passed + self.counts.failed;
        if ran == 0 && self.note.is_none() && self.skipped.is_none() && !filtered {
            self.note = Some("ran nothing".into());
        }
        if self.note.is_some() && self.counts.failed == 0 {
            self.counts.failed = 1;
        }
        self
    }
}

/// All layers.
#[derive(Default)]
pub(super) struct Report {
    /// In the order they ran.
    pub(super) layers: Vec<Layer>,
}

impl Report {
    /// Counts of all layers.
    pub(super) fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.layers.iter().for_each(|layer| total += layer.counts);
        total
    }

    /// An aligned table, and the last line.
    pub(super) fn table(&self) -> String {
        let width = self.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max("layer".len());
        let mut table = format!("{:<width$}  passed  failed  skipped     time\n", "layer");
        for Layer { name, counts: Counts { passed, failed, skipped }, time, note, skipped: why } in &self.layers {
            let seconds = time.as_secs_f64();
            let why = why.as_ref().map(|why| format!("SKIPPED: {why}"));
            let note = note.as_ref().or(why.as_ref()).map(|note| format!("  {note}")).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name:<width$}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:>5.1} s{note}");
        }
        let Counts { passed, failed, skipped } = self.total();
        table + &format!("\n{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, passed: u32, failed: u32) -> Layer {
        let counts = Counts { passed, failed, skipped: 1 };
        Layer { name: name.into(), counts, time: Duration::from_millis(1500), note: None, skipped: None }
    }

    #[test]
    fn the_table_is_aligned_and_the_last_line_is_exact() {
        let report = Report { layers: vec![layer("host", 120, 0), layer("kernel-6.12", 7, 2)] };
        let expected = "layer        passed  failed  skipped     time\n\
                        host            120       0        1    1.5 s\n\
                        kernel-6.12       7       2        1    1.5 s\n\n\
                        127 passed, 2 failed, 2 skipped";
        assert_eq!(report.table(), expected);
    }

    #[test]
    fn a_layer_that_ran_nothing_fails_unless_a_filter_left_nothing() {
        assert_eq!(layer("site", 0, 0).settle(false).counts.failed, 1);
        assert_eq!(layer("site", 0, 0).settle(true).counts.failed, 0);
        assert_eq!(layer("site", 1, 0).settle(false).counts.failed, 0);
    }

    #[test]
    fn a_layer_that_cannot_run_here_says_so_and_is_no_failure() {
        let skipped = Layer { skipped: Some("no C++ compiler".into()), ..layer("fuzz", 0, 0) }.settle(false);
        assert_eq!(skipped.counts.failed, 0);
        assert!(Report { layers: vec![skipped] }.table().contains("SKIPPED: no C++ compiler"));
    }
}
