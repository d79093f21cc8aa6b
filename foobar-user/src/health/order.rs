//! What operators want of a backend, whatever its health says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An operator's word on one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Whether it takes part.
    #[serde(default)]
    pub duty: Duty,
    /// Its weight in place of the site file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Whether a backend takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// As its health says.
    #[default]
    Enabled,
    /// It is given nothing new; what it has goes on.
    Draining,
    /// It is given nothing new, and flows that it has are cut.
    Disabled,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}
