//! `foobar process list|start|stop|restart|logs`.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use foobar_user::agent::control::{Command, ProcessOrder};
use foobar_user::agent::{ProcessReport, ProcessesReport};
use foobar_user::process::{ProcessChange, ProcessState};

use super::logs::{self, LogsArguments};
use super::{ServerArguments, print_json};

/// Time between two looks at what an order has come to.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Subcommand)]
pub(super) enum ProcessCommand {
    /// List the processes: what they are doing, what they use, what they may use.
    List {
        #[command(flatten)]
        server: ServerArguments,
        /// Only this one.
        name: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have a process run that was stopped; one that is in a pause is started at once. Returns when it is ready.
    Start(ProcessArguments),
    /// Stop a process, until it is started. Returns when nothing of it is left.
    Stop(ProcessArguments),
    /// Stop a process and start it again. Returns when it is ready.
    Restart(ProcessArguments),
    /// Show the end of a process's output.
    Logs(LogsArguments),
}

#[derive(Debug, Args)]
pub(super) struct ProcessArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// The process.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ProcessCommand) -> Result<()> {
    match command {
        ProcessCommand::List { server, name, json } => list(server, name.as_deref(), *json),
        ProcessCommand::Start(process) => process.order(ProcessChange::Start),
        ProcessCommand::Stop(process) => process.order(ProcessChange::Stop),
        ProcessCommand::Restart(process) => process.order(ProcessChange::Restart),
        ProcessCommand::Logs(arguments) => logs::logs(arguments),
    }
}

fn list(server: &ServerArguments, name: Option<&str>, json: bool) -> Result<()> {
    let mut report: ProcessesReport = server.ask(&Command::Processes)?;
    if let Some(name) = name {
        let known: Vec<String> = report.processes.iter().map(|process| process.status.name.clone()).collect();
        report.processes.retain(|process| process.status.name == name);
        if report.processes.is_empty() {
            bail!("no process is called `{name}` here; there are {}", known.join(", "));
        }
    }
    if json {
        return print_json(&report);
    }
    print!("{report}");
    Ok(())
}

impl ProcessArguments {
    fn order(&self, change: ProcessChange) -> Result<()> {
        let order = ProcessOrder { process: self.name.clone(), change };
        let before: ProcessesReport = self.server.ask(&Command::Process(order))?;
        let before = before.find(&self.name).context("the agent has forgotten it")?.status.clone();
        let process = loop {
            let now: ProcessesReport = self.server.ask(&Command::Processes)?;
            let process = now.find(&self.name).context("it has left the site file meanwhile")?.clone();
            let old = change == ProcessChange::Restart && process.status.pid == before.pid && before.pid.is_some();
            if !old && self.done(&process, change)? {
                break process;
            }
            sleep(LOOK);
        };
        if self.json {
            return print_json(&process);
        }
        match process.status.pid {
            Some(pid) => println!("{} runs with pid {pid}", self.name),
            None => println!("{} is stopped, until `foobar process start`", self.name),
        }
        Ok(())
    }

    /// Whether an order has been followed; an error when it will not be.
    fn done(&self, process: &ProcessReport, change: ProcessChange) -> Result<bool> {
        let why = process.status.message.as_deref().unwrap_or("its log may tell why");
        match (change, process.status.state) {
            (ProcessChange::Stop, state) => Ok(state == ProcessState::Stopped),
            (_, ProcessState::Running) => Ok(true),
            (_, ProcessState::Backoff | ProcessState::CrashLoop) => bail!("{} does not come up: {why}", self.name),
            // Held back by somebody else than operators, whose hold was just lifted.
            (_, ProcessState::Stopped) if !why.contains("operator") => bail!("{} does not start: {why}", self.name),
            _ => Ok(false),
        }
    }
}
