//! What is asked of a site whose database fails over, whoever sees to that.

use std::fmt::Debug;
use std::path::PathBuf;

use anyhow::Result;

use crate::cluster::Cluster;

/// A site of two database servers, reached by writers through one address.
pub(super) trait Contestant: Debug {
    /// Its name in tables.
    fn name(&self) -> &'static str;
    /// Its servers.
    fn cluster(&self) -> &Cluster;
    /// The folder of the unix socket of a server's PostgreSQL.
    fn socket(&self, server: &str) -> PathBuf;
    /// Who leads.
    fn leader(&self) -> Result<&'static str>;
    /// Whether `leader` leads, and commits wait for the other server.
    fn is_settled(&self, leader: &str) -> Result<bool>;
    /// Everything on a server dies at once.
    fn kill(&mut self, server: &'static str) -> Result<()>;
    /// It is started again.
    fn revive(&mut self, server: &'static str) -> Result<()>;
    /// One hands over to the other, by the command for that.
    fn switchover(&self, from: &str, to: &str) -> Result<()>;
    /// When a server took the lease after `at`, in microseconds of the boot-time clock: as near as each tells, be it before its store
    /// has answered or after.
    fn taken(&self, server: &str, at: i64) -> Result<i64>;
    /// When a dead server's clients were fenced off from it by something that needs nobody alive; `None`: they are not.
    fn fenced(&self, server: &str) -> Result<Option<i64>>;
    /// What it was set to, and how it fences; for people.
    fn about(&self) -> String;
    /// What helps to understand why something did not happen.
    fn told(&self) -> String;
}
