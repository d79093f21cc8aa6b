//! Samples of one quantity, and what is said about them: the median, the least, and how far they lie apart.

/// Samples in the order in which they were taken; never empty when asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds a sample.
    pub(super) fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of an even number the mean of the two middle ones; NaN of none.
    pub(super) fn median(&self) -> f64 {
        let sorted = self.sorted();
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[count / 2],
            count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
        }
    }

    /// The least one; NaN of none.
    pub(super) fn min(&self) -> f64 {
        self.0.iter().copied().reduce(f64::min).unwrap_or(f64::NAN)
    }

    /// The greatest one; NaN of none.
    pub(super) fn max(&self) -> f64 {
        self.0.iter().copied().reduce(f64::max).unwrap_or(f64::NAN)
    }

    /// Greatest minus least, over the median.
    pub(super) fn spread(&self) -> f64 {
        (self.max() - self.min()) / self.median()
    }

    /// Sample by sample, this over `other`.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }

    /// Each sample `factor` times.
    pub(super) fn times(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|sample| sample * factor).collect())
    }

    /// Each sample less `part`.
    pub(super) fn less(&self, part: f64) -> Self {
        Self(self.0.iter().map(|sample| sample - part).collect())
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        let samples = Samples(vec![4.0, 1.0, 2.0]);
        assert_eq!((samples.median(), samples.min(), samples.spread()), (2.0, 1.0, 1.5));
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(samples.over(&Samples(vec![8.0, 4.0, 1.0])).median(), 0.5);
        assert!(Samples::default().median().is_nan());
    }
}
