//! The rules in force with their counters, for `foobar rules`.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use foobar_common::verdict::Reason;
use serde::{Deserialize, Serialize};

use super::origin::Origins;
use super::server::{Server, lock};
use crate::plan::show::rules::{HEAD, rows};
use crate::table::{Column, table};

/// Columns of a plan's rules that have fields of their own here: name, action, and origin at the end.
const OWN: [usize; 3] = [0, 1, HEAD.len() - 1];

/// The firewall of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesReport {
    /// The server.
    pub server: String,
    /// Number of the generation in force.
    pub generation: u32,
    /// Rules in the order in which they are tried.
    pub rules: Vec<RuleReport>,
    /// Packets that no rule decided and that belong to no connection of this host: they are denied.
    pub default_deny: Count,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Its place, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// `allow`, `deny`, `limit` or `shadow`.
    pub action: String,
    /// What it matches and how it limits, by the heads of `foobar plan`.
    pub matches: BTreeMap<String, String>,
    /// The site file's line, or what it is derived from.
    pub origin: String,
    /// What it has counted.
    #[serde(flatten)]
    pub count: Count,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of whole frames.
    pub bytes: u64,
}

impl Server {
    /// The rules in force, with their counters.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(super) fn rules(&self) -> Result<RulesReport> {
        let (counters, generation) = {
            let datapath = lock(&self.datapath);
            (datapath.counters()?, datapath.generation())
        };
        let plan = &self.loaded.plan;
        let origins = Origins::of_file(&self.options.site);
        let counted: BTreeMap<&str, Count> = counters
            .rules
            .iter()
            .map(|(name, counter)| (name.as_str(), Count { packets: counter.packets, bytes: counter.bytes }))
            .collect();
        let reports = plan.rules.iter().zip(rows(plan)).enumerate().map(|(index, (planned, cells))| RuleReport {
            number: index + 1,
            name: planned.rule.name.clone(),
            action: cells[1].clone(),
            matches: matches(&cells),
            origin: origins.of(&planned.origin),
            count: counted.get(planned.rule.name.as_str()).copied().unwrap_or_default(),
        });
        let denied = counters.verdicts.iter().find(|(reason, _)| *reason == Reason::NoRule);
        Ok(RulesReport {
            server: plan.server.clone(),
            generation,
            rules: reports.collect(),
            default_deny: denied.map_or_else(Count::default, |(_, c)| Count { packets: c.packets, bytes: c.bytes }),
        })
    }
}

/// The cells that are filled, by their heads.
pub(super) fn matches(cells: &[String]) -> BTreeMap<String, String> {
    let filled =
        HEAD.iter().zip(cells).enumerate().filter(|(column, (_, cell))| !OWN.contains(column) && !cell.is_empty());
    filled.map(|(_, (head, cell))| ((*head).to_owned(), cell.clone())).collect()
}

impl fmt::Display for RulesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle: Vec<&str> =
            HEAD.iter().enumerate().filter(|(column, _)| !OWN.contains(column)).map(|(_, head)| *head).collect();
        let mut columns = vec![Column::Number("#"), Column::Text("rule"), Column::Text("action")];
        columns.extend(middle.iter().map(|head| Column::Text(head)));
        columns.extend([Column::Number("packets"), Column::Number("bytes"), Column::Text("because of")]);
        let mut rows: Vec<Vec<String>> = Vec::new();
        for rule in &self.rules {
            let mut row = vec![rule.number.to_string(), rule.name.clone(), rule.action.clone()];
            row.extend(middle.iter().map(|head| rule.matches.get(*head).cloned().unwrap_or_default()));
            row.extend([rule.count.packets.to_string(), rule.count.bytes.to_string(), rule.origin.clone()]);
            rows.push(row);
        }
        let mut last = vec![String::new(), "-".to_owned(), "deny".to_owned()];
        last.extend(middle.iter().map(|_| String::new()));
        last.extend([self.default_deny.packets.to_string(), self.default_deny.bytes.to_string()]);
        last.push("no rule, and no connection of this host".to_owned());
        rows.push(last);
        write!(f, "{}", table(&columns, &rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_stand_in_order_and_the_default_at_the_end() {
        let rule = |number, name: &str, port: &str| RuleReport {
            number,
            name: name.to_owned(),
            action: "allow".to_owned(),
            matches: BTreeMap::from([("protocol".to_owned(), format!("tcp {port}"))]),
            origin: "site.toml:12".to_owned(),
            count: Count { packets: 3, bytes: 180 },
        };
        let report = RulesReport {
            server: "web1".to_owned(),
            generation: 4,
            rules: vec![rule(1, "ssh", "22"), rule(2, "https", "443")],
            default_deny: Count { packets: 1000, bytes: 60_000 },
        };
        let text = report.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "#  rule   action  protocol  packets  bytes  because of");
        assert_eq!(lines[1], "1  ssh    allow   tcp 22          3    180  site.toml:12");
        assert_eq!(lines[3], "   -      deny                 1000  60000  no rule, and no connection of this host");
    }
}
