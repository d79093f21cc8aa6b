//! A child that dies is started again by its agent.

use std::time::Duration;

use anyhow::{Result, ensure};
use foobar_tests::{Bed, eventually};

/// The guest book of app1 is killed: other processes take its place, and pages never stop.
pub(crate) fn process(bed: &Bed) -> Result<()> {
    let https = bed.https()?;
    let before = bed.process_ids("app1", "guestbook");
    let restarts = restarts(bed)?;
    ensure!(!before.is_empty(), "no guest book runs on app1");
    bed.kill_process("app1", "guestbook")?;
    eventually(DEADLINE, "the guest book of app1 runs again", || {
        let now = bed.process_ids("app1", "guestbook");
        Ok(!now.is_empty() && now.iter().all(|pid| !before.contains(pid)))
    })?;
    eventually(DEADLINE, "the restart is counted", || Ok(self::restarts(bed)? > restarts))?;
    eventually(DEADLINE, "app1 serves pages again", || {
        Ok(bed.get(&https, "/guestbook")?.header("x-app-server") == "app1")
    })
}

fn restarts(bed: &Bed) -> Result<f64> {
    Ok(bed.metrics("app1")?.sum("foobar_process_restarts_total", &[("process", "guestbook")]))
}

const DEADLINE: Duration = Duration::from_secs(10);
