//! `foobar-bed`: the whole site in namespaces of this machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use foobar_tests::console;

/// The whole site of foobar in network namespaces of this machine
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sets the site up, shows it working until Ctrl-C, and removes it
    Run(console::Arguments),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run(arguments) => console::run(&arguments),
    }
}
