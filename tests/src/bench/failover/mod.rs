//! The failover of the database beside Patroni's with etcd and HAProxy: milliseconds without writes, and their parts.
//!
//! Both have the same four servers, wired alike: one in the middle that keeps the lease and gives the one address its server, two
//! databases, one with the writers. Both check the databases five times a second, wait for one replica before they acknowledge, and are
//! struck in turn: everything on the leading server is killed at once; it is started again, and waited for; then the other one hands
//! over by order. While one is measured, the other one is idle.

mod clock;
mod contestant;
mod haproxy;
mod measure;
mod observer;
mod ours;
mod patroni;
mod series;
mod settings;

use anyhow::Result;

use self::contestant::Contestant;
use self::patroni::Patroni;
use self::series::Series;
use super::row::Row;
use crate::failover::Failover;
use crate::progress::{Progress, check, step};

/// Sets both up, measures them in turn, and removes everything.
pub(super) fn run(progress: &dyn Progress, rounds: u32) -> Result<Vec<Row>> {
    let ours = step(progress, "foobar: a leader and a replica", || Failover::start(""))?;
    let theirs = step(progress, "Patroni, etcd, HAProxy: the same", || Patroni::start(progress))?;
    let mut sites: [(Box<dyn Contestant>, Series); 2] =
        [(Box::new(ours), Series::default()), (Box::new(theirs), Series::default())];
    for round in 0..rounds {
        let mut order: Vec<_> = sites.iter_mut().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for (site, series) in order {
            check(progress)?;
            let what = |event: &str| format!("round {} of {rounds}, {}, {event}", round + 1, site.name());
            let (death, order) = (what("death"), what("switchover"));
            let told = step(progress, &death, || measure::death(site.as_mut(), series, progress))?;
            progress.note(&told);
            let told = step(progress, &order, || measure::switchover(site.as_mut(), series, progress))?;
            progress.note(&told);
        }
    }
    for (site, series) in &sites {
        progress.note(&series.remark(site.name()));
        progress.note(&format!("{:<8} {}", site.name(), site.about()));
    }
    let [(_, own), (peer, theirs)] = &sites;
    Ok(series::rows(own, theirs, peer.name()))
}
