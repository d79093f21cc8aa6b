//! `foobar db status|switchover|promote`.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use foobar_user::agent::control::Command;
use foobar_user::database::state::Role;
use foobar_user::database::{DatabaseReport, MemberReport};
use foobar_user::table::{Column, table};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{ServerArguments, print_json};

/// Time that another leader is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Show who leads, who follows how far behind, the lease, and what has happened last.
    Status {
        #[command(flatten)]
        server: ServerArguments,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have another server lead, without losing a transaction that has been acknowledged; waits until it does.
    Switchover(SwitchoverArguments),
    /// Have this server lead although it lacks acknowledged commits, because no server that has them all comes back.
    ///
    /// Refused while the leader renews its lease: if its PostgreSQL does not come up, stop its agent first. Refused, too, while a server
    /// that has every acknowledged commit runs. Interrupted before it answers, it changes nothing. When the old leader comes back after
    /// all, what only it has is kept there: saved to a file before its data is rewound, or with all of its data.
    Promote(PromoteArguments),
}

#[derive(Debug, Args)]
pub(super) struct PromoteArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Commits that this server has not received are lost, although somebody may have been told that they were made.
    #[arg(long)]
    accept_loss: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SwitchoverArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Who is to lead; without it, the best replica.
    #[arg(long, value_name = "SERVER")]
    to: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &DbCommand) -> Result<()> {
    match command {
        DbCommand::Status { server, json } => {
            let report = server.ask::<DatabaseReport>(&Command::Database)?;
            if *json {
                return print_json(&report);
            }
            print!("{}", shown(&report));
            Ok(())
        }
        DbCommand::Switchover(SwitchoverArguments { server, to, json }) => {
            change(server, &Command::HandOver { to: to.clone() }, *json)
        }
        DbCommand::Promote(PromoteArguments { server, accept_loss, json }) => {
            ensure!(
                *accept_loss,
                "commits that {} has not received would be lost, although somebody may have been told that they were made: \
                 say --accept-loss if no server that has them comes back",
                server.server
            );
            change(server, &Command::Promote, *json)
        }
    }
}

/// Has another server lead, and waits until it does.
fn change(server: &ServerArguments, command: &Command, json: bool) -> Result<()> {
    let ask = || server.ask::<DatabaseReport>(&Command::Database);
    let (before, began) = (ask()?, Instant::now());
    server.ask::<()>(command)?;
    let answered = Instant::now();
    while answered.elapsed() < PATIENCE {
        sleep(LOOK);
        let now = ask()?;
        let done = now.epoch > before.epoch && now.held && now.leader != before.leader;
        let writable = |member: &MemberReport| member.leads && member.heard && member.role == Role::Primary;
        if done && now.members.iter().any(writable) {
            if json {
                return print_json(&now);
            }
            println!("{} leads, epoch {}, after {} ms", now.leader, now.epoch, began.elapsed().as_millis());
            return Ok(());
        }
        let refused = now.events.iter().rfind(|event| event.what.starts_with("no switchover"));
        if let Some(event) = refused.filter(|event| !before.events.contains(event)) {
            bail!("{}", event.what);
        }
    }
    bail!("nobody else leads after {} s: `foobar db status` tells why", PATIENCE.as_secs())
}

fn shown(report: &DatabaseReport) -> String {
    let mut text = String::new();
    let lease = match (report.held, report.lease_left_ms) {
        (_, Some(left)) => format!("held here, {left} ms left"),
        (true, None) => format!("held by {}", report.leader),
        (false, None) if report.leader.is_empty() => "nobody has led yet".to_owned(),
        (false, None) => format!("given up by {}", report.leader),
    };
    let clients = if report.open { "let through" } else { "fenced off" };
    // Writing to a string does not fail.
    let _ = writeln!(text, "epoch {}, lease {lease}; clients of PostgreSQL here are {clients}", report.epoch);
    if let Some(fault) = &report.store_fault {
        let _ = writeln!(text, "the store of the lease does not answer: {fault}");
    }
    if !report.pending_restart.is_empty() {
        let names = report.pending_restart.join(", ");
        let _ = writeln!(text, "PostgreSQL here needs a restart for {names}: `foobar process restart`");
    }
    if !report.diverged_files.is_empty() {
        let files: Vec<String> = report.diverged_files.iter().map(|path| path.display().to_string()).collect();
        let (count, files) = (report.diverged_transactions, files.join(", "));
        let what = match count {
            0 => "data of before is kept".to_owned(),
            _ => format!("{count} transactions or more were committed here alone, and are kept for you to see to"),
        };
        let _ = writeln!(text, "{what}: {files}; remove what nobody misses");
    }
    let columns = [
        Column::Text("server"),
        Column::Text("role"),
        Column::Text("follows"),
        Column::Text("in sync"),
        Column::Number("timeline"),
        Column::Number("behind"),
        Column::Text("note"),
    ];
    let row = |member: &MemberReport| {
        let role = match (member.heard, member.leads) {
            (false, _) => "silent".to_owned(),
            (true, true) => format!("{}, leads", word(member)),
            (true, false) => word(member).to_owned(),
        };
        let sync = if member.in_sync { "yes" } else { "" };
        let behind = member.lag_bytes.filter(|_| !member.leads).map_or_else(String::new, |bytes| format!("{bytes} B"));
        let timeline = if member.timeline > 0 { member.timeline.to_string() } else { String::new() };
        vec![member.server.clone(), role, member.source.clone(), sync.to_owned(), timeline, behind, member.note.clone()]
    };
    text.push_str(&table(&columns, &report.members.iter().map(row).collect::<Vec<_>>()));
    for event in &report.events {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.at_ms) * 1_000_000);
        let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
        let at = at.ok().and_then(|at| at.format(&format).ok()).unwrap_or_default();
        let _ = writeln!(text, "{at}  epoch {:<4} {}", event.epoch, event.what);
    }
    text
}

const fn word(member: &MemberReport) -> &'static str {
    match member.role {
        Role::Down => "down",
        Role::Replica => "replica",
        Role::Primary => "primary",
    }
}
