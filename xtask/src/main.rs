//! `cargo xtask`: the one command that sets up, builds, runs, tests and measures; what it does, CI does.
#![forbid(unsafe_code)]

mod bed;
mod bpf;
mod build;
mod cli;
mod command;
mod fuzz;
mod lint;
mod root;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Task};

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::everything(),
        Task::Build(options) => build::run(&options),
        Task::Run { arguments } => bed::exec("run", &arguments),
        Task::Bench { arguments } => bed::exec("bench", &arguments),
        Task::Lint => lint::run(),
        Task::Test(options) => match test::run(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Task::Fuzz(options) => match fuzz::run(&options) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
