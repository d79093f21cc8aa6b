//! The time in which a change waits to be confirmed.
//!
//! Shared with the control socket: a confirmation must not wait for the agent's loop, which may be restarting processes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep_until};

use super::control::Applied;
use super::memory::{Memory, Snapshot};
use crate::sets::Files;

/// What the kernel has to be told.
pub(super) type KeepInKernel = Box<dyn Fn() -> Result<()> + Send>;

/// The window of one server; closed most of the time.
#[derive(Debug, Default)]
pub(super) struct Window {
    open: Mutex<Option<Open>>,
    changed: tokio::sync::Notify,
}

/// A change that waits.
pub(super) struct Open {
    /// Its generation.
    pub(super) generation: u32,
    /// When it is taken back.
    pub(super) until: Instant,
    /// What becomes the confirmed copy.
    pub(super) snapshot: Arc<Snapshot>,
    /// Where it becomes that.
    pub(super) memory: Memory,
    /// What remains of the sets' entries then.
    pub(super) files: Files,
    /// Stops the kernel from falling back by itself.
    pub(super) keep: KeepInKernel,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens it.
    pub(super) fn open(&self, open: Open) {
        *self.lock() = Some(open);
        self.changed.notify_one();
    }

    /// What waits, and for how much longer.
    pub(super) fn waiting(&self) -> Option<Applied> {
        self.lock().as_ref().map(|open| {
            let left = open.until.saturating_duration_since(Instant::now());
            Applied { generation: open.generation, left_ms: Some(milliseconds(left)) }
        })
    }

    /// Keeps the change: in the kernel first, then as what a next start puts in force.
    ///
    /// # Errors
    /// Nothing waits, or it is too late, or it cannot be kept.
    pub(super) fn confirm(&self) -> Result<Applied> {
        let mut slot = self.lock();
        let Some(open) = slot.as_ref() else {
            bail!("nothing waits for confirmation: what is in force stays in force");
        };
        if open.until <= Instant::now() {
            bail!("too late: generation {} has not been confirmed in time, and is taken back", open.generation);
        }
        (open.keep)().context("the kernel does not keep it, so it will be taken back")?;
        let generation = open.generation;
        let kept = open.memory.keep(&open.snapshot).and_then(|()| open.files.drop_others());
        *slot = None;
        drop(slot);
        self.changed.notify_one();
        kept.with_context(|| {
            format!(
                "generation {generation} is in force for good, but it cannot be remembered for the agent's next start"
            )
        })?;
        Ok(Applied { generation, left_ms: None })
    }

    /// Closes it; `None`: it was confirmed meanwhile, or never opened.
    pub(super) fn close(&self) -> Option<Open> {
        self.lock().take()
    }

    /// Waits until a change has waited in vain.
    pub(super) async fn expired(&self) {
        loop {
            let until = self.lock().as_ref().map(|open| open.until);
            match until {
                None => self.changed.notified().await,
                Some(until) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = sleep_until(until) => return,
                },
            }
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::sets::Sets;

    fn opened(folder: &Path, within: Duration, kept: &Arc<AtomicBool>) -> Window {
        let window = Window::default();
        let kept = Arc::clone(kept);
        window.open(Open {
            generation: 7,
            until: Instant::now() + within,
            snapshot: Arc::new(Snapshot::of_text(Path::new("site.toml"), "the new one")),
            memory: Memory::new(folder),
            files: Sets::new(folder).files(),
            keep: Box::new(move || {
                kept.store(true, Ordering::Relaxed);
                Ok(())
            }),
        });
        window
    }

    #[tokio::test]
    async fn what_is_confirmed_is_kept_and_remembered() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let window = opened(folder.path(), Duration::from_secs(60), &kept);
        assert!(window.waiting().unwrap().left().is_some_and(|left| left <= Duration::from_secs(60)));
        assert_eq!(window.confirm().unwrap(), Applied { generation: 7, left_ms: None });
        assert!(kept.load(Ordering::Relaxed) && window.waiting().is_none() && window.close().is_none());
        assert_eq!(Memory::new(folder.path()).confirmed().unwrap().unwrap().text(), "the new one");
        assert!(window.confirm().unwrap_err().to_string().contains("nothing waits"));
    }

    #[tokio::test]
    async fn what_is_not_confirmed_expires() {
        let (folder, kept) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let window = opened(folder.path(), Duration::ZERO, &kept);
        window.expired().await;
        assert!(window.confirm().unwrap_err().to_string().contains("too late"));
        assert!(!kept.load(Ordering::Relaxed) && window.close().is_some());
        assert!(Memory::new(folder.path()).confirmed().unwrap().is_none());
    }
}
