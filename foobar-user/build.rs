//! Picks up the eBPF object that `cargo xtask build` made; without it user space still builds, and says so when it must load.

use std::path::PathBuf;

/// Where `cargo xtask build` leaves the object, relative to the workspace.
const OBJECT: &str = "target/bpf/bpfel-unknown-none/release/foobar";

fn main() {
    println!("cargo:rustc-check-cfg=cfg(bpf_embedded)");
    println!("cargo:rerun-if-env-changed=FOOBAR_BPF_OBJECT");
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let object = std::env::var_os("FOOBAR_BPF_OBJECT").map_or_else(|| workspace.join(OBJECT), PathBuf::from);
    println!("cargo:rerun-if-changed={}", object.display());
    if let Ok(object) = object.canonicalize() {
        println!("cargo:rustc-env=FOOBAR_BPF_OBJECT={}", object.display());
        println!("cargo:rustc-cfg=bpf_embedded");
    } else {
        println!(
            "cargo:warning=no eBPF object at {}: `cargo xtask build` makes it; building without",
            object.display()
        );
    }
}
