//! Each tier is reached by whom the file allows, and by nobody else: every host tries every door and the ones beside it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::Bed;
use foobar_tests::host::{HOSTS, Host};
use foobar_tests::probe::{Outcome, connect};

/// A door, and who may pass it.
struct Door {
    server: &'static str,
    port: u16,
    open_to: &'static [&'static str],
    /// What an allowed host sees: `Open`, or `Refused` where nobody listens.
    outcome: Outcome,
}

const DOORS: &[Door] = &[
    Door { server: "app1", port: 8000, open_to: &["web1", "web2"], outcome: Outcome::Open },
    Door { server: "app2", port: 8000, open_to: &["web1", "web2"], outcome: Outcome::Open },
    Door { server: "app1", port: 8001, open_to: &[], outcome: Outcome::Open },
    Door { server: "app1", port: 7999, open_to: &[], outcome: Outcome::Open },
    Door { server: "db1", port: 5432, open_to: &["app1", "app2", "db2"], outcome: Outcome::Open },
    Door { server: "db2", port: 5432, open_to: &["app1", "app2", "db1"], outcome: Outcome::Open },
    Door { server: "db1", port: 5433, open_to: &[], outcome: Outcome::Open },
    Door { server: "web1", port: 8443, open_to: &["lb1"], outcome: Outcome::Open },
    Door { server: "web1", port: 5432, open_to: &[], outcome: Outcome::Open },
    Door { server: "db1", port: 9900, open_to: &["monitor"], outcome: Outcome::Open },
    Door { server: "web2", port: 22, open_to: &["monitor"], outcome: Outcome::Refused },
];

/// Who is not named finds silence, in both families, and each server counts what it dropped.
pub(crate) fn only_the_allowed(bed: &Bed) -> Result<()> {
    let before: Vec<f64> = DOORS.iter().map(|door| drops(bed, door.server)).collect::<Result<_>>()?;
    thread::scope(|scope| {
        let knockers: Vec<_> = HOSTS.iter().map(|host| scope.spawn(|| knock(bed, host))).collect();
        knockers.into_iter().try_for_each(|knocker| knocker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    for (door, before) in DOORS.iter().zip(before) {
        let dropped = drops(bed, door.server)? - before;
        ensure!(dropped > 0.0, "{} counted no drop", door.server);
    }
    Ok(())
}

/// `host` tries every door of the other servers.
fn knock(bed: &Bed, host: &Host) -> Result<()> {
    let namespace = bed.host(host.name)?;
    for door in DOORS.iter().filter(|door| door.server != host.name) {
        let server = Host::named(door.server).context("a host")?;
        let expected = if door.open_to.contains(&host.name) { door.outcome } else { Outcome::Silent };
        let address = SocketAddr::from((server.v4(), door.port));
        let deadline = if expected == Outcome::Silent { SILENCE } else { DEADLINE };
        let outcome = connect(namespace, address, deadline)?;
        ensure!(outcome == expected, "{} to {} ({address}): {outcome:?}, not {expected:?}", host.name, door.server);
        // Not everything listens on IPv6; the firewall is the same.
        let address = SocketAddr::from((server.v6(), door.port));
        let silent = connect(namespace, address, deadline)? == Outcome::Silent;
        ensure!(
            silent == (expected == Outcome::Silent),
            "{} to {} ({address}): silent {silent}",
            host.name,
            door.server
        );
    }
    Ok(())
}

fn drops(bed: &Bed, server: &str) -> Result<f64> {
    Ok(bed.metrics(server)?.sum("foobar_verdict_packets_total", &[("verdict", "drop")]))
}

/// Long enough for a refused connection to be told: everything is on this machine.
const SILENCE: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(3);
