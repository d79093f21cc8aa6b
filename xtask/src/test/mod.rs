//! `cargo xtask test`: every layer from pure functions to other kernels, and one table at the end.

mod artifacts;
mod libtest;
mod program;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use artifacts::Artifact;
use report::{Counts, Layer, Report};

use crate::cli::TestOptions;
use crate::setup::{self, Group};
use crate::{bpf, command, fuzz, root, vm, workspace};

/// The program of the `tests` package that loads the object and runs the packet tables through it.
const PACKETS: &str = "foobar-packets";

/// The tests of the `foobar-user` package in which processes are limited by their cgroups.
const LIMITS: &str = "process_limits";

/// The tests of the `tests` package in which the database fails over.
const FAILOVER: &str = "failover";

/// Frames by chance on another kernel: emulation is some thirty times slower.
const EMULATED_FRAMES: &str = "10000";

/// Names of all layers, in the order they run: the quickest to tell of a fault first.
fn layers() -> Vec<String> {
    let kernels = vm::SERIES.iter().map(|series| format!("kernel-{series}"));
    ["host", "packets", "fuzz", "site"].map(str::to_owned).into_iter().chain(kernels).collect()
}

/// Runs the chosen layers; whether all passed.
pub(crate) fn run(options: &TestOptions) -> Result<bool> {
    let chosen = chosen(options)?;
    if chosen.iter().any(|layer| layer == "packets" || layer == "site") {
        root::require(
            "test",
            "it loads programs into the kernel and makes network namespaces (`--layer host` does not)",
        )?;
    }
    // Fuzz targets are workspaces of their own, built when they run.
    let artifacts = if chosen.iter().all(|layer| layer == "fuzz") {
        Vec::new()
    } else {
        setup::groups(&groups(&chosen))?;
        bpf::build()?;
        artifacts::build()?
    };
    let filter: Vec<String> = options.filter.iter().cloned().collect();
    let (kernels, layers): (Vec<String>, Vec<String>) = chosen.into_iter().partition(|name| of_kernel(name));
    let mut report = Report::default();
    for name in layers {
        println!("\n== {name}");
        report.layers.push(layer(name, &artifacts, &filter, options));
    }
    if !kernels.is_empty() {
        println!("\n== {}", kernels.join(", "));
    }
    report.layers.extend(at_once(kernels, |name| layer(name, &artifacts, &filter, options)));
    println!("\n{}", report.table());
    Ok(report.total().failed == 0)
}

/// Runs what has a processor of its own: an emulator has one.
fn at_once(names: Vec<String>, run: impl Fn(String) -> Layer + Sync) -> Vec<Layer> {
    let run = &run;
    std::thread::scope(|scope| {
        let running: Vec<_> = names.into_iter().map(|name| scope.spawn(move || run(name))).collect();
        running.into_iter().map(|layer| layer.join().expect("a layer that panics is a fault of this program")).collect()
    })
}

/// Runs a layer.
fn layer(name: String, artifacts: &[Artifact], filter: &[String], options: &TestOptions) -> Layer {
    let started = Instant::now();
    let mut layer = Layer { name, counts: Counts::default(), time: Duration::ZERO, note: None, skipped: None };
    // A first build of the fuzz targets takes long: only where somebody has fuzzed before, or when asked for.
    let asked = options.long || options.layer.contains(&layer.name);
    let unready = (layer.name == "fuzz").then(|| if asked { fuzz::prepare() } else { fuzz::installed() });
    if let Some(Err(error)) = unready {
        layer.skipped = Some(format!("{error:#}"));
        layer.counts.skipped = fuzz::TARGETS.len() as u32;
    } else {
        match run_layer(&layer.name, artifacts, filter, options) {
            Ok(counts) => layer.counts = counts,
            Err(error) => {
                eprintln!("{}: {error:#}", layer.name);
                layer.note = Some("broke: see above".to_owned());
            }
        }
    }
    layer.time = started.elapsed();
    layer.settle(!filter.is_empty())
}

fn of_kernel(name: &str) -> bool {
    name.starts_with("kernel-")
}

fn chosen(options: &TestOptions) -> Result<Vec<String>> {
    let all = layers();
    for name in &options.layer {
        ensure!(all.contains(name), "there is no layer {name:?}; there are {}", all.join(", "));
    }
    let wanted = |name: &String| {
        if options.failover {
            return name == "site";
        }
        let named = options.layer.is_empty() || options.layer.contains(name);
        named && (!options.kernels || of_kernel(name)) && (!options.no_kernels || !of_kernel(name))
    };
    let chosen: Vec<String> = all.into_iter().filter(wanted).collect();
    ensure!(!chosen.is_empty(), "these options leave no layer to run");
    Ok(chosen)
}

/// What these layers need installed.
fn groups(chosen: &[String]) -> Vec<Group> {
    let mut groups = vec![Group::Compile];
    // The host's tests run nginx, PostgreSQL and promtool too.
    if chosen.iter().any(|layer| layer == "site" || layer == "host") {
        groups.extend([Group::Site, Group::Bench]);
    }
    if chosen.iter().any(|layer| of_kernel(layer)) {
        groups.push(Group::Kernels);
    }
    groups
}

