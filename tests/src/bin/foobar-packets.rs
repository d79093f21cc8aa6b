//! Loads every program, then runs packets through them and through the host's core: see `foobar_tests::packets`.

use std::process::ExitCode;

use clap::Parser as _;
use foobar_tests::packets::session::{self, Options};

fn main() -> ExitCode {
    match session::run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("foobar-packets: {error:#}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
