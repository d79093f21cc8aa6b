//! `foobar explain` says what then really happens, and changes nothing by saying it.

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::LoneServer;
use foobar_tests::probe::Outcome;

use super::{DEADLINE, PORT, line_of, with_rule};

#[test]
fn what_is_explained_happens_and_nothing_is_counted() -> Result<()> {
    let site = with_rule(
        "closed",
        "deny",
        "10.0.1.11",
        "\n[[rule]]\nname = \"open\"\non = [\"monitor\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\nports = [\"8123\"]\naction = \"allow\"\n",
    );
    let server = LoneServer::new(&site)?;
    let _agent = server.running()?;
    let before = counted(&server)?;
    let to = format!("10.0.1.41:{PORT}");
    let ask = |from: &str| server.json(&["explain", "--from", from, "--to", &to, "--tcp-syn", "--json"]);
    let (web, other) = (ask("10.0.1.11")?, ask("10.0.1.1")?);
    ensure!(web["verdict"] == "drop" && web["rule"]["name"] == "closed", "{web}");
    ensure!(other["verdict"] == "pass" && other["rule"]["name"] == "open", "{other}");
    let origin = web["rule"]["origin"].as_str().context("an origin")?;
    ensure!(origin.ends_with(&format!("site.toml:{}", line_of(&site, "closed")?)), "{origin}");
    ensure!(counted(&server)? == before, "it was counted");
    eventually(DEADLINE, "who is let by gets in", || Ok(server.knock("lb1", PORT)? == Outcome::Refused))?;
    ensure!(server.knock("web1", PORT)? == Outcome::Silent, "who is denied gets in");

    let text = server.ask(&["explain", "--from", "10.0.1.11", "--to", &to])?;
    ensure!(text.contains("would be dropped: a rule denies it") && text.contains("`closed`"), "{text}");
    let none = server.json(&["explain", "--from", "10.0.1.11", "--to", "10.0.1.41:9", "--udp", "--json"])?;
    ensure!(none["reason"] == "no_rule" && none["rule"].is_null(), "{none}");
    let refusal = server.refusal(&["explain", "--from", "10.0.1.11", "--to", &to, "--interface", "eth9"])?;
    ensure!(refusal.contains("eth9") && refusal.contains("eth0"), "{refusal}");
    Ok(())
}

/// Packets of the two rules.
fn counted(server: &LoneServer) -> Result<Vec<u64>> {
    let report = server.json(&["rules", "--json"])?;
    let rules = report["rules"].as_array().context("rules")?.clone();
    let mine = rules.into_iter().filter(|rule| ["closed", "open"].iter().any(|name| rule["name"] == *name));
    mine.map(|rule| rule["packets"].as_u64().context("packets")).collect()
}
