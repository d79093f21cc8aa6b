//! `foobar backend drain|enable|disable|weight`.

use std::io::{self, IsTerminal as _, Write as _};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use foobar_user::agent::control::{BackendOrder, Command, OrderChange};
use foobar_user::agent::{Ordered, ServicesReport};
use foobar_user::health::Duty;
use foobar_user::sets::ttl;

use super::{ServerArguments, print_json};

/// Time for which a drain is waited for, unless it is said.
const PATIENCE: &str = "10m";
/// Time between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Subcommand)]
pub(super) enum BackendCommand {
    /// Give a backend nothing new; connections that it has go on to their end.
    Drain {
        #[command(flatten)]
        backend: BackendArguments,
        /// Return when it has no flow any more, or fail after this time [default: 10m].
        #[arg(long, value_parser = ttl::parse, value_name = "TIME", num_args = 0..=1, default_missing_value = PATIENCE)]
        wait: Option<Duration>,
    },
    /// Let a backend take part again, as its health says.
    Enable(BackendArguments),
    /// Give a backend nothing new, and cut the flows that it has on the wire.
    Disable(BackendArguments),
    /// Give a backend another weight beside the others; 0 is nothing new.
    Weight {
        #[command(flatten)]
        backend: BackendArguments,
        /// The weight [default: the site file's again].
        #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
        weight: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(super) struct BackendArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// The backend's server.
    name: String,
    /// Only of this service.
    #[arg(long)]
    service: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &BackendCommand) -> Result<()> {
    match command {
        BackendCommand::Drain { backend, wait } => {
            let ordered = backend.order(OrderChange::Duty(Duty::Draining))?;
            match wait {
                Some(patience) => backend.wait(&ordered, *patience),
                None => Ok(()),
            }
        }
        BackendCommand::Enable(backend) => backend.order(OrderChange::Duty(Duty::Enabled)).map(drop),
        BackendCommand::Disable(backend) => backend.order(OrderChange::Duty(Duty::Disabled)).map(drop),
        BackendCommand::Weight { backend, weight } => backend.order(OrderChange::Weight(*weight)).map(drop),
    }
}

impl BackendArguments {
    fn order(&self, change: OrderChange) -> Result<Ordered> {
        let order = BackendOrder { backend: self.name.clone(), service: self.service.clone(), change };
        let ordered: Ordered = self.server.ask(&Command::Backend(order))?;
        if self.json {
            print_json(&ordered)?;
        } else {
            println!("{} is {} in {}", self.name, words(change), ordered.services.join(", "));
        }
        for service in &ordered.without_members {
            eprintln!("warning: service {service} gives connections to nobody now");
        }
        Ok(ordered)
    }

    /// Waits until it has no flow any more.
    fn wait(&self, ordered: &Ordered, patience: Duration) -> Result<()> {
        let began = Instant::now();
        let mut progress = Progress::default();
        loop {
            let left = self.flows(ordered)?;
            if left == 0 {
                progress.end();
                if !self.json {
                    println!("{} has no flow any more", self.name);
                }
                return Ok(());
            }
            if began.elapsed() >= patience {
                progress.end();
                bail!(
                    "{} still has {left} flows after {}; it stays drained: wait longer, or `foobar backend disable` cuts those from the wire",
                    self.name,
                    ttl::format(patience)
                );
            }
            progress.show(&format!("{} has {left} flows", self.name));
            sleep(LOOK);
        }
    }

    /// Flows that it has in the services that were ordered, those of local sockets among them.
    fn flows(&self, ordered: &Ordered) -> Result<u64> {
        let report: ServicesReport = self.server.ask(&Command::Services)?;
        let services = report.services.iter().filter(|service| ordered.services.contains(&service.name));
        let backends = services.flat_map(|service| &service.backends).filter(|backend| backend.server == self.name);
        Ok(backends.map(|backend| backend.flows).sum())
    }
}

fn words(change: OrderChange) -> String {
    match change {
        OrderChange::Duty(duty) => duty.to_string(),
        OrderChange::Weight(Some(weight)) => format!("given weight {weight}"),
        OrderChange::Weight(None) => "given the site file's weight".to_owned(),
    }
}

/// A line that is written over, on a terminal only.
#[derive(Default)]
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&mut self, text: &str) {
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{text}");
            // A terminal that does not take it is no reason to stop.
            let _ = io::stderr().flush();
            self.shown = true;
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
