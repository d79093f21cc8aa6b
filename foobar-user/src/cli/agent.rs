//! `foobar agent` and `foobar detach`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use foobar_user::agent;
use foobar_user::datapath::links::Wanted;
use foobar_user::process::Earlier;

use super::{ServerArguments, SiteArguments, runtime};

#[derive(Debug, Args)]
pub(super) struct AgentArguments {
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
    /// End processes that an earlier agent has left running, and start them anew, instead of adopting them.
    #[arg(long)]
    replace_processes: bool,
}

#[derive(Debug, Args)]
pub(super) struct DetachArguments {
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

pub(super) fn run(arguments: AgentArguments) -> Result<()> {
    let site = std::path::absolute(&arguments.site.site).context("the current folder is gone")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start threads")?.block_on(agent::run(agent::Options {
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
        earlier: if arguments.replace_processes { Earlier::Replace } else { Earlier::Adopt },
    }))
}

pub(super) fn detach(arguments: &DetachArguments) -> Result<()> {
    let ServerArguments { server, run_dir } = &arguments.server;
    runtime()?.block_on(agent::detach(&arguments.bpffs, run_dir, server))?;
    println!("{server}: nothing of foobar is in the kernel any more; the server is open");
    Ok(())
}
