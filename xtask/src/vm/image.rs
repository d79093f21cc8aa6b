//! The machine's whole file system: busybox, the modules needed, the program with its shared libraries, and `init`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::archive::Archive;
use super::boot::{EXIT_MARK, START_MARK};
use super::kernel::Kernel;
use crate::command;

/// Modules that tests may need and that these kernels do not have built in.
const MODULES: &[&str] = &["veth"];

/// Where the program lies in the machine.
const PROGRAM: &str = "test/program";

/// Builds the archive that the kernel boots from.
pub(super) fn build(kernel: &Kernel, program: &Path, arguments: &[String]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for folder in ["bin", "dev", "etc", "modules", "proc", "root", "run", "sys", "test", "tmp"] {
        archive.folder(folder);
    }
    let busybox = command::find("busybox").context("no busybox: run `cargo xtask setup`")?;
    ensure!(libraries(&busybox)?.is_empty(), "{} is not static: install busybox-static", busybox.display());
    archive.file("bin/busybox", 0o755, &read(&busybox)?);
    archive.file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n");
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    add_program(&mut archive, kernel, program)?;
    let modules = add_modules(&mut archive, kernel)?;
    archive.file("init", 0o755, init(&modules, arguments).as_bytes());
    Ok(archive.finish())
}

/// The first process: mounts, loads modules, runs the program, tells its exit code, switches off.
fn init(modules: &[String], arguments: &[String]) -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/root RUST_BACKTRACE=1 FOOBAR_KERNEL=1\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sys /sys\n\
         mount -t devtmpfs dev /dev\n\
         mount -t tmpfs tmp /tmp\n\
         mount -t tmpfs run /run\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mount -t cgroup2 cgroup /sys/fs/cgroup\n\
         ip link set lo up\n",
    );
    for module in modules {
        script.push_str(&format!("insmod /modules/{module}\n"));
    }
    script.push_str(&format!("echo {START_MARK}\n/{PROGRAM}"));
    for argument in arguments {
        script.push_str(&format!(" '{}'", argument.replace('\'', r"'\''")));
    }
    script.push_str(&format!("\necho {EXIT_MARK} $?\npoweroff -f\n"));
    script
}

/// Adds the program without its debug information, which emulation would only copy, and its libraries in their own places.
fn add_program(archive: &mut Archive, kernel: &Kernel, program: &Path) -> Result<()> {
    let content = stripped(kernel, program)?;
    archive.file(PROGRAM, 0o755, &content);
    let mut folders = BTreeSet::new();
    for library in libraries(program)? {
        let mut parents: Vec<&Path> = Path::new(&library).ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.into_iter().filter_map(Path::to_str).filter(|parent| *parent != "/") {
            if folders.insert(parent.to_owned()) {
                archive.folder(parent);
            }
        }
        archive.file(&library, 0o755, &read(Path::new(&library))?);
    }
    Ok(())
}

/// Another machine may be built at the same time, in this process or another one.
fn stripped(kernel: &Kernel, program: &Path) -> Result<Vec<u8>> {
    let Some(strip) = command::find("strip") else { return read(program) };
    let copy = program.with_extension(format!("{}-{}", kernel.package, std::process::id()));
    command::run(command::command(strip).arg("-o").args([&copy, program]))?;
    let content = read(&copy);
    std::fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    content
}

/// Paths of the shared libraries that a program needs; none for a static one.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = command::command("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("{} lacks a library: {}", program.display(), line.trim());
    }
    Ok(library_paths(&text))
}

/// `/lib/a.so` of both `a.so => /lib/a.so (0x…)` and `/lib/a.so (0x…)`.
fn library_paths(ldd: &str) -> Vec<String> {
    let path = |line: &str| {
        let path = line.split(" => ").last()?.split(" (0x").next()?.trim();
        path.starts_with('/').then(|| path.to_owned())
    };
    ldd.lines().filter(|line| line.contains("(0x")).filter_map(path).collect()
}

/// Adds the modules and what they depend on; returns file names in the order of loading.
fn add_modules(archive: &mut Archive, kernel: &Kernel) -> Result<Vec<String>> {
    let folder = kernel.modules();
    let index = folder.join("modules.dep");
    let index = std::fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let mut order: Vec<String> = Vec::new();
    for module in MODULES {
        for path in load_order(&index, module) {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            if !order.contains(&name) {
                archive.file(&format!("modules/{name}"), 0o644, &read(&folder.join(path))?);
                order.push(name);
            }
        }
    }
    Ok(order)
}

/// Paths of what `modules.dep` says a module needs, the module itself last; empty when it is built in.
fn load_order<'a>(index: &'a str, module: &str) -> Vec<&'a str> {
    let of_module = |path: &str| path.rsplit('/').next().is_some_and(|name| name.split('.').next() == Some(module));
    let Some((path, needs)) = index.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| of_module(path))
    else {
        return Vec::new();
    };
    // modules.dep lists the deepest need last.
    needs.split_whitespace().rev().chain([path]).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_both_kinds_of_lines() {
        let ldd =
            "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(library_paths(ldd), ["/lib/x/libc.so.6", "/lib64/ld.so.2"]);
        assert!(library_paths("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn modules_load_after_what_they_need() {
        let index = "kernel/a.ko: kernel/b.ko.xz kernel/c.ko\nkernel/b.ko.xz: kernel/c.ko\nkernel/c.ko:\n";
        assert_eq!(load_order(index, "a"), ["kernel/c.ko", "kernel/b.ko.xz", "kernel/a.ko"]);
        assert!(load_order(index, "builtin").is_empty());
    }

    #[test]
    fn arguments_survive_the_shell() {
        let script = init(&["veth.ko".to_owned()], &["it's".to_owned()]);
        assert!(script.contains(r"/test/program 'it'\''s'"), "{script}");
        assert!(script.contains("insmod /modules/veth.ko"), "{script}");
    }
}
