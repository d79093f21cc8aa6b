//! The firewall follows an interface's name: one that comes in place of another is not left bare.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::lone::{LoneServer, SITE};
use foobar_tests::process::run;

fn ip(server: &LoneServer, arguments: &str) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    server.namespace()?.attach(&mut command);
    run(&mut command)
}

/// The pins of eth0's link, whatever the index.
fn firewalls(server: &LoneServer) -> Result<Vec<String>> {
    Ok(server.links()?.into_iter().filter(|link| link.starts_with("xdp-native-") && link.ends_with("-eth0")).collect())
}

#[test]
fn another_interface_of_the_same_name_gets_the_firewall() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _agent = server.start()?;
    eventually(DEADLINE, "the firewall is attached", || Ok(firewalls(&server)?.len() == 1))?;
    let first = firewalls(&server)?;
    ensure!(ip(&server, "link show eth0")?.contains("xdp"), "no program on the first eth0");

    ip(&server, "link set eth0 down")?;
    ip(&server, "link set eth0 name old0")?;
    ip(&server, "link add eth0 type veth peer name peer0")?;
    eventually(DEADLINE, "the new eth0 has a firewall of its own", || {
        let now = firewalls(&server)?;
        Ok(now.len() == 1 && now != first)
    })?;
    ensure!(ip(&server, "link show eth0")?.contains("xdp"), "no program on the new eth0");
    ensure!(!ip(&server, "link show old0")?.contains("xdp"), "the old one still has its program");
    Ok(())
}

/// Kernel ids of the program on eth0.
fn program(server: &LoneServer) -> Result<String> {
    let shown = ip(server, "-details link show eth0")?;
    let id = shown.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next());
    id.map(str::to_owned).with_context(|| format!("no program on eth0: {shown}"))
}

#[test]
fn an_interface_that_takes_larger_frames_gets_programs_that_know_them() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _agent = server.start()?;
    eventually(DEADLINE, "the firewall is attached", || Ok(firewalls(&server)?.len() == 1))?;
    let first = program(&server)?;
    ip(&server, "link set eth0 mtu 1400")?;
    ip(&server, "link set eth0 mtu 9000")?;
    eventually(DEADLINE, "eth0 has other programs", || Ok(program(&server)? != first))?;
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(15);
