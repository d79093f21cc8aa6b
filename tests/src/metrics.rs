//! Reading the Prometheus text format: samples of one scrape, summed by what the caller names.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::client::{self, Target};
use crate::host::Host;
use crate::namespace::Namespace;
use crate::site::METRICS_PORT;

/// The samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Samples {
    /// Scrapes the agent of `server`, on the server itself: `namespace` is its own.
    pub fn scrape(namespace: &Namespace, server: &str) -> Result<Self> {
        let host = Host::named(server).with_context(|| format!("{server} is no host"))?;
        let address = SocketAddr::new(IpAddr::V4(host.v4()), METRICS_PORT);
        let target = Target { address, host: server.to_owned(), tls: None };
        let response = client::get(namespace, &target, "/metrics")?;
        ensure!(response.status.is_success(), "{server}'s /metrics answers {}", response.status);
        Ok(Self::parse(&response.text()))
    }

    /// Parses a page of metrics. Lines that are no samples are left out.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// Every sample of the metric `name` that bears all of `labels`.
    pub fn find<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name && sample.bears(labels))
    }

    /// Sum of the metric `name` over the samples that bear all of `labels`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // The sum of no floats is -0.
        self.find(name, labels).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// Sums of the metric `name` by the value of the label `by`.
    pub fn by(&self, name: &str, labels: &[(&str, &str)], by: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.find(name, labels) {
            if let Some(value) = sample.labels.get(by) {
                *sums.entry(value.clone()).or_default() += sample.value;
            }
        }
        sums
    }

    /// Adds the samples of another scrape.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Sample {
    fn bears(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|found| found == value))
    }
}

fn sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (HashMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(HashMap<String, String>, &str)> {
    let mut found = HashMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((found, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let (value, rest) = quoted(rest)?;
        found.insert(key.to_owned(), value);
        text = rest;
    }
}

/// A quoted value without its opening quote, and what follows the closing one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_and_summed() {
        let page =
            "# HELP a b\na{x=\"1\",y=\"q\\\"},\"} 2\na{x=\"1\"} 3 1700000000\na{x=\"2\"} 5e0\nplain 7\nbroken{x=\"1\n";
        let samples = Samples::parse(page);
        assert_eq!(samples.sum("a", &[("x", "1")]), 5.0);
        assert_eq!(samples.sum("a", &[("y", "q\"},")]), 2.0);
        assert_eq!(samples.sum("plain", &[]), 7.0);
        assert_eq!(samples.by("a", &[], "x"), BTreeMap::from([("1".to_owned(), 5.0), ("2".to_owned(), 5.0)]));
        assert_eq!(samples.sum("broken", &[]), 0.0);
    }
}
