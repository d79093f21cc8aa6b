//! The agent: does one server's part of the site, from its start to its orderly end.
//!
//! What can be refused is refused before anything changes: the site file, the host, ports and interfaces. Then, in this
//! order: the firewall closes, health checks begin, processes start. A stop ends the processes and leaves the firewall.

mod admin;
mod backend;
pub mod control;
mod database;
mod detach;
mod edge;
mod ejections;
mod events;
mod explain;
mod fence;
mod flow_report;
mod flows;
mod folders;
mod load;
mod lock;
mod members;
mod memory;
mod orders;
mod origin;
mod processes;
mod reason;
mod replace;
mod ring;
mod rules;
mod server;
mod services;
mod set;
mod sources;
mod status;
#[cfg(test)]
mod test_site;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep_until};
use tracing::{error, info};

pub use self::admin::Connection;
pub use self::backend::Ordered;
pub use self::detach::detach;
pub use self::events::{Event, Told};
pub use self::explain::Explanation;
pub use self::flow_report::{ClientCount, FlowCount, FlowEntry, FlowsReport};
pub use self::folders::{ServerFolders, logs_folder};
pub use self::processes::{ProcessReport, ProcessesReport};
pub use self::rules::RulesReport;
pub use self::services::{BackendReport, ServiceReport, ServicesReport};
pub use self::set::SetChanged;
pub use self::status::Status;

use self::control::{Apply, Command, Control, Reply, Request};
use self::lock::Lock;
use self::server::{Server, lock};
use self::window::Window;
use crate::datapath::links::Wanted;
use crate::host::requirements;
use crate::process::Earlier;

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
    /// What becomes of processes that an earlier agent has left running.
    pub earlier: Earlier,
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

    let window = Arc::new(Window::default());
    let _control = Control::listen(&folders.control(), requests, Arc::clone(&window))?;
    let mut server = Server::start(options, folders, Arc::clone(&window)).await?;
    info!(server = server.name(), generation = server.generation(), "running");
    let [term, int] = &mut ends;
    let mut members = server.members();
    let mut look = interval(INTERFACE_CHECK);
    loop {
        let expiry = server.next_expiry();
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hangup.recv() => {
                if let Err(refusal) = server.apply(&Apply::default()).await {
                    error!("reload refused, what ran keeps running:\n{refusal:#}");
                }
            }
            () = window.expired() => {
                if let Err(fault) = server.roll_back(false).await {
                    error!("{fault:#}");
                }
            }
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => server.expire_entries(),
            changed = members.changed() => {
                changed.context("the health checks ended: this is a bug, restart the agent")?;
                members.mark_unchanged();
                server.follow_health();
            }
            _ = look.tick() => {
                server.follow_interfaces().await;
                server.follow_vlans().await;
                server.follow_slow_starts();
                server.follow_leaving();
            }
            Some(request) = inbox.recv() => answer(&mut server, request).await,
        }
    }
    info!(server = server.name(), "stopping");
    server.stop().await;
    Ok(())
}

async fn answer(server: &mut Server, request: Request) {
    let reply = match request.command {
        Command::Status => Reply::value(&server.status()),
        Command::Apply(how) => {
            let applied = server.apply(&how).await;
            if let Err(refusal) = &applied {
                error!("reload refused, what ran keeps running:\n{refusal:#}");
            }
            applied.and_then(|applied| Reply::value(&applied))
        }
        // Answered at the socket, so that it does not wait for this loop.
        Command::Confirm => server.window.confirm().and_then(|applied| Reply::value(&applied)),
        Command::Revert => server.roll_back(true).await.and_then(|generation| Reply::value(&generation)),
        Command::Rules => server.rules().and_then(|rules| Reply::value(&rules)),
        Command::Watch { rule } => server.watch(rule).map(Reply::Events),
        Command::Explain { frame, interface } => {
            server.explain(&frame, interface.as_deref()).and_then(|explanation| Reply::value(&explanation))
        }
        Command::Database => server.database().and_then(|report| Reply::value(&report)),
        Command::HandOver { to } => {
            let asked = lock(&server.database).hand_over(to);
            return later(asked, request.reply);
        }
        Command::Promote => {
            let asked = lock(&server.database).promote();
            return later(asked, request.reply);
        }
        Command::Services => server.services().and_then(|services| Reply::value(&services)),
        Command::Processes => Reply::value(&server.processes()),
        Command::Process(order) => server.order_process(&order).and_then(|before| Reply::value(&before)),
        Command::Backend(order) => server.order(&order).and_then(|ordered| Reply::value(&ordered)),
        // A walk through the tables takes its time.
        Command::Flows(query) => return server.flows(query, request.reply),
        Command::SetChange(change) => server.change_set(&change).and_then(|changed| Reply::value(&changed)),
        Command::SetList { set, limit } => server.list_set(set.as_deref(), limit),
    };
    // Who asked may have gone away.
    drop(request.reply.send(reply));
}

/// Answers when it is done: the store of the lease may take its time. Given up when whoever asked has gone.
fn later<F>(asked: Result<F>, mut reply: oneshot::Sender<Result<Reply>>)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        let done = match asked {
            Ok(asked) => tokio::select! {
                done = asked => done.and_then(|()| Reply::value(&())),
                () = reply.closed() => return,
            },
            Err(error) => Err(error),
        };
        drop(reply.send(done));
    });
}
