//! A site on its way into force: its plan, and what its sets hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tracing::{error, warn};

use super::Options;
use super::memory::{Doubt, Memory, Snapshot};
use crate::plan::{self, Plan, SetPlan};
use crate::sets::{self, Declared};
use crate::site::sets::read_file;
use crate::site::{Checked, Extent, Faults};

/// A site that can be put in force.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    /// This server's part of it.
    pub(super) plan: Plan,
    /// What its sets hold.
    pub(super) declared: BTreeMap<String, Declared>,
    /// What all of this was read from.
    pub(super) snapshot: Arc<Snapshot>,
}

impl Loaded {
    /// Reads the site file, and the files that its sets name.
    ///
    /// # Errors
    /// Every fault of them.
    pub(super) fn read(options: &Options) -> Result<Self> {
        Self::of(options, &Checked::read(&options.site).map_err(refusal)?, None)
    }

    /// What an agent starts from: the site file, unless that was never confirmed. Returns why it was not the file, too.
    ///
    /// # Errors
    /// Neither the file nor a confirmed copy can be used.
    pub(super) fn at_start(options: &Options, memory: &Memory) -> Result<(Self, Option<String>)> {
        let read = Self::read(options);
        let doubt = memory.doubt(read.as_ref().ok().map(|read| &*read.snapshot))?;
        let Some(doubt) = doubt else { return Ok((read?, None)) };
        let file = options.site.display();
        let why = match doubt {
            Doubt::DiedWaiting => format!("the agent ended while a change of {file} waited for its confirmation"),
            Doubt::TakenBack => format!("{file} is as it was when it was taken back, because nobody confirmed it"),
        };
        let Some(confirmed) = memory.confirmed()? else {
            error!("{why}; there is no confirmed copy to start from, so the file is used after all");
            return Ok((read?, None));
        };
        let notice = format!(
            "{why}: in force is the site as it was last confirmed. `foobar apply` puts the file in force, \
             `foobar apply --confirm 60s` for a trial"
        );
        error!("{notice}");
        let checked = Checked::parse(confirmed.path(), confirmed.text()).map_err(refusal);
        let loaded = checked.and_then(|checked| Self::of(options, &checked, Some(&confirmed)));
        Ok((loaded.context("the confirmed copy cannot be used")?, Some(notice)))
    }

    fn of(options: &Options, checked: &Checked, confirmed: Option<&Snapshot>) -> Result<Self> {
        tell(&checked.warnings);
        tell(&checked.check_files(Extent::Server(&options.server)).refuse_errors().map_err(refusal)?);
        let plan = plan::plan(&checked.site, &options.server)?;
        let (mut declared, mut files) = (BTreeMap::new(), BTreeMap::new());
        for SetPlan { name, prefixes, file } in plan.sets.clone() {
            let held = match &file {
                Some(path) => {
                    let kept = confirmed.and_then(|confirmed| confirmed.file(path));
                    let prefixes = kept.map_or_else(|| read_set(path), Ok)?;
                    files.insert(path.clone(), Arc::clone(&prefixes));
                    Some((path.clone(), prefixes))
                }
                None => None,
            };
            declared.insert(name, Declared::new(&prefixes, held));
        }
        let snapshot = Snapshot::of_text(&options.site, &checked.source.text).with_files(files);
        Ok(Self { plan, declared, snapshot: Arc::new(snapshot) })
    }
}

fn read_set(path: &Path) -> Result<Arc<[IpNet]>> {
    Ok(sets::sorted(read_file(path)?))
}

fn refusal(faults: Faults) -> anyhow::Error {
    anyhow::Error::new(faults)
}

fn tell(warnings: &Faults) {
    if !warnings.is_empty() {
        warn!("{warnings}");
    }
}
