//! The named sets of a server: those that its rules name, and no others.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use super::PlannedRule;
use super::rules::derive_rules;
use crate::site::sets::{self, FileError};
use crate::site::{Server, Site};

/// A named set as the site file states it; what is added at run time is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetPlan {
    /// Its name.
    pub name: String,
    /// Prefixes of the site file.
    pub prefixes: Vec<IpNet>,
    /// A file with more of them, one a line.
    pub file: Option<PathBuf>,
}

impl SetPlan {
    /// Everything that the set holds: reads its file.
    ///
    /// # Errors
    /// The file cannot be read or has bad lines, or the set would be too large.
    pub fn read(&self) -> Result<Vec<IpNet>, FileError> {
        sets::join(self.prefixes.clone(), self.file.as_deref())
    }
}

/// The sets of one server.
#[must_use]
pub fn derive_sets(site: &Site, server: &Server) -> Vec<SetPlan> {
    derive(site, &derive_rules(site, server))
}

pub(super) fn derive(site: &Site, rules: &[PlannedRule]) -> Vec<SetPlan> {
    let named = |name: &String| {
        rules.iter().any(|planned| {
            let rule = &planned.rule;
            rule.sources.sets.contains(name) || rule.destinations.sets.contains(name)
        })
    };
    let mine = site.sets.iter().filter(|set| named(&set.name.value));
    mine.map(|set| SetPlan {
        name: set.name.value.clone(),
        prefixes: set.prefixes.iter().map(|prefix| prefix.value).collect(),
        file: set.file.as_ref().map(|file| file.value.clone()),
    })
    .collect()
}
