//! Debian packages by what they are for, each with the file that proves it is installed.

use std::path::Path;

use super::linker;
use crate::bpf::{Toolchain, World};
use crate::command;

/// What packages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Compilers and linkers.
    Compile,
    /// Clippy for the BPF target.
    Lint,
    /// What the site's servers run, and the bed's tools.
    Site,
    /// Load generator and peers.
    Bench,
    /// Virtual machines with Debian's kernels.
    Kernels,
    /// Fuzz targets.
    Fuzz,
}

impl Group {
    /// Every group.
    pub(crate) const ALL: [Self; 6] = [Self::Compile, Self::Lint, Self::Site, Self::Bench, Self::Kernels, Self::Fuzz];
}

/// A package to install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: &'static str,
    /// The service that it would start at boot, which nobody asked for.
    pub(crate) service: Option<&'static str>,
}

/// A program (searched for in PATH) or a file (absolute) that proves a package.
type Proof = &'static str;

const LINK: &[(Package, Proof)] = &[(plain("gcc"), "cc"), (plain("libc6-dev"), "/usr/include/stdlib.h")];
const COMPILER: [Package; 2] = [plain("rustc-web"), plain("libstd-rust-web-dev-bpf")];
const LINKER: [Package; 2] = [plain("llvm-22-dev"), plain("libpolly-22-dev")];
const CLIPPY: &[(Package, Proof)] = &[(plain("rust-web-clippy"), "/usr/bin/clippy-driver")];
const SITE: &[(Package, Proof)] = &[
    (service("nginx", "nginx"), "nginx"),
    (service("postgresql-15", "postgresql"), "/usr/lib/postgresql/15/bin/postgres"),
    (service("prometheus", "prometheus"), "prometheus"),
    (service("etcd-server", "etcd"), "etcd"),
    (plain("etcd-client"), "etcdctl"),
    (plain("iproute2"), "ip"),
    (plain("ethtool"), "ethtool"),
];
const BENCH: &[(Package, Proof)] = &[
    (plain("wrk"), "wrk"),
    (service("haproxy", "haproxy"), "haproxy"),
    (service("patroni", "patroni"), "patroni"),
    // What Patroni speaks TLS with needs it, and only recommends it.
    (plain("python3-idna"), "/usr/lib/python3/dist-packages/idna/__init__.py"),
    (plain("libnginx-mod-stream"), "/usr/lib/nginx/modules/ngx_stream_module.so"),
    (service("nftables", "nftables"), "nft"),
    (plain("xdp-tools"), "xdp-filter"),
];
const KERNELS: &[(Package, Proof)] = &[
    (plain("qemu-system-x86"), "qemu-system-x86_64"),
    (plain("busybox-static"), "busybox"),
    (plain("kmod"), "depmod"),
];
/// libFuzzer is C++, compiled with its targets.
const FUZZ: &[(Package, Proof)] = &[(plain("g++"), "c++")];

const fn plain(name: &'static str) -> Package {
    Package { name, service: None }
}

const fn service(name: &'static str, service: &'static str) -> Package {
    Package { name, service: Some(service) }
}

/// The packages of these groups that are not installed; which compilers are needed depends on the toolchain found.
pub(crate) fn missing(groups: &[Group], toolchain: Option<&Toolchain>) -> Vec<Package> {
    let mut missing = Vec::new();
    for group in groups {
        match group {
            Group::Compile => {
                missing.extend(absent(LINK));
                if toolchain.is_none() {
                    // Installed but too old counts as missing: apt upgrades it.
                    missing.extend(COMPILER);
                }
                if linker::find().is_none() {
                    missing.extend(LINKER);
                }
            }
            // Rustup's nightly brings its own clippy, and an override is its owner's business.
            Group::Lint if toolchain.is_none_or(|toolchain| toolchain.world == World::Debian) => {
                missing.extend(absent(CLIPPY));
            }
            Group::Lint => {}
            Group::Site => missing.extend(absent(SITE)),
            Group::Bench => missing.extend(absent(BENCH)),
            Group::Kernels => missing.extend(absent(KERNELS)),
            Group::Fuzz => missing.extend(absent(FUZZ)),
        }
    }
    missing
}

fn absent(packages: &'static [(Package, Proof)]) -> impl Iterator<Item = Package> {
    packages.iter().filter(|(_, proof)| !is_present(proof)).map(|(package, _)| *package)
}

fn is_present(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { command::find(proof).is_some() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nightly() -> Toolchain {
        Toolchain { world: World::Nightly, rustc: "/nowhere/bin/rustc".into(), build_std: true }
    }

    #[test]
    fn a_machine_without_a_toolchain_gets_debians() {
        let missing = missing(&[Group::Compile], None);
        assert!(COMPILER.iter().all(|package| missing.contains(package)), "{missing:?}");
    }

    #[test]
    fn a_nightly_needs_neither_debians_compiler_nor_its_clippy() {
        let missing = missing(&[Group::Compile, Group::Lint], Some(&nightly()));
        assert!(!missing.iter().any(|package| package.name.contains("rust")), "{missing:?}");
    }
}
