//! Where things are: the workspace's folders, and the names of what is built into them.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    // The crate's own folder is `<root>/xtask`; it always has a parent.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's target folder of the host crates; `CARGO_TARGET_DIR` is respected.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo's target folder of the eBPF crate; `foobar-user/build.rs` looks here.
pub(crate) fn bpf_target() -> PathBuf {
    root().join("target/bpf")
}

/// The eBPF target triple; its byte order is the host's.
pub(crate) const BPF_TRIPLE: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The eBPF object with all programs.
pub(crate) fn bpf_object() -> PathBuf {
    bpf_target().join(BPF_TRIPLE).join("release/foobar")
}
