//! Building and linting the eBPF crate: the same flags for both, for either world.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::symbols::undefined_symbols;
use super::{Toolchain, World, detect};
use crate::command;
use crate::setup::linker;
use crate::workspace::{self, BPF_TRIPLE};

/// Builds the object and refuses one that the kernel would refuse for a missing function.
pub(crate) fn build() -> Result<()> {
    let mut cargo = cargo(&toolchain()?, "build")?;
    command::run(cargo.args(["--release", "--bins"]))?;
    let object = workspace::bpf_object();
    let bytes = std::fs::read(&object).with_context(|| format!("the build left no object at {}", object.display()))?;
    let missing = undefined_symbols(&bytes).with_context(|| format!("{} is no eBPF object", object.display()))?;
    if missing.is_empty() {
        return Ok(());
    }
    // Removed, or a plain `cargo build` would embed it.
    std::fs::remove_file(&object).with_context(|| format!("cannot remove {}", object.display()))?;
    bail!(
        "the eBPF object calls functions that it does not contain: {}.\n\
         bpf-linker does not fail on these, the kernel's loader does. Usual causes: comparing slices (memcmp), copying or \
         zeroing large values (memcpy, memset), 128-bit or floating arithmetic: write it with fixed-size fields",
        missing.join(", ")
    )
}

/// Lints the eBPF crate for its own target; `false` when the toolchain has no clippy.
pub(crate) fn clippy() -> Result<bool> {
    let toolchain = toolchain()?;
    let cargo_clippy = toolchain.programs().join("cargo-clippy");
    if !cargo_clippy.is_file() || !toolchain.programs().join("clippy-driver").is_file() {
        return Ok(false);
    }
    let mut cargo = cargo(&toolchain, "clippy")?;
    command::run(cargo.args(["--release", "--lib", "--bins", "--", "-Dwarnings"]))?;
    Ok(true)
}

fn toolchain() -> Result<Toolchain> {
    detect()?.context("no compiler for the BPF target: run `cargo xtask setup`")
}

/// Cargo for the eBPF crate: `task` is `build` or `clippy`.
fn cargo(toolchain: &Toolchain, task: &str) -> Result<Command> {
    let linker = linker::find().context("no bpf-linker: run `cargo xtask setup`")?;
    let programs = toolchain.programs();
    // Clippy is found beside the compiler it belongs to; `-Z build-std` wants the cargo of its own nightly.
    let mut cargo = match (task, toolchain.world) {
        ("clippy", _) => command::command(programs.join("cargo-clippy")),
        (_, World::Nightly) => command::command(programs.join("cargo")),
        _ => command::cargo(),
    };
    if toolchain.world == World::Nightly {
        cargo.env("CARGO", programs.join("cargo"));
    }
    let flags = [
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".into(),
        "-Ctarget-cpu=v3".into(),
        "-Clink-arg=--btf".into(),
        // Without it every field wider than a byte is loaded byte by byte: twice the instructions.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ];
    cargo
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .arg(task)
        .args(["--package", "foobar-ebpf", "--features", "bpf", "--target", BPF_TRIPLE, "--target-dir"])
        .arg(workspace::bpf_target());
    if toolchain.build_std {
        cargo.args(["-Z", "build-std=core"]);
    }
    Ok(cargo)
}
