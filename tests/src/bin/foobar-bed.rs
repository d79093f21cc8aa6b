//! `foobar-bed`: the whole site in namespaces of this machine.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use foobar_tests::{bench, console};

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
    /// Measures, beside peers in one run, and prints ratios
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(arguments) => console::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    };
    // By hand: what `main` prints of an error is for programmers.
    outcome.unwrap_or_else(|error| {
        eprintln!("foobar-bed: {error:#}");
        ExitCode::FAILURE
    })
}
