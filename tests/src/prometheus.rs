//! Asking the bed's Prometheus: its targets and its expressions.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::client::{Target, form, get};
use crate::namespace::Namespace;

/// Prometheus, as seen from a namespace that reaches it.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    target: Target,
}

/// Targets that Prometheus scrapes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Names of all: their `server` label, or their address.
    pub all: Vec<String>,
    /// Those whose last scrape failed, with why.
    pub down: Vec<String>,
}

impl<'a> Prometheus<'a> {
    /// Prometheus at `target`, asked from `namespace`.
    pub fn new(namespace: &'a Namespace, target: Target) -> Self {
        Self { namespace, target }
    }

    /// Its targets.
    pub fn targets(&self) -> Result<Targets> {
        let data = self.ask("/api/v1/targets?state=active")?;
        let mut targets = Targets::default();
        for target in data["activeTargets"].as_array().context("Prometheus lists no targets")? {
            let labels = &target["labels"];
            let name = labels["server"].as_str().or(labels["instance"].as_str()).unwrap_or("?").to_owned();
            if target["health"] != "up" {
                targets.down.push(format!("{name} ({}: {})", target["health"], target["lastError"]));
            }
            targets.all.push(name);
        }
        Ok(targets)
    }

    /// Result of the expression `query` now: Prometheus' own JSON of a vector.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let data = self.ask(&format!("/api/v1/query?{}", form(&[("query", query)])))?;
        Ok(data["result"].as_array().with_context(|| format!("{query}: no result"))?.clone())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let response = get(self.namespace, &self.target, path)?;
        let answer: Value = serde_json::from_slice(&response.body).context("Prometheus sent no JSON")?;
        ensure!(answer["status"] == "success", "Prometheus refused {path}: {answer}");
        Ok(answer["data"].clone())
    }
}
