//! How a process is supervised: what it is given, when it is ready, what it may use.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process with all its children may use; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Share of the CPUs beside others when all are busy, 1 to 10,000; 100 is what others have.
    pub cpu_weight: Option<u32>,
    /// Thousandths of a CPU that it may use at the most.
    pub cpu_milli: Option<u32>,
    /// Memory in bytes, swap included: what needs more is killed.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// In few words; nothing when nothing is limited.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            self.cpu_weight.map(|weight| format!("weight {weight}")),
            self.cpu_milli.map(|milli| format!("{} CPU", f64::from(milli) / 1000.0)),
            self.memory_bytes.map(|bytes| format!("{} MiB", bytes >> 20)),
            self.processes.map(|processes| format!("{processes} processes")),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// When a process counts as ready: those that start after it wait for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// What is tried until it succeeds.
    pub check: ReadyCheck,
    /// Milliseconds after which a process that is not ready is ended, as one that has failed.
    pub timeout_ms: u64,
}

/// What tells that a process is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyCheck {
    /// It takes a connection.
    Tcp(SocketAddr),
    /// It answers a GET with a status from 200 to 399.
    Http {
        /// Where.
        address: SocketAddr,
        /// What is asked for.
        path: String,
    },
    /// A program, run as the process's account, that ends with 0.
    Script(Vec<String>),
}

/// A file that is written before a program starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilePlan {
    /// Its path, absolute.
    pub path: PathBuf,
    /// What is in it.
    pub content: FileContent,
    /// Its permissions; it belongs to the process's account.
    pub mode: u32,
}

/// What a written file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileContent {
    /// This text.
    Text(String),
    /// The text of another file, read at every start and reload, with its placeholders filled.
    Template {
        /// The other file.
        path: PathBuf,
        /// Placeholders, without braces, and what stands for them.
        values: Vec<(String, String)>,
    },
}

/// A text with its `{placeholders}` replaced, each once: what a placeholder brings is not looked at again.
///
/// Braces around anything else stay as they are.
#[must_use]
pub fn fill(text: &str, values: &[(String, String)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        let value = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        match rest[1..].split_once('}').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                filled.push_str(value);
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::{Limits, fill};

    #[test]
    fn limits_are_told_in_few_words() {
        assert_eq!(Limits::default().to_string(), "");
        let all =
            Limits { cpu_weight: Some(50), cpu_milli: Some(1500), memory_bytes: Some(64 << 20), processes: Some(9) };
        assert_eq!(all.to_string(), "weight 50, 1.5 CPU, 64 MiB, 9 processes");
    }

    #[test]
    fn placeholders_are_filled_once_and_other_braces_stay() {
        let values = [("server".to_owned(), "{address}".to_owned()), ("address".to_owned(), "::1".to_owned())];
        assert_eq!(fill("a {server} { {address}}} {x}", &values), "a {address} { ::1}} {x}");
    }
}
