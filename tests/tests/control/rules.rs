//! `foobar rules` tells rules in order, with origins and with what they have counted.

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::LoneServer;
use foobar_tests::probe::Outcome;

use super::{DEADLINE, PORT, line_of, with_rule};

#[test]
fn a_rule_has_counted_what_it_decided() -> Result<()> {
    let site = with_rule("closed", "deny", "any", "");
    let server = LoneServer::new(&site)?;
    let _agent = server.running()?;
    let packets = |name: &str| -> Result<u64> {
        let report = server.json(&["rules", "--json"])?;
        let rules = report["rules"].as_array().context("rules")?.clone();
        let found = rules.into_iter().find(|rule| rule["name"] == name);
        found.and_then(|rule| rule["packets"].as_u64()).with_context(|| format!("no rule {name}"))
    };
    let before = packets("closed")?;
    eventually(DEADLINE, "the rule counts", || {
        ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "the rule does not deny");
        Ok(packets("closed")? > before)
    })?;
    let text = server.ask(&["rules"])?;
    ensure!(text.contains(&format!("site.toml:{}", line_of(&site, "closed")?)), "{text}");
    ensure!(text.lines().last().is_some_and(|line| line.contains("deny") && line.contains("no rule")), "{text}");
    Ok(())
}
