//! A network namespace: made and removed by name, entered by threads and by child processes.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{io, thread};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

/// Where `ip netns` keeps names.
pub const FOLDER: &str = "/run/netns";

/// An open network namespace. Cloning shares the handle.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Opens the namespace called `name`.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(FOLDER).join(name);
        let file = File::open(&path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), file: Arc::new(file) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, for `nsenter --net=`.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace. Threads that `work` starts are inside too.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name(self.name.clone())
                .spawn_scoped(scope, || {
                    self.enter()?;
                    Ok(work())
                })
                .context("cannot start a thread")?;
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs the future that `make` returns on a runtime of its own inside the namespace.
    pub fn block_on<T: Send, F: Future<Output = T>>(&self, make: impl FnOnce() -> F + Send) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start an asynchronous runtime")?;
            Ok(runtime.block_on(make()))
        })?
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(&*self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Makes `command` start inside the namespace.
    pub fn attach(&self, command: &mut Command) {
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec only `setns` is called, a plain system call on a descriptor that the closure keeps open.
        unsafe {
            command.pre_exec(move || match libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }
}
