//! UDP through the balancer: each client socket is a flow, flows go round robin, answers come from the VIP.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::Bed;
use foobar_tests::host::VIP;
use foobar_tests::site::Binaries;

/// 20 sockets, three datagrams each: a socket stays with its server, and the servers share equally.
pub(crate) fn echoed(bed: &Bed) -> Result<()> {
    let served = bed.in_namespace("client", || {
        let mut served: BTreeMap<String, u64> = BTreeMap::new();
        for number in 0..FLOWS {
            let server = flow(number).with_context(|| format!("flow {number}"))?;
            *served.entry(server).or_default() += 1;
        }
        anyhow::Ok(served)
    })??;
    let expected = BTreeMap::from([("web1".to_owned(), FLOWS / 2), ("web2".to_owned(), FLOWS / 2)]);
    ensure!(served == expected, "{served:?}");
    Ok(())
}

/// Processes of the balancer itself: a socket that is not connected stays with its server, is answered by the VIP, and sockets are
/// shared equally; one that is connected is told the VIP as its peer.
pub(crate) fn asked_by_local_sockets(bed: &Bed) -> Result<()> {
    let vip = SocketAddr::from((VIP, 7007)).to_string();
    let ask = |more: &[&str]| {
        let mut command = Command::new(Binaries::find()?.ask);
        command.args(["--to", &vip]).args(more);
        bed.run("lb1", &mut command)
    };
    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..LOCAL {
        let said = ask(&["--count", "3"])?;
        let lines: Vec<&str> = said.lines().collect();
        let server = lines.first().and_then(|line| line.split(' ').next()).context("no answer")?;
        ensure!(lines.len() == 3 && lines.iter().all(|line| *line == format!("{server} {vip}")), "{said}");
        *served.entry(server.to_owned()).or_default() += 1;
    }
    let expected = BTreeMap::from([("web1".to_owned(), LOCAL / 2), ("web2".to_owned(), LOCAL / 2)]);
    ensure!(served == expected, "{served:?}");
    let said = ask(&["--connected"])?;
    ensure!(said.lines().next() == Some(&format!("peer {vip}")), "{said}");
    ensure!(said.lines().skip(1).all(|line| line.ends_with(&format!(" {vip}"))), "{said}");
    Ok(())
}

/// Sends from one socket; returns the one server that answered.
fn flow(number: u64) -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(DEADLINE))?;
    // Connected: an answer from anywhere but the VIP is not accepted.
    socket.connect(SocketAddr::from((VIP, 7007)))?;
    let mut server = String::new();
    for part in 0..3 {
        let sent = format!("{number}.{part}");
        socket.send(sent.as_bytes())?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).context("no answer")?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (from, echo) = answer.split_once(' ').context("a malformed answer")?;
        ensure!(echo == sent, "{answer:?} for {sent:?}");
        ensure!(server.is_empty() || server == from, "{server} first, then {from}");
        from.clone_into(&mut server);
    }
    Ok(server)
}

const FLOWS: u64 = 20;
const LOCAL: u64 = 6;
const DEADLINE: Duration = Duration::from_secs(2);
