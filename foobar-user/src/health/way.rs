//! The way of the traffic: who is reached by a VIP that it has itself must answer for that VIP, too.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;

use super::wire::Wire;

/// Asks one backend for each VIP of its service.
pub(super) struct Way {
    wire: Arc<Wire>,
    backend: SocketAddr,
    /// None where the way to the backend's own address is that of the traffic.
    vips: Vec<SocketAddr>,
    asked: Option<SocketAddr>,
}

impl Way {
    pub(super) const fn new(wire: Arc<Wire>, backend: SocketAddr, vips: Vec<SocketAddr>) -> Self {
        Self { wire, backend, vips, asked: None }
    }

    /// Asks once; the caller limits the time.
    pub(super) async fn ask(&mut self) -> Result<()> {
        for vip in &self.vips {
            self.asked = Some(*vip);
            self.wire.ask(self.backend.ip(), *vip).await?;
        }
        self.asked = None;
        Ok(())
    }

    /// What is still waited for, in words.
    pub(super) fn silence(&self) -> String {
        self.asked.map_or_else(String::new, |vip| {
            format!(" for the VIP {vip}: does its agent run, does it hold the VIP, and does its firewall let this server in?")
        })
    }
}
