//! Sections of the site file compared with each other; what needs a whole section waits until it could be read.

mod addresses;
mod database;
pub(super) mod files;
mod follows;
mod limits;
mod names;
mod order;
mod processes;
mod reach;
mod rules;
mod services;
mod sets;

use super::read::Draft;
use super::section::Collector;

/// Every comparison that needs no file but the site file.
pub(super) fn check(draft: &Draft, faults: &Collector) {
    let site = &draft.site;
    names::unique(site, faults);
    addresses::check(site, faults);
    if !draft.servers_whole {
        // A server that could not be read would look like one that is missing.
        return;
    }
    names::known(site, faults);
    if draft.sets_whole {
        sets::known(site, faults);
    }
    services::check(site, faults);
    if !draft.services_whole {
        return;
    }
    database::check(site, faults);
    follows::check(site, faults);
    processes::check(site, faults);
    limits::check(site, faults);
    if draft.processes_whole {
        order::check(site, faults);
    }
    rules::check(site, faults);
    if draft.sets_whole && draft.rules_whole {
        sets::check(site, faults);
        reach::check(site, faults);
    }
}
