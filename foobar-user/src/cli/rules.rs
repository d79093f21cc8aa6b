//! `foobar rules`.

use anyhow::Result;
use foobar_user::agent::RulesReport;
use foobar_user::agent::control::Command;

use super::{ServerArguments, print_json};

pub(super) fn rules(server: &ServerArguments, json: bool) -> Result<()> {
    let report: RulesReport = server.ask(&Command::Rules)?;
    if json {
        return print_json(&report);
    }
    print!("{report}");
    Ok(())
}
