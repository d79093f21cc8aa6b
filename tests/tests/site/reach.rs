//! The reachability matrix: every host tries every door of every server, and passes exactly where the site file lets it.

use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use foobar_tests::Bed;
use foobar_tests::host::{HOSTS, Host, servers};
use foobar_tests::probe::Outcome;
use foobar_tests::reach::{Door, Knock, admits, doors, knock_all};
use foobar_user::site::Site;

/// Allowed: connected, answered or refused by the host itself. Everything else: silence, and a drop that a server counted.
pub(crate) fn exactly_the_allowed(bed: &Bed) -> Result<()> {
    let site = Site::read(&bed.site().file()).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    ensure!(site.rules.is_empty(), "the bed's file has rules of its own, which the policy of this test does not know");
    let before = drops(bed)?;
    let rows = thread::scope(|scope| {
        let known = HOSTS.iter().filter(|host| host.role.is_some() || host.is_client());
        let hosts: Vec<_> = known.map(|host| scope.spawn(|| row(bed, &site, host))).collect();
        let rows = hosts.into_iter().map(|host| host.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?);
        rows.collect::<Result<Vec<Row>>>()
    })?;
    let faults: Vec<&str> = rows.iter().flat_map(|row| row.faults.iter().map(String::as_str)).collect();
    ensure!(faults.is_empty(), "{} doors are not as the file says:\n  {}", faults.len(), faults.join("\n  "));
    let (allowed, denied) = rows.iter().fold((0, 0), |sum, row| (sum.0 + row.allowed, sum.1 + row.denied));
    ensure!(allowed > 0 && denied > allowed, "a matrix of {allowed} allowed and {denied} denied doors proves nothing");
    let dropped = drops(bed)? - before;
    ensure!(dropped >= f64::from(denied), "{denied} doors were silent, but the servers counted {dropped} drops only");
    Ok(())
}

/// What one host found.
#[derive(Default)]
struct Row {
    allowed: u32,
    denied: u32,
    faults: Vec<String>,
}

fn row(bed: &Bed, site: &Site, host: &Host) -> Result<Row> {
    let mut row = Row::default();
    for (door, outcome) in knock_all(bed.host(host.name)?, &doors(site, host), DEADLINE)? {
        let source = if door.address.is_ipv4() { IpAddr::V4(host.v4()) } else { IpAddr::V6(host.v6()) };
        let allowed = admits(site, source, &door);
        *if allowed { &mut row.allowed } else { &mut row.denied } += 1;
        if let Some(fault) = fault(allowed, outcome, &door) {
            row.faults.push(format!("{} ({source}) to {door}: {fault}", host.name));
        }
    }
    Ok(row)
}

fn fault(allowed: bool, outcome: Outcome, door: &Door) -> Option<&'static str> {
    match (allowed, outcome) {
        (true, Outcome::Open) | (false, Outcome::Silent) => None,
        // Nobody listens, but the packet was let through.
        (true, Outcome::Refused) if !matches!(door.knock, Knock::Echo) => None,
        (true, _) => Some("silent, but the file allows it"),
        (false, _) => Some("let through, but the file does not allow it"),
    }
}

/// Packets that the servers have dropped.
fn drops(bed: &Bed) -> Result<f64> {
    let dropped =
        servers().map(|host| Ok(bed.metrics(host.name)?.sum("foobar_verdict_packets_total", &[("verdict", "drop")])));
    dropped.sum()
}

/// A lost first packet is sent again after a second.
const DEADLINE: Duration = Duration::from_millis(2500);
