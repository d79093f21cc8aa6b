//! `foobar services`.

use anyhow::Result;
use foobar_user::agent::ServicesReport;
use foobar_user::agent::control::Command;

use super::{ServerArguments, print_json};

pub(super) fn services(server: &ServerArguments, json: bool) -> Result<()> {
    let report: ServicesReport = server.ask(&Command::Services)?;
    if json {
        return print_json(&report);
    }
    print!("{report}");
    Ok(())
}
