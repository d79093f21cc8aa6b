//! A metric family, the constant part of a metric: its name, type, help and label names.

/// What a family is, and with that the suffixes of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its series ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; its series ends in `_info`.
    Info,
    /// Series end in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// The constant part of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Name without the suffix that its kind adds.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: Kind,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of its labels, in the order in which their values are given.
    pub labels: &'static [&'static str],
}

impl Family {
    /// A counter; `name` lacks `_total`.
    pub const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help, labels }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help, labels }
    }

    /// An info; `name` lacks `_info`.
    pub const fn info(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Info, help, labels }
    }

    /// A histogram.
    pub const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help, labels }
    }

    /// Names of its series, as a query uses them.
    pub fn series(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Info => &["_info"],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", self.name)).collect()
    }
}
