//! Entries of sets that come at run time block at once, expire, and survive the agent.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::LoneServer;
use foobar_tests::probe::Outcome;
use nix::sys::signal::Signal;

use super::{DEADLINE, PORT, with_rule};

/// The port is open to all but those in the set.
fn site() -> String {
    let rule = "[[rule]]\nname = \"open\"\non = [\"monitor\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\n";
    let open = format!("{rule}ports = [\"{PORT}\"]\naction = \"allow\"\n");
    let set = "[set.blocked]\nprefixes = [\"198.51.100.0/24\"]\nfile = \"blocked.txt\"\n";
    with_rule("blocklist", "deny", "set:blocked", &format!("\n{open}\n{set}"))
}

fn server() -> Result<LoneServer> {
    let server = LoneServer::new(&site())?;
    std::fs::write(server.folder().join("blocked.txt"), "# nobody here\n192.0.2.0/24\n203.0.113.99\n")?;
    Ok(server)
}

fn is(server: &LoneServer, outcome: Outcome) -> Result<()> {
    eventually(DEADLINE, &format!("lb1 finds the port {outcome:?}"), || Ok(server.knock("lb1", PORT)? == outcome))
}

#[test]
fn an_entry_blocks_and_expires() -> Result<()> {
    let server = server()?;
    let _agent = server.running()?;
    is(&server, Outcome::Refused)?;
    let said = server.ask(&["set", "add", "blocked", "10.0.1.1", "--ttl", "2s"])?;
    ensure!(said.contains("1 entry added for 2s"), "{said}");
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "the entry blocks nothing");
    let list = server.ask(&["set", "list", "blocked"])?;
    ensure!(list.contains("10.0.1.1/32") && list.contains("run time") && list.contains(" left"), "{list}");
    is(&server, Outcome::Refused)?;
    let list = server.ask(&["set", "list", "blocked"])?;
    ensure!(!list.contains("10.0.1.1/32"), "{list}");
    Ok(())
}

#[test]
fn an_entry_is_deleted_and_one_of_the_file_is_not() -> Result<()> {
    let server = server()?;
    let _agent = server.running()?;
    is(&server, Outcome::Refused)?;
    server.ask(&["set", "add", "blocked", "10.0.1.0/24"])?;
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "the entry blocks nothing");
    server.ask(&["set", "del", "blocked", "10.0.1.0/24"])?;
    ensure!(server.knock("lb1", PORT)? == Outcome::Refused, "it blocks still");
    let refusal = server.refusal(&["set", "del", "blocked", "203.0.113.99"])?;
    ensure!(refusal.contains("blocked.txt:3"), "{refusal}");
    let refusal = server.refusal(&["set", "add", "blocks", "10.0.1.1"])?;
    ensure!(refusal.contains("no set `blocks`") && refusal.contains("blocked"), "{refusal}");
    Ok(())
}

#[test]
fn entries_survive_the_agent_and_a_reload_takes_the_file_as_it_is() -> Result<()> {
    let server = server()?;
    let mut agent = server.running()?;
    server.ask(&["set", "add", "blocked", "10.0.1.1", "--ttl", "10m"])?;
    agent.signal(Signal::SIGKILL)?;
    agent.wait(DEADLINE)?;
    let _agent = server.running()?;
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "the restart has lost the entry");
    std::fs::write(server.folder().join("blocked.txt"), "10.0.1.11\n")?;
    server.ask(&["reload"])?;
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "the reload has lost the entry");
    ensure!(server.knock("web1", PORT)? == Outcome::Silent, "the file's new entry blocks nothing");
    eventually(DEADLINE, "it blocks nobody else", || Ok(server.knock("web2", PORT)? == Outcome::Refused))?;
    let sets = server.json(&["set", "list", "--json"])?;
    ensure!(sets[0]["run_time"] == 1 && sets[0]["in_file"] == 1 && sets[0]["inline"] == 1, "{sets}");
    Ok(())
}

#[test]
fn entries_go_with_their_set_once_that_is_confirmed() -> Result<()> {
    let server = server()?;
    let _agent = server.running()?;
    server.ask(&["set", "add", "blocked", "10.0.1.1"])?;
    let without = site().replace("set:blocked", "198.51.100.0/24");
    server.write_site(&without)?;
    server.ask(&["apply", "--confirm", "10m"])?;
    is(&server, Outcome::Refused)?;
    server.ask(&["revert"])?;
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "a change that was taken back has dropped the entry");
    server.ask(&["apply", "--confirm", "10m"])?;
    server.ask(&["confirm"])?;
    server.write_site(&site())?;
    server.ask(&["apply"])?;
    is(&server, Outcome::Refused)?;
    let list = server.ask(&["set", "list", "blocked"])?;
    ensure!(!list.contains("10.0.1.1"), "{list}");
    Ok(())
}

/// A file of so many addresses, none near another.
fn scattered(server: &LoneServer, addresses: u32) -> Result<()> {
    let line = |number: u32| format!("{}\n", Ipv4Addr::from_bits(0x0b00_0001 + (number << 8)));
    Ok(std::fs::write(server.folder().join("blocked.txt"), (0..addresses).map(line).collect::<String>())?)
}

#[test]
fn sets_that_outgrow_their_memory_do_not_wait_for_confirmation_and_those_that_grow_a_little_do() -> Result<()> {
    let server = server()?;
    let _agent = server.running()?;
    scattered(&server, 120_000)?;
    let refusal = server.refusal(&["apply", "--confirm", "10m"])?;
    ensure!(refusal.contains("have outgrown the memory") && refusal.contains("without --confirm"), "{refusal}");
    is(&server, Outcome::Refused)?;
    server.ask(&["apply"])?;
    scattered(&server, 145_000)?;
    server.ask(&["apply", "--confirm", "10m"])?;
    server.ask(&["confirm"])?;
    let sets = server.json(&["set", "list", "--json"])?;
    ensure!(sets[0]["in_file"] == 145_000, "{sets}");
    Ok(())
}
