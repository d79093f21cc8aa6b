//! Where a rule comes from, in words: the site file and its line, or what it is derived from.

use std::path::{Path, PathBuf};

use crate::plan::Origin;

/// The site file that lines are of.
#[derive(Clone, Debug)]
pub(super) struct Origins(PathBuf);

impl Origins {
    /// Lines of this file.
    pub(super) fn of_file(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// `site.toml:12`, or `[site] admin`.
    pub(super) fn of(&self, origin: &Origin) -> String {
        match origin {
            Origin::Line(line) => format!("{}:{line}", self.0.display()),
            Origin::Derived(from) => from.clone(),
        }
    }
}
