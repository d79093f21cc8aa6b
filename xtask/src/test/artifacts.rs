//! What `cargo build` made: test programs with the package they belong to, and ordinary programs.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    /// The package's folder name, which is the crate's noun: `foobar-common`, `tests`, …
    pub(super) folder: PathBuf,
    /// The target's name.
    pub(super) name: String,
    /// `lib`, `bin` or `test`.
    pub(super) kind: String,
    /// Whether it is a test program.
    pub(super) is_test: bool,
    /// The program.
    pub(super) executable: PathBuf,
}

impl Artifact {
    /// Whether it is a test of the bed: an integration test of the package in `tests`.
    pub(super) fn is_site_test(&self) -> bool {
        self.is_test && self.kind == "test" && self.folder.ends_with("tests")
    }
}

/// Builds every library, program and test of the workspace in one go and returns what can be run.
pub(super) fn build() -> Result<Vec<Artifact>> {
    let mut cargo = command::cargo();
    cargo.args(["build", "--workspace", "--lib", "--bins", "--tests", "--message-format=json-render-diagnostics"]);
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let messages = child.stdout.take().context("cargo has no standard output")?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(messages).lines() {
        artifacts.extend(artifact(&line.context("cannot read cargo's messages")?));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` failed ({status})", command::shown(&cargo));
    }
    // Cargo reports in the order of compilation, which differs from run to run.
    artifacts.sort_by(|a, b| (&a.folder, &a.kind, &a.name).cmp(&(&b.folder, &b.kind, &b.name)));
    Ok(artifacts)
}

/// The program that one of cargo's messages tells of.
fn artifact(message: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(message).ok()?;
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Some(Artifact {
        folder: Path::new(&text("/manifest_path")?).parent()?.to_owned(),
        name: text("/target/name")?,
        kind: text("/target/kind/0")?,
        is_test: message.pointer("/profile/test")?.as_bool()?,
        executable: text("/executable")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_programs_are_taken() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","profile":{"test":true},
            "target":{"kind":["test"],"name":"page"},"executable":"/w/target/debug/deps/page-1"}"#;
        let artifact = artifact(message).expect("it is one");
        assert!(artifact.is_site_test(), "{artifact:?}");
        assert_eq!(artifact.name, "page");
        for other in [
            "",
            "no json",
            r#"{"reason":"build-finished"}"#,
            &message.replace("\"/w/target/debug/deps/page-1\"", "null"),
        ] {
            assert_eq!(super::artifact(other), None, "{other}");
        }
    }
}