fn run_layer(name: &str, artifacts: &[Artifact], filter: &[String], options: &TestOptions) -> Result<Counts> {
    let long = options.long;
    match (name, name.strip_prefix("kernel-")) {
        (_, Some(series)) => {
            let mut counts = emulated(series, packets(artifacts)?, &["--frames", EMULATED_FRAMES], filter)?;
            // One test at a time: the only processor is an emulated one.
            counts += emulated(series, limits(artifacts)?, &["--test-threads", "1"], filter)?;
            Ok(counts)
        }
        ("packets", _) => program(packets(artifacts)?, filter, options),
        ("fuzz", _) => fuzzed(filter, long),
        ("site", _) => {
            let wanted =
                |artifact: &&Artifact| artifact.is_site_test() && (!options.failover || artifact.name == FAILOVER);
            programs(artifacts.iter().filter(wanted), filter, options)
        }
        _ => {
            let tests = artifacts.iter().filter(|artifact| artifact.is_test && !artifact.is_site_test());
            let mut counts = programs(tests, filter, options)?;
            println!("-- examples in the documentation");
            counts += program::run(
                command::cargo().args(["test", "--workspace", "--doc", "--quiet", "--"]).args(filter),
                program::DEADLINE,
            )?;
            Ok(counts)
        }
    }
}

/// Runs a program on a kernel of its own.
fn emulated(series: &str, program: &Artifact, options: &[&str], filter: &[String]) -> Result<Counts> {
    let options = options.iter().map(|&option| option.to_owned());
    let outcome = vm::run(series, &program.executable, &options.chain(filter.iter().cloned()).collect::<Vec<_>>())?;
    Ok(libtest::counts(&outcome.lines, outcome.exit_code == 0))
}

/// The tests of limits: on these kernels cgroup v2 has every controller, whatever this machine's has.
fn limits(artifacts: &[Artifact]) -> Result<&Artifact> {
    let found = artifacts.iter().find(|artifact| artifact.is_test && artifact.name == LIMITS);
    found.with_context(|| format!("the package `foobar-user` has no tests `{LIMITS}`"))
}

fn packets(artifacts: &[Artifact]) -> Result<&Artifact> {
    let found =
        artifacts.iter().find(|artifact| !artifact.is_test && artifact.kind == "bin" && artifact.name == PACKETS);
    found.with_context(|| format!("the package `foobar-tests` has no program `{PACKETS}`"))
}

/// Runs the fuzz targets whose name holds the filter: each is a test.
fn fuzzed(filter: &[String], long: bool) -> Result<Counts> {
    let seconds = if long { 60 } else { 20 };
    let mut counts = Counts::default();
    for target in fuzz::TARGETS.iter().filter(|target| filter.iter().all(|part| target.name.contains(part.as_str()))) {
        *if target.run(seconds)? { &mut counts.passed } else { &mut counts.failed } += 1;
    }
    Ok(counts)
}

fn programs<'a>(
    artifacts: impl Iterator<Item = &'a Artifact>,
    filter: &[String],
    options: &TestOptions,
) -> Result<Counts> {
    let mut counts = Counts::default();
    for artifact in artifacts {
        counts += program(artifact, filter, options)?;
    }
    Ok(counts)
}

/// Runs a program as `cargo test` would: in its package's folder, and told where the other programs lie.
fn program(artifact: &Artifact, filter: &[String], options: &TestOptions) -> Result<Counts> {
    let crate_name = artifact.folder.file_name().unwrap_or_default().to_string_lossy();
    println!("-- {crate_name}: {} ({})", artifact.name, artifact.kind);
    let mut test = command::command(&artifact.executable);
    test.args(filter)
        .current_dir(&artifact.folder)
        .env("CARGO_MANIFEST_DIR", &artifact.folder)
        .env("FOOBAR_BIN_DIR", workspace::target().join("debug"));
    for (asked, variable) in [(options.long, "FOOBAR_LONG"), (options.failover, "FOOBAR_FAILOVER")] {
        if asked {
            test.env(variable, "1");
        }
    }
    program::run(&mut test, if options.long || options.failover { program::LONG_DEADLINE } else { program::DEADLINE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_choose_layers() {
        let names = |options: TestOptions| chosen(&options).expect("they name layers").join(" ");
        assert_eq!(names(TestOptions::default()), "host packets fuzz site kernel-6.1 kernel-6.12");
        assert_eq!(names(TestOptions { kernels: true, ..TestOptions::default() }), "kernel-6.1 kernel-6.12");
        assert_eq!(names(TestOptions { no_kernels: true, ..TestOptions::default() }), "host packets fuzz site");
        assert_eq!(names(TestOptions { layer: vec!["host".into()], ..TestOptions::default() }), "host");
        assert!(chosen(&TestOptions { layer: vec!["moon".into()], ..TestOptions::default() }).is_err());
    }
}
