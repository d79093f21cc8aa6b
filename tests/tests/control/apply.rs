//! A change for a trial is taken back unless it is confirmed, whoever dies meanwhile; nobody cuts their own connection.

use std::process::Command;

use anyhow::{Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::{LoneServer, SITE};
use foobar_tests::probe::Outcome;
use foobar_tests::process::{output, run};
use nix::sys::signal::Signal;

use super::{DEADLINE, PORT, open_site, with_rule};

fn is(server: &LoneServer, outcome: Outcome) -> Result<()> {
    port_is(server, PORT, outcome)
}

fn port_is(server: &LoneServer, port: u16, outcome: Outcome) -> Result<()> {
    eventually(DEADLINE, &format!("port {port} is {outcome:?}"), || Ok(server.knock("lb1", port)? == outcome))
}

#[test]
fn what_nobody_confirms_is_taken_back() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let mut agent = server.running()?;
    is(&server, Outcome::Silent)?;
    server.write_site(&open_site())?;
    let said = server.ask(&["apply", "--confirm", "3s"])?;
    ensure!(said.contains("foobar confirm"), "{said}");
    is(&server, Outcome::Refused)?;
    ensure!(server.json(&["status", "--json"])?["waiting"]["left_ms"].as_u64().is_some_and(|left| left <= 3000));
    let refusal = server.refusal(&["apply"])?;
    ensure!(refusal.contains("waits for its confirmation"), "{refusal}");
    is(&server, Outcome::Silent)?;
    eventually(DEADLINE, "the agent says so", || Ok(server.ask(&["status"])?.contains("was taken back")))?;
    let late = server.refusal(&["confirm"])?;
    ensure!(late.contains("nothing waits"), "{late}");

    // Nor does a restart bring it in force: the file is what was taken back.
    agent.signal(Signal::SIGTERM)?;
    agent.wait(DEADLINE)?;
    let _agent = server.running()?;
    ensure!(server.ask(&["status"])?.contains("last confirmed"), "a restart says nothing");
    is(&server, Outcome::Silent)?;
    server.ask(&["apply"])?;
    is(&server, Outcome::Refused)
}

#[test]
fn what_is_confirmed_stays_also_over_a_restart() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let mut agent = server.running()?;
    server.write_site(&open_site())?;
    server.ask(&["apply", "--confirm", "1m"])?;
    let said = server.ask(&["confirm"])?;
    ensure!(said.contains("stays in force"), "{said}");
    ensure!(server.json(&["status", "--json"])?["waiting"].is_null());
    is(&server, Outcome::Refused)?;
    agent.signal(Signal::SIGKILL)?;
    agent.wait(DEADLINE)?;
    let _agent = server.running()?;
    ensure!(!server.ask(&["status"])?.contains("last confirmed"), "a confirmed file is in doubt");
    is(&server, Outcome::Refused)
}

#[test]
fn an_agent_that_dies_while_a_change_waits_starts_from_the_confirmed_site() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let mut agent = server.running()?;
    server.write_site(&open_site())?;
    server.ask(&["apply", "--confirm", "3s"])?;
    agent.signal(Signal::SIGKILL)?;
    agent.wait(DEADLINE)?;
    // Nobody is alive but the kernel.
    is(&server, Outcome::Refused)?;
    is(&server, Outcome::Silent)?;
    let _agent = server.running()?;
    let said = server.ask(&["status"])?;
    ensure!(said.contains("ended while a change") && said.contains("last confirmed"), "{said}");
    is(&server, Outcome::Silent)
}

#[test]
fn a_change_is_taken_back_by_hand() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _agent = server.running()?;
    server.write_site(&open_site())?;
    server.ask(&["apply", "--confirm", "10m"])?;
    is(&server, Outcome::Refused)?;
    let said = server.ask(&["revert"])?;
    ensure!(said.contains("taken back"), "{said}");
    ensure!(server.knock("lb1", PORT)? == Outcome::Silent, "it is still in force");
    Ok(())
}

#[test]
fn nobody_cuts_their_own_connection_unless_forced() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _agent = server.running()?;
    let as_admin = |arguments: &[&str]| {
        let mut command = server.command(arguments)?;
        let said = output(command.env("SSH_CONNECTION", "10.0.1.1 50123 10.0.1.41 22"))?;
        anyhow::Ok((said.status.success(), String::from_utf8_lossy(&said.stderr).into_owned()))
    };
    let other = SITE.replace("10.0.1.1/32", "10.0.1.11/32");
    server.write_site(&other)?;
    for command in ["apply", "reload"] {
        let (done, said) = as_admin(&[command])?;
        ensure!(!done && said.contains("failsafe-ssh") && said.contains("--force"), "{said}");
    }
    port_is(&server, SSH, Outcome::Refused)?;
    let harmless = with_rule("extra", "allow", "any", "");
    server.write_site(&harmless)?;
    let (done, said) = as_admin(&["apply"])?;
    ensure!(done, "{said}");
    server.write_site(&other)?;
    let (done, said) = as_admin(&["apply", "--force"])?;
    ensure!(done, "{said}");
    port_is(&server, SSH, Outcome::Silent)
}

#[test]
fn larger_frames_do_not_wait_for_confirmation_and_the_same_ones_do() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _agent = server.running()?;
    let mut command = Command::new("ip");
    command.args(["link", "set", "eth0", "mtu", "3000"]);
    server.namespace()?.attach(&mut command);
    run(&mut command)?;
    server.write_site(&open_site())?;
    let refusal = server.refusal(&["apply", "--confirm", "10m"])?;
    ensure!(refusal.contains("more than 1,500 bytes") && refusal.contains("as it was"), "{refusal}");
    is(&server, Outcome::Silent)?;
    server.write_site(SITE)?;
    server.ask(&["apply"])?;
    server.write_site(&open_site())?;
    server.ask(&["apply", "--confirm", "10m"])?;
    is(&server, Outcome::Refused)?;
    server.ask(&["confirm"])?;
    Ok(())
}

const SSH: u16 = 22;

#[test]
fn an_interface_that_a_trial_leaves_out_stays_closed_until_it_is_confirmed() -> Result<()> {
    let two = SITE.replace("[\"eth0\"]", "[\"eth0\", \"eth1\"]");
    let server = LoneServer::new(&two)?;
    let mut command = Command::new("ip");
    command.args("link add eth1 type veth peer name peer1".split(' '));
    server.namespace()?.attach(&mut command);
    run(&mut command)?;
    let _agent = server.running()?;
    let closed = || anyhow::Ok(server.links()?.iter().any(|link| link.starts_with("xdp-") && link.ends_with("-eth1")));
    ensure!(closed()?, "no firewall on eth1");
    server.write_site(SITE)?;
    server.ask(&["apply", "--confirm", "3s"])?;
    ensure!(closed()?, "a trial has taken the firewall off eth1: nobody would put it back if the agent died now");
    eventually(DEADLINE, "the trial is taken back", || Ok(server.ask(&["status"])?.contains("was taken back")))?;
    ensure!(closed()?, "the old plan is in force without the firewall on eth1");
    server.ask(&["apply", "--confirm", "1m"])?;
    server.ask(&["confirm"])?;
    ensure!(!closed()?, "the firewall stays on an interface that no plan has");
    Ok(())
}
