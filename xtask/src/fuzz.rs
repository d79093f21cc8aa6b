//! `cargo xtask fuzz`: every fuzz target for a while, beginning with the corpus in the repository.
//!
//! A crash leaves its input below `target/fuzz/artifacts`; it becomes a named test of the crate before it is mended.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cli::FuzzOptions;
use crate::setup::{self, Group};
use crate::{command, workspace};

/// A target of cargo-fuzz.
pub(crate) struct Target {
    /// Its crate's folder, in the crate that it attacks.
    folder: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// Longest input in bytes.
    longest: u32,
    /// Whether there is a dictionary beside its corpus.
    has_words: bool,
}

/// Every target, the cheapest to build first.
pub(crate) const TARGETS: [Target; 3] = [
    Target { folder: "foobar-common/fuzz", name: "packet", longest: 2048, has_words: false },
    Target { folder: "foobar-common/fuzz", name: "rules", longest: 1024, has_words: false },
    Target { folder: "foobar-user/fuzz", name: "site", longest: 8192, has_words: true },
];

/// Folders of the crates that hold targets: workspaces of their own.
pub(crate) fn folders() -> BTreeSet<&'static str> {
    TARGETS.iter().map(|target| target.folder).collect()
}

/// What is to be installed; it may fail where there is no network.
pub(crate) fn prepare() -> Result<()> {
    setup::groups(&[Group::Fuzz])
}

/// Whether cargo-fuzz is there.
pub(crate) fn installed() -> Result<()> {
    ensure!(command::find("cargo-fuzz").is_some(), "cargo-fuzz is not installed; `cargo xtask fuzz` installs it");
    Ok(())
}

/// Runs the chosen targets; whether nothing was found.
pub(crate) fn run(options: &FuzzOptions) -> Result<bool> {
    let known = |name: &String| TARGETS.iter().any(|target| target.name == name);
    if let Some(unknown) = options.targets.iter().find(|name| !known(name)) {
        let names = TARGETS.map(|target| target.name).join(", ");
        anyhow::bail!("there is no fuzz target {unknown:?}; there are {names}");
    }
    prepare()?;
    let chosen =
        |target: &&Target| options.targets.is_empty() || options.targets.iter().any(|name| name == target.name);
    let mut clean = true;
    for target in TARGETS.iter().filter(chosen) {
        clean &= target.run(options.seconds)?;
    }
    Ok(clean)
}

impl Target {
    /// Runs it for so long; false: it has found something, and has said what.
    pub(crate) fn run(&self, seconds: u32) -> Result<bool> {
        let mut fuzzer = self.command("run")?;
        let (finds, corpus) = (self.own("corpus")?, workspace::root().join(self.folder).join("corpus").join(self.name));
        ensure!(corpus.is_dir(), "the corpus {} is missing", corpus.display());
        // What is new goes to the first folder: the repository's changes by `cargo fuzz cmin` alone.
        fuzzer.arg(self.name).arg(finds).arg(&corpus).arg("--");
        fuzzer.args([format!("-max_total_time={seconds}"), format!("-max_len={}", self.longest)]);
        fuzzer.args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]);
        fuzzer.arg(format!("-artifact_prefix={}/", self.own("artifacts")?.display()));
        if self.has_words {
            fuzzer.arg(format!("-dict={}", corpus.with_extension("dict").display()));
        }
        let output = fuzzer.output().with_context(|| format!("cannot start `{}`", command::shown(&fuzzer)))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let runs = runs(&said);
        match runs.filter(|_| output.status.success()) {
            Some(runs) => println!("{}: {runs} inputs in {seconds} s, nothing found", self.name),
            None => println!("{}: FAILED ({})\n{}", self.name, output.status, end(&said)),
        }
        Ok(output.status.success() && runs.is_some())
    }

    /// cargo-fuzz for this target. Without a sanitizer: the crates have no unsafe code of their own, and so no nightly is needed.
    fn command(&self, task: &str) -> Result<Command> {
        let mut cargo = command::cargo();
        cargo.args(["fuzz", task, "--sanitizer", "none", "--fuzz-dir"]).arg(workspace::root().join(self.folder));
        cargo.arg("--target-dir").arg(folder()).env_remove("RUSTFLAGS");
        // As for the object: found where cargo has put it, also when PATH does not name the folder.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([command::cargo_home().join("bin")]);
        cargo.env("PATH", std::env::join_paths(folders).context("PATH holds a folder with a colon")?);
        Ok(cargo)
    }

    /// A folder below the target folder.
    fn own(&self, kind: &str) -> Result<PathBuf> {
        let own = folder().join(kind).join(self.name);
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        Ok(own)
    }
}

/// Of builds with the fuzzer's flags, and of what it finds.
fn folder() -> PathBuf {
    workspace::target().join("fuzz")
}

/// The number in libFuzzer's last words, `Done 2344554 runs in 21 second(s)`.
fn runs(said: &str) -> Option<u64> {
    let done = said.lines().rev().find_map(|line| line.strip_prefix("Done "))?;
    done.split(' ').next()?.parse().ok()
}

/// The lines at the end, which tell of a crash and of how to have it again.
fn end(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_runs_is_read() {
        assert_eq!(runs("#2 INITED\nDone 2344554 runs in 21 second(s)\nstat::x: 1\n"), Some(2_344_554));
        assert_eq!(runs("==1== ERROR: libFuzzer: deadly signal"), None);
    }

    #[test]
    fn every_target_has_its_corpus_and_its_file() {
        for target in TARGETS {
            let folder = workspace::root().join(target.folder);
            let corpus = folder.join("corpus").join(target.name);
            let seeds = fs::read_dir(&corpus).map_or(0, Iterator::count);
            assert!(seeds > 0, "{} holds nothing", corpus.display());
            assert_eq!(target.has_words, corpus.with_extension("dict").exists(), "{}", target.name);
            assert!(folder.join(format!("fuzz_targets/{}.rs", target.name)).exists());
        }
    }
}
