//! Namespaces of the benches: made by name for a run, configured by scripts of `ip`, removed whole when the guard is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::process::feed;
use crate::progress::Progress;
use crate::run::Run;
use crate::{bpffs, leftovers};

/// The namespaces of a run. Dropping it removes them, their processes, the run's pins and files.
#[derive(Debug)]
pub(super) struct Lab {
    run: Run,
    pins: Option<PathBuf>,
}

impl Lab {
    /// A run without namespaces.
    pub(super) fn create() -> Result<Self> {
        Ok(Self { run: Run::create()?, pins: None })
    }

    /// The same with a folder for pins.
    pub(super) fn with_pins(progress: &dyn Progress) -> Result<Self> {
        bpffs::ensure(progress)?;
        let mut lab = Self::create()?;
        lab.pins = Some(bpffs::create(&lab.run.name())?);
        Ok(lab)
    }

    /// The run.
    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// The run's folder of pins.
    pub(super) fn pins(&self) -> Result<&Path> {
        self.pins.as_deref().context("this lab has no folder for pins")
    }

    /// Makes the namespace `name` and runs `script` in it.
    pub(super) fn namespace(&self, name: &str, settings: &[(&str, &str)], script: &str) -> Result<Namespace> {
        let full = self.full(name);
        feed(Command::new("ip").args(["-batch", "-"]), &format!("netns add {full}\n"))?;
        let namespace = Namespace::open(&full)?;
        namespace.run(|| {
            settings.iter().try_for_each(|(key, value)| {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
            })
        })??;
        ip(&namespace, script)?;
        Ok(namespace)
    }

    /// Name of a namespace as `ip` knows it.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.run.name())
    }
}

/// Runs a script of `ip` in a namespace.
pub(super) fn ip(namespace: &Namespace, script: &str) -> Result<()> {
    feed(Command::new("ip").args(["-netns", namespace.name(), "-batch", "-"]), script)
}

/// Index of an interface in the calling thread's namespace.
pub(super) fn index(interface: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(interface).with_context(|| format!("the bench's interface {interface} is missing"))
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove(self.run.id()) {
            eprintln!("foobar-tests: the run {} was not removed whole: {error:#}", self.run.id());
        }
    }
}
