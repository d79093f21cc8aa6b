//! The flow tables: what is over is taken out, and how full they are is told, by a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tracing::warn;

use crate::datapath::clock;
use crate::datapath::flows::{FlowTables, Sweep};

/// Time between two walks, at the least: a flow is taken out so much later than it might be.
const PAUSE: Duration = Duration::from_secs(5);
/// A walk takes no more than a tenth of one CPU.
const PAUSES: u32 = 9;

/// What the walks have found, by table and family.
#[derive(Debug, Default)]
pub(super) struct Told {
    used: [[AtomicU64; 2]; 3],
    removed: [AtomicU64; 3],
    replies: [[AtomicU64; 2]; 3],
    sizes: [AtomicU64; 3],
}

impl Told {
    /// Entries in use, of each table in each family.
    pub(super) fn used(&self) -> [[u64; 2]; 3] {
        self.used.each_ref().map(|families| families.each_ref().map(|used| used.load(Ordering::Relaxed)))
    }

    /// Entries that were taken out of each table since the agent's start.
    pub(super) fn removed(&self) -> [u64; 3] {
        self.removed.each_ref().map(|removed| removed.load(Ordering::Relaxed))
    }

    /// Entries for replies, of each table in each family.
    pub(super) fn replies(&self) -> [[u64; 2]; 3] {
        self.replies.each_ref().map(|families| families.each_ref().map(|used| used.load(Ordering::Relaxed)))
    }

    /// Entries that each table can hold, of each family.
    pub(super) fn sizes(&self) -> [u64; 3] {
        self.sizes.each_ref().map(|size| size.load(Ordering::Relaxed))
    }

    fn note(&self, all: &Sweep) {
        for (told, found) in self.replies.iter().flatten().zip(all.replies.iter().flatten()) {
            told.store(*found, Ordering::Relaxed);
        }
        for (table, families) in all.flows.into_iter().enumerate() {
            for (family, swept) in families.into_iter().enumerate() {
                self.used[table][family].store(swept.used, Ordering::Relaxed);
                self.removed[table].fetch_add(swept.removed, Ordering::Relaxed);
                self.sizes[table].store(u64::from(swept.size), Ordering::Relaxed);
            }
        }
    }
}

/// Walks through the tables for as long as somebody holds what is returned.
pub(super) fn keep(mut tables: FlowTables) -> Result<Arc<Told>> {
    let told = Arc::new(Told::default());
    let listener = Arc::downgrade(&told);
    let walk = move || {
        let mut fault = String::new();
        while let Some(told) = Weak::upgrade(&listener) {
            let begun = Instant::now();
            match clock::now_ns().and_then(|now| tables.sweep(now)) {
                Ok(all) => told.note(&all),
                Err(error) => warn_once(&mut fault, &error),
            }
            drop(told);
            thread::sleep(PAUSE.max(begun.elapsed() * PAUSES));
        }
    };
    thread::Builder::new().name("flows".to_owned()).spawn(walk).context("cannot start a thread for the flow tables")?;
    Ok(told)
}

/// A fault that stays is told once.
fn warn_once(told: &mut String, error: &anyhow::Error) {
    let fault = format!("{error:#}");
    if fault != *told {
        warn!("flows that are over stay in their tables: {fault}");
        *told = fault;
    }
}
