//! One line of a bench: ours, the peer's, their ratio, and what the ratio should be.

use serde::{Serialize, Serializer};

use super::samples::Samples;

/// A row, as `--json` prints it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// The bench.
    pub(super) bench: &'static str,
    /// What was measured.
    pub(super) case: String,
    /// Unit of `ours` and `peer_value`.
    pub(super) unit: &'static str,
    /// Our median.
    #[serde(serialize_with = "short")]
    pub(super) ours: f64,
    /// Least of ours.
    #[serde(serialize_with = "short")]
    pub(super) min: f64,
    /// Name of what it is compared to.
    pub(super) peer: &'static str,
    /// The peer's median.
    #[serde(serialize_with = "short")]
    pub(super) peer_value: f64,
    /// Median of the rounds' ratios: within a round the machine was as fast for both.
    #[serde(serialize_with = "short")]
    pub(super) ratio: f64,
    /// Bound of the ratio, if there is one.
    pub(super) target: Option<f64>,
    /// Whether the ratio keeps to it.
    pub(super) met: Option<bool>,
    /// Number of rounds.
    pub(super) runs: usize,
    /// Greatest minus least ratio, over their median.
    #[serde(serialize_with = "short")]
    pub(super) spread: f64,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// No more than this: costs.
    AtMost(f64),
    /// No less than this: throughput.
    AtLeast(f64),
}

impl Target {
    fn met_by(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }

    fn bound(self) -> f64 {
        let (Self::AtMost(bound) | Self::AtLeast(bound)) = self;
        bound
    }
}

/// A quantity of somebody's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured<'a> {
    /// Who.
    pub(super) name: &'static str,
    /// Sample of each round.
    pub(super) samples: &'a Samples,
}

impl Row {
    /// The row that compares `ours` with `peer`, round by round.
    pub(super) fn new(
        (bench, unit): (&'static str, &'static str),
        case: &str,
        ours: &Samples,
        peer: Measured<'_>,
        target: Option<Target>,
    ) -> Self {
        let ratios = ours.over(peer.samples);
        let ratio = ratios.median();
        Self {
            bench,
            case: case.to_owned(),
            unit,
            ours: ours.median(),
            min: ours.min(),
            peer: peer.name,
            peer_value: peer.samples.median(),
            ratio,
            target: target.map(Target::bound),
            met: target.map(|target| target.met_by(ratio)),
            runs: ratios.count(),
            spread: ratios.spread(),
        }
    }
}

/// More digits than these are noise.
fn short<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_keys_that_readers_expect() {
        let (mut ours, mut peer) = (Samples::default(), Samples::default());
        ours.add(30.0);
        peer.add(10.0);
        let peer = Measured { name: "baseline", samples: &peer };
        let row = Row::new(("packets", "ns/packet"), "deny", &ours, peer, Some(Target::AtMost(3.2)));
        let json = serde_json::to_value(&row).expect("JSON");
        for (key, value) in [("bench", "packets"), ("case", "deny"), ("unit", "ns/packet"), ("peer", "baseline")] {
            assert_eq!(json[key], value);
        }
        assert_eq!((json["ours"].as_f64(), json["peer_value"].as_f64()), (Some(30.0), Some(10.0)));
        assert_eq!((json["ratio"].as_f64(), json["target"].as_f64()), (Some(3.0), Some(3.2)));
        assert_eq!((json["met"].as_bool(), json["runs"].as_u64()), (Some(true), Some(1)));
        assert_eq!(json["spread"].as_f64(), Some(0.0));
    }

    #[test]
    fn throughput_has_a_lower_bound() {
        assert!(Target::AtLeast(0.97).met_by(1.0) && !Target::AtLeast(0.97).met_by(0.9));
        assert!(Target::AtMost(0.75).met_by(0.7) && !Target::AtMost(0.75).met_by(0.8));
    }
}
