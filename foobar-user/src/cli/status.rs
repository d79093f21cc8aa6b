//! `foobar status`.

use anyhow::Result;
use foobar_user::agent::Status;
use foobar_user::agent::control::Command;

use super::{ServerArguments, print_json};

pub(super) fn status(server: &ServerArguments, json: bool) -> Result<()> {
    let status: Status = server.ask(&Command::Status)?;
    if json {
        return print_json(&status);
    }
    print!("{status}");
    Ok(())
}
