//! `foobar set add|del|list`.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use foobar_user::agent::SetChanged;
use foobar_user::agent::control::{self, Command, SetChange};
use foobar_user::sets::{Row, Summary, prefix, ttl};
use foobar_user::table::{Column, table};
use ipnet::IpNet;

use super::apply::Force;
use super::{ServerArguments, print_json, runtime};

/// Entries that are shown unless all are asked for.
const SHOWN: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum SetCommand {
    /// Put entries into a set, for good or for a time; they survive restarts and reboots.
    ///
    /// An entry that is there already lives as it is added now. What the site file or a set's file holds stays in any case.
    Add {
        #[command(flatten)]
        change: ChangeArguments,
        /// Time that they live: 30s, 10m, 2h, 7d [default: until they are deleted].
        #[arg(long, value_parser = ttl::parse, value_name = "TIME")]
        ttl: Option<Duration>,
    },
    /// Take out entries that were added at run time.
    ///
    /// An entry of the site file or of a set's file is refused, with its line: delete it there and run `foobar reload`, so
    /// that it does not come back. Entries are taken out as they were put in; a part of a prefix cannot be.
    Del(ChangeArguments),
    /// List a set's entries with their sources and the time they have left; without a name, the sets.
    List {
        #[command(flatten)]
        server: ServerArguments,
        /// The set.
        name: Option<String>,
        /// Show all entries, not only the first hundred.
        #[arg(long)]
        all: bool,
        /// Print JSON, one line an entry.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct ChangeArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// The set.
    name: String,
    /// Prefixes or addresses.
    #[arg(required = true, value_parser = prefix::parse)]
    prefixes: Vec<IpNet>,
    #[command(flatten)]
    force: Force,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &SetCommand) -> Result<()> {
    match command {
        SetCommand::Add { change, ttl } => change.ask(false, *ttl),
        SetCommand::Del(change) => change.ask(true, None),
        SetCommand::List { server, name: None, json, .. } => summaries(server, *json),
        SetCommand::List { server, name: Some(name), all, json } => {
            list(server, name, if *all { None } else { Some(SHOWN) }, *json)
        }
    }
}

impl ChangeArguments {
    fn ask(&self, delete: bool, time: Option<Duration>) -> Result<()> {
        let change = SetChange {
            set: self.name.clone(),
            delete,
            prefixes: self.prefixes.clone(),
            ttl_ms: time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            admin: self.force.admin(),
        };
        let changed: SetChanged = self.server.ask(&Command::SetChange(change))?;
        if self.json {
            return print_json(&changed);
        }
        let entries = if changed.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", changed.entries) };
        let what = match (delete, time) {
            (true, _) => format!("{entries} deleted"),
            (false, None) => format!("{entries} added"),
            (false, Some(time)) => format!("{entries} added for {}", ttl::format(time)),
        };
        println!("{}: {what}; `{}` has {} now", self.server.server, self.name, changed.total);
        Ok(())
    }
}

fn summaries(server: &ServerArguments, json: bool) -> Result<()> {
    let sets: Vec<Summary> = server.ask(&Command::SetList { set: None, limit: None })?;
    if json {
        return print_json(&sets);
    }
    if sets.is_empty() {
        println!("{}: its rules name no set", server.server);
        return Ok(());
    }
    let row = |set: &Summary| {
        vec![
            set.set.clone(),
            set.entries().to_string(),
            set.inline.to_string(),
            set.run_time.to_string(),
            set.expiring.to_string(),
            set.in_file.to_string(),
            set.file.as_ref().map_or_else(String::new, |file| file.display().to_string()),
        ]
    };
    let columns = [
        Column::Text("set"),
        Column::Number("entries"),
        Column::Number("site file"),
        Column::Number("run time"),
        Column::Number("expiring"),
        Column::Number("in file"),
        Column::Text("file"),
    ];
    print!("{}", table(&columns, &sets.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

fn list(server: &ServerArguments, name: &str, limit: Option<usize>, json: bool) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut shown = 0;
    let row = |item: serde_json::Value| {
        shown += 1;
        if json {
            return Ok(writeln!(out, "{item}")?);
        }
        Ok(writeln!(out, "{}", line(&serde_json::from_value(item)?))?)
    };
    let command = Command::SetList { set: Some(name.to_owned()), limit };
    let summary: Summary = runtime()?.block_on(control::stream(&server.run_dir, &server.server, &command, row))?;
    out.flush()?;
    drop(out);
    if !json {
        let file = summary.file.as_ref().map_or_else(String::new, |file| format!(" ({})", file.display()));
        println!(
            "{} entries: {} of the run time, {} of the site file, {} of its file{file}",
            summary.entries(),
            summary.run_time,
            summary.inline,
            summary.in_file
        );
    }
    if shown < summary.entries() {
        eprintln!("the first {shown} are shown; --all shows them all");
    }
    Ok(())
}

fn line(row: &Row) -> String {
    let left = row.left().map_or_else(String::new, |left| format!("{} left", ttl::format(left)));
    format!("{:<43}  {:<9}  {left}", row.prefix.to_string(), row.source.as_str()).trim_end().to_owned()
}
