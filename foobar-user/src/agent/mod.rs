//! The agent: does one server's part of the site, from its start to its orderly end.
//!
//! What can be refused is refused before anything changes: the site file, the host, ports and interfaces. Then, in this
//! order: the firewall closes, health checks begin, processes start. A stop ends the processes and leaves the firewall.

pub mod control;
mod detach;
mod edge;
mod flows;
mod folders;
mod lock;
mod members;
mod server;
mod sources;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::interval;
use tracing::{error, info};

pub use self::detach::detach;
pub use self::folders::ServerFolders;
pub use self::status::Status;

use self::control::{Control, Request};
use self::lock::Lock;
use self::server::Server;
use crate::datapath::links::Wanted;
use crate::host::requirements;

/// Time between two looks at whether the interfaces are still those that carry the firewall.
const INTERFACE_CHECK: Duration = Duration::from_secs(1);

/// How an agent is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The site file.
    pub site: PathBuf,
    /// The server whose part it does.
    pub server: String,
    /// Folder of sockets and of what a reboot clears.
    pub run_dir: PathBuf,
    /// Folder of what survives a reboot.
    pub state_dir: PathBuf,
    /// Mount point of bpffs.
    pub bpffs: PathBuf,
    /// cgroup v2 folder whose processes the connect hooks serve; `None`: the whole machine.
    pub cgroup: Option<PathBuf>,
    /// How the firewall is attached.
    pub mode: Wanted,
    /// Whether each dropped packet is logged.
    pub log_drops: bool,
}

/// Runs an agent until it is asked to stop.
///
/// # Errors
/// Why it could not start; then nothing was changed that an earlier agent had left in force.
pub async fn run(options: Options) -> Result<()> {
    requirements::check()?;
    let folders = ServerFolders::new(&options)?;
    folders.create()?;
    let _lock = Lock::take(&folders.lock(), &options.server)?;
    // Before the start, so that a signal during it is not lost.
    let mut ends = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let mut hangup = signal(SignalKind::hangup())?;
    let (requests, mut inbox) = mpsc::channel(16);

    let _control = Control::listen(&folders.control(), requests)?;
    let mut server = Server::start(options, folders).await?;
    info!(server = server.name(), generation = server.generation(), "running");
    let [term, int] = &mut ends;
    let mut members = server.members();
    let mut look = interval(INTERFACE_CHECK);
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hangup.recv() => {
                if let Err(refusal) = server.reload().await {
                    error!("reload refused, what ran keeps running:\n{refusal:#}");
                }
            }
            changed = members.changed() => {
                changed.context("the health checks ended: this is a bug, restart the agent")?;
                members.mark_unchanged();
                server.follow_health();
            }
            _ = look.tick() => server.follow_interfaces(),
            Some(request) = inbox.recv() => answer(&mut server, request).await,
        }
    }
    info!(server = server.name(), "stopping");
    server.stop().await;
    Ok(())
}

async fn answer(server: &mut Server, request: Request) {
    match request {
        // Who asked may have gone away.
        Request::Status(reply) => drop(reply.send(Arc::new(server.status()))),
        Request::Reload(reply) => {
            let result = server.reload().await;
            if let Err(refusal) = &result {
                error!("reload refused, what ran keeps running:\n{refusal:#}");
            }
            drop(reply.send(result.map(|()| server.generation())));
        }
    }
}
