//! Commands of the binary and their options, a file for each noun.

mod agent;
mod apply;
mod backend;
mod db;
mod explain;
mod flows;
mod logs;
mod process;
mod rules;
mod services;
mod set;
mod site;
mod ssh;
mod status;
mod watch;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use foobar_user::agent::control::{self, Command as Request};
use foobar_user::edge;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;

/// One file, one binary: firewall, balancer, TLS, processes, failover and metrics of a web site.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Do one server's part of the site: firewall, services, processes, metrics.
    ///
    /// SIGTERM stops it in order, SIGHUP reads the site file again. The firewall stays in force when the agent ends in
    /// any way; `foobar detach` removes it. A site file that was taken back because nobody confirmed it is not what an
    /// agent starts from: it starts from the last confirmed one, and says so.
    Agent(agent::AgentArguments),
    /// Check a site file and the files that it names; every fault is told with its line and column.
    Check(SiteArguments),
    /// Show what a server has to do.
    Plan {
        #[command(flatten)]
        site: SiteArguments,
        /// The server.
        #[arg(long)]
        server: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a server's agent is doing.
    Status {
        #[command(flatten)]
        server: ServerArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have a server's agent read the site file again, for good; a bad file is refused and changes nothing.
    Reload(apply::ReloadArguments),
    /// As reload, or for a trial: with --confirm the change is taken back by itself unless it is confirmed.
    Apply(apply::ApplyArguments),
    /// Keep what `foobar apply --confirm` has put in force.
    Confirm(ServerArguments),
    /// Take back at once what `foobar apply --confirm` has put in force.
    Revert(ServerArguments),
    /// List a server's rules in order: what they match, where they come from, what they have counted.
    Rules {
        #[command(flatten)]
        server: ServerArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List a server's services: their backends, how they are, and what they have to do.
    Services {
        #[command(flatten)]
        server: ServerArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look at the cluster of the database, or have another server lead it.
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Take a backend out of a server's services, or in again, or give it another weight.
    ///
    /// What is ordered outlives restarts, reloads and reboots, until it is ordered otherwise.
    #[command(subcommand)]
    Backend(backend::BackendCommand),
    /// List, start, stop and restart a server's processes.
    ///
    /// What was stopped stays stopped over restarts, reloads and reboots, until it is started.
    #[command(subcommand)]
    Process(process::ProcessCommand),
    /// Show the end of a process's output, and with -f what comes.
    Logs(logs::LogsArguments),
    /// Look at the flows that a server balances on the wire, or end some of them.
    #[command(subcommand)]
    Flows(flows::FlowsCommand),
    /// Show what rules log and what is dropped, as it happens.
    Watch(watch::WatchArguments),
    /// Tell what a server's firewall would do with a packet, and why. Nothing is counted or changed by it.
    Explain(explain::ExplainArguments),
    /// Change or list a server's named sets at run time.
    #[command(subcommand)]
    Set(set::SetCommand),
    /// Remove a server's firewall, services and VIPs from the kernel. The server is then open.
    Detach(agent::DetachArguments),
    /// Make the site's own CA, the servers' certificates and the database's passwords; what is there is kept.
    Pki {
        #[command(flatten)]
        site: SiteArguments,
        /// Make the CA and everything that it signed anew.
        #[arg(long)]
        force: bool,
    },
    /// Terminate TLS; started by the agent, which passes the configuration and the listening sockets.
    #[command(hide = true)]
    Edge,
}

#[derive(Debug, Args)]
struct SiteArguments {
    /// The site file.
    #[arg(long, default_value = "site.toml")]
    site: PathBuf,
}

#[derive(Debug, Args)]
struct ServerArguments {
    /// The server.
    #[arg(long)]
    server: String,
    /// Folder of sockets and of what a reboot clears.
    #[arg(long, default_value = "/run/foobar")]
    run_dir: PathBuf,
}

impl ServerArguments {
    /// Asks this server's agent.
    fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        runtime()?.block_on(control::ask(&self.run_dir, &self.server, request))
    }
}

impl Cli {
    /// Logs go to standard error; `RUST_LOG` chooses what.
    pub(crate) fn start_log(&self) {
        let default = if matches!(self.command, Command::Agent(..)) { "info" } else { "warn" };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let terminal = std::io::stderr().is_terminal();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(terminal)
            .with_target(false)
            .init();
    }

    /// Runs the command.
    ///
    /// # Errors
    /// For people: what was tried, what went wrong, what to do.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Agent(arguments) => agent::run(arguments),
            Command::Check(arguments) => site::check(&arguments.site),
            Command::Plan { site, server, json } => site::show_plan(&site.site, &server, json),
            Command::Status { server, json } => status::status(&server, json),
            Command::Reload(arguments) => apply::reload(&arguments),
            Command::Apply(arguments) => apply::apply(&arguments),
            Command::Confirm(server) => apply::confirm(&server),
            Command::Revert(server) => apply::revert(&server),
            Command::Rules { server, json } => rules::rules(&server, json),
            Command::Services { server, json } => services::services(&server, json),
            Command::Db(command) => db::run(&command),
            Command::Backend(command) => backend::run(&command),
            Command::Process(command) => process::run(&command),
            Command::Logs(arguments) => logs::logs(&arguments),
            Command::Flows(command) => flows::run(&command),
            Command::Watch(arguments) => watch::watch(&arguments),
            Command::Explain(arguments) => explain::explain(&arguments),
            Command::Set(command) => set::run(&command),
            Command::Detach(arguments) => agent::detach(&arguments),
            Command::Pki { site, force } => site::make_pki(&site.site, force),
            Command::Edge => edge::serve(edge::CONFIG_FD),
        }
    }
}

/// Prints JSON.
fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// For who asks an agent and waits for its answer: no threads.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start an asynchronous runtime")
}
