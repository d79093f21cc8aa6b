//! foobar as a contestant: the witness in the balancer's agent, clients sent to the leader at `connect()`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::clock::boot_us;
use super::contestant::Contestant;
use crate::cluster::Cluster;
use crate::failover::Failover;

impl Contestant for Failover {
    fn name(&self) -> &'static str {
        "foobar"
    }

    fn cluster(&self) -> &Cluster {
        self.cluster()
    }

    fn socket(&self, server: &str) -> PathBuf {
        self.socket(server)
    }

    fn leader(&self) -> Result<&'static str> {
        self.leader()
    }

    fn is_settled(&self, leader: &str) -> Result<bool> {
        Ok(self.is_settled(leader))
    }

    fn kill(&mut self, server: &'static str) -> Result<()> {
        self.kill_server(server)
    }

    fn revive(&mut self, server: &'static str) -> Result<()> {
        self.start_agent(server)
    }

    fn switchover(&self, from: &str, to: &str) -> Result<()> {
        self.cluster().ask(from, &["db", "switchover", "--to", to]).map(drop)
    }

    /// As the state of the lease says; to a millisecond.
    fn taken(&self, server: &str, at: i64) -> Result<i64> {
        let status = self.status(server)?;
        let leads = format!("{server} leads:");
        let events = status["events"].as_array().context("events")?.iter();
        let taken = events.filter(|event| event["what"].as_str().is_some_and(|what| what.starts_with(&leads)));
        let times = taken.filter_map(|event| Some(boot_us(event["at_ms"].as_i64()? * 1_000)));
        times.filter(|time| *time >= at).min().with_context(|| format!("{server} has not taken the lease: {status}"))
    }

    /// The end of its lease, as it stands in the kernel.
    fn fenced(&self, server: &str) -> Result<Option<i64>> {
        let end = self.cluster().fence_end(server)?.context("no fence")?;
        Ok(Some((end / 1_000).cast_signed()))
    }

    fn about(&self) -> String {
        "the database's defaults, a lease of 2 s; checks every 200 ms, rise 1, fall 2; the kernel fences the old leader within `detect`, an eighth of the lease before \
         anybody can take it"
            .to_owned()
    }

    fn told(&self) -> String {
        self.told()
    }
}
