//! SYN floods: seen by the packet path at the listeners, answered by it with cookies for as long as they last.
//!
//! Here it is decided when. Cookies that XDP gives out are taken by the stack itself, which needs settings of its own for
//! that time; they are put back when the last of their ACKs have come.

mod stack;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use self::watch::{Left, Step, Watch};
use crate::datapath::handshakes::Handshakes;
use crate::host::settings;

/// Time between two looks: a listener's queue of thousands takes longer to fill.
const LOOK: Duration = Duration::from_millis(100);

/// Watches over the listeners of a server for as long as it lives.
#[derive(Debug)]
pub struct Guard {
    told: Arc<Told>,
    task: AbortHandle,
}

/// What the guard and others tell each other.
#[derive(Debug)]
pub struct Told {
    half_open: AtomicU32,
    answering: AtomicBool,
    floods: AtomicU64,
}

impl Told {
    /// Whether SYNs are answered with cookies.
    #[must_use]
    pub fn answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }

    /// Floods since the agent's start.
    #[must_use]
    pub fn floods(&self) -> u64 {
        self.floods.load(Ordering::Relaxed)
    }
}

impl Guard {
    /// Begins to watch. `half_open` connections of one listener are a flood; 0: never. `run` is the server's run folder.
    ///
    /// # Errors
    /// The stack's settings or the maps cannot be read.
    pub fn start(mut handshakes: Handshakes, half_open: u32, run: &Path) -> Result<Self> {
        let memory = stack::memory(run);
        let answering = handshakes.answering()?;
        handshakes.set(stack::agreed(answering, half_open)?)?;
        let told = Arc::new(Told {
            half_open: AtomicU32::new(half_open),
            answering: AtomicBool::new(answering),
            floods: AtomicU64::new(0),
        });
        let left = match (answering, memory.exists()) {
            (true, _) => Left::Answering,
            (false, true) => Left::Draining,
            (false, false) => Left::Normal,
        };
        let watch = Watch::new(half_open, left, Duration::ZERO, handshakes.seen()?);
        let keeper = Keeper { handshakes, watch, begun: Instant::now(), memory, told: Arc::clone(&told) };
        Ok(Self { told, task: tokio::spawn(keeper.keep()).abort_handle() })
    }

    /// Another number of half-open connections is a flood from now on.
    pub fn set_half_open(&self, half_open: u32) {
        self.told.half_open.store(half_open, Ordering::Relaxed);
    }

    /// What it does.
    #[must_use]
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told)
    }
}

/// What it has begun goes on in the kernel, and is taken up by the next agent.
impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Puts the stack's settings back, of a server whose data path is gone.
///
/// # Errors
/// Their memory cannot be read.
pub fn restore(run: &Path) -> Result<()> {
    settings::restore(&stack::memory(run))
}

struct Keeper {
    handshakes: Handshakes,
    watch: Watch,
    begun: Instant,
    memory: PathBuf,
    told: Arc<Told>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            tick.tick().await;
            // A fault that stays is told once.
            let fault = self.look().err().map(|error| format!("{error:#}")).unwrap_or_default();
            if fault != told && !fault.is_empty() {
                error!("SYN floods are left to the kernel's own cookies: {fault}");
            }
            told = fault;
        }
    }

    fn look(&mut self) -> Result<()> {
        let half_open = self.told.half_open.load(Ordering::Relaxed);
        if self.watch.half_open() != half_open {
            self.watch.set_half_open(half_open);
            self.handshakes.set(stack::agreed(self.watch.answering(), half_open)?)?;
        }
        let seen = self.handshakes.seen()?;
        let before = self.watch.clone();
        let Some(step) = self.watch.look(self.begun.elapsed(), seen) else { return Ok(()) };
        let done = self.take(step, half_open);
        if done.is_err() {
            match step {
                Step::Begin => self.watch.give_up(),
                // Tried again with the next look.
                Step::End | Step::Restore => self.watch = before,
            }
        }
        self.told.answering.store(self.watch.answering(), Ordering::Relaxed);
        done
    }

    fn take(&mut self, step: Step, half_open: u32) -> Result<()> {
        match step {
            Step::Begin => {
                // The stack takes cookies before the first is given out.
                stack::begin(&self.memory).context("the stack cannot be told to take cookies")?;
                self.handshakes.set(stack::agreed(true, half_open)?)?;
                self.told.floods.fetch_add(1, Ordering::Relaxed);
                warn!(
                    "a SYN flood: a listener has {half_open} half-open connections or its queue is nearly full; SYNs are answered with cookies"
                );
            }
            Step::End => {
                self.handshakes.set(stack::agreed(false, half_open)?)?;
                info!("the SYN flood is over: SYNs are the stack's again");
            }
            Step::Restore => settings::restore(&self.memory)?,
        }
        Ok(())
    }
}
