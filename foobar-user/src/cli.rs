//! Commands of the binary and their options.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use foobar_user::agent::control::{self, Command as Request};
use foobar_user::agent::{self, Status};
use foobar_user::datapath::links::Wanted;
use foobar_user::site::{Checked, Extent, sets};
use foobar_user::{edge, pki, plan};
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
    /// any way; `foobar detach` removes it.
    Agent(AgentArguments),
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
    /// Have a server's agent read the site file again; a bad file is refused and changes nothing.
    Reload(ServerArguments),
    /// Remove a server's firewall, services and VIPs from the kernel. The server is then open.
    Detach(DetachArguments),
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

#[derive(Debug, Args)]
struct AgentArguments {
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    server: ServerArguments,
    /// Folder of what survives a reboot: configuration, data and logs of processes.
    #[arg(long, default_value = "/var/lib/foobar")]
    state_dir: PathBuf,
    /// Mount point of bpffs.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// cgroup v2 folder whose processes reach VIPs by connect() [default: the whole machine].
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// How the firewall is attached; native falls back to generic where a driver refuses it.
    #[arg(long, value_enum, default_value = "native")]
    mode: ModeArgument,
    /// Log every packet that is dropped, with the number of its reason: to debug, not under load.
    #[arg(long)]
    log_drops: bool,
}

#[derive(Debug, Args)]
struct DetachArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Mount point of bpffs.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArgument {
    Native,
    Generic,
}

impl Cli {
    /// Logs go to standard error; `RUST_LOG` chooses what.
    pub(crate) fn start_log(&self) {
        let default = if matches!(self.command, Command::Agent(_)) { "info" } else { "warn" };
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
            Command::Agent(arguments) => run_agent(arguments),
            Command::Check(site) => check(&site.site),
            Command::Plan { site, server, json } => show_plan(&site.site, &server, json),
            Command::Status { server, json } => status(&server, json),
            Command::Reload(server) => reload(&server),
            Command::Detach(arguments) => detach(&arguments),
            Command::Pki { site, force } => make_pki(&site.site, force),
            Command::Edge => edge::serve(edge::CONFIG_FD),
        }
    }
}

fn run_agent(arguments: AgentArguments) -> Result<()> {
    let site = std::path::absolute(&arguments.site.site).context("the current folder is gone")?;
    runtime()?.block_on(agent::run(agent::Options {
        site,
        server: arguments.server.server,
        run_dir: arguments.server.run_dir,
        state_dir: arguments.state_dir,
        bpffs: arguments.bpffs,
        cgroup: arguments.cgroup,
        mode: match arguments.mode {
            ModeArgument::Native => Wanted::Native,
            ModeArgument::Generic => Wanted::Generic,
        },
        log_drops: arguments.log_drops,
    }))
}

fn check(path: &Path) -> Result<()> {
    let checked = Checked::read(path)?;
    if !checked.warnings.is_empty() {
        eprintln!("{}", checked.warnings);
    }
    let files = checked.check_files(Extent::Site);
    if !files.is_empty() {
        eprintln!("{files}");
    }
    let site = &checked.site;
    anyhow::ensure!(
        files.errors() == 0,
        "{} is good, but files that it names are not: `foobar pki` makes certificates and passwords that are missing",
        path.display()
    );
    let counts =
        format!("{} servers, {} services, {} rules", site.servers.len(), site.services.len(), site.rules.len());
    println!("{}: {counts}, {} sets, no fault", path.display(), site.sets.len());
    for set in &site.sets {
        println!("set {}: {} prefixes", set.name.value, sets::read(set)?.len());
    }
    Ok(())
}

fn show_plan(path: &Path, server: &str, json: bool) -> Result<()> {
    let checked = Checked::read(path)?;
    let plan = plan::plan(&checked.site, server)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", plan::show(&plan));
    }
    Ok(())
}

fn status(server: &ServerArguments, json: bool) -> Result<()> {
    let status: Status = ask(server, Request::Status)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
    }
    Ok(())
}

fn reload(server: &ServerArguments) -> Result<()> {
    let generation: u32 = ask(server, Request::Reload)?;
    println!("{}: the site file is in force as generation {generation}", server.server);
    Ok(())
}

fn ask<T: serde::de::DeserializeOwned>(server: &ServerArguments, request: Request) -> Result<T> {
    runtime()?.block_on(control::ask(&server.run_dir, &server.server, request))
}

fn detach(arguments: &DetachArguments) -> Result<()> {
    let ServerArguments { server, run_dir } = &arguments.server;
    runtime()?.block_on(agent::detach(&arguments.bpffs, run_dir, server))?;
    println!("{server}: nothing of foobar is in the kernel any more; the server is open");
    Ok(())
}

fn make_pki(path: &Path, force: bool) -> Result<()> {
    let checked = Checked::read(path)?;
    for item in pki::run(&checked.site, force)? {
        println!("{item}");
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start threads")
}
