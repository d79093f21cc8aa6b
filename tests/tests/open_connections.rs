//! Limits of open connections: counted where they end, for each source, whatever becomes of the agent and of them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, Map, MapData};
use foobar_common::abi::ABI_VERSION;
use foobar_common::open::WAYS;
use foobar_tests::eventually;
use foobar_tests::host::Host;
use foobar_tests::lone::{LoneServer, SITE};
use foobar_tests::process::Process;
use foobar_tests::site::Binaries;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

/// Each family's source has as many as the rule says, and not one more; another source has its own.
#[test]
fn a_source_has_so_many_and_no_more() -> Result<()> {
    let (server, _echo) = server(&site(MOST))?;
    let _agent = server.running()?;
    for v6 in [false, true] {
        let mut held = (0..MOST).map(|_| open(&server, "web1", v6)).collect::<Result<Vec<_>>>()?;
        ensure!(open(&server, "web1", v6).is_err(), "one more than {MOST} was let in, IPv6: {v6}");
        ensure!(open(&server, "web2", v6).is_ok(), "another source was refused, IPv6: {v6}");
        let mut first = held.remove(0);
        echoes(&mut first)?;
        drop(first);
        let next = obtained(&server, v6)?;
        ensure!(open(&server, "web1", v6).is_err(), "one that closed made room for two, IPv6: {v6}");
        drop((held, next));
    }
    empty(&server)
}

/// A way to end a connection.
type End = fn(TcpStream) -> Result<()>;

/// However a connection ends, it gives back once.
#[test]
fn every_end_gives_back_once() -> Result<()> {
    let (server, mut echo) = server(&site(MOST))?;
    let _agent = server.running()?;
    let ends: [(&str, End); 3] = [
        ("closed", |_| Ok(())),
        ("half-closed first", |mut stream| {
            stream.shutdown(Shutdown::Write)?;
            ensure!(stream.read(&mut [0])? == 0, "bytes out of nowhere");
            Ok(())
        }),
        ("reset", |stream| {
            setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
            Ok(())
        }),
    ];
    for (name, end) in ends {
        for _ in 0..20 {
            let streams = (0..MOST).map(|_| obtained(&server, false)).collect::<Result<Vec<_>>>()?;
            streams.into_iter().try_for_each(end).with_context(|| name.to_owned())?;
        }
        empty(&server).with_context(|| name.to_owned())?;
    }
    let held = (0..MOST).map(|_| obtained(&server, false)).collect::<Result<Vec<_>>>()?;
    echo.signal(Signal::SIGKILL)?;
    echo.wait(DEADLINE)?;
    empty(&server).context("after the death of who had accepted them")?;
    drop(held);
    Ok(())
}

/// What is open stays counted while agents come and go and rules change; a detach forgets all of it.
#[test]
fn counts_outlive_agents_and_reloads() -> Result<()> {
    let (server, _echo) = server(&site(MOST))?;
    let mut agent = server.running()?;
    let mut held = (0..MOST).map(|_| open(&server, "web1", false)).collect::<Result<Vec<_>>>()?;
    agent.signal(Signal::SIGKILL)?;
    agent.wait(DEADLINE)?;
    ensure!(open(&server, "web1", false).is_err(), "the limit died with the agent");
    drop(held.pop());
    held.push(obtained(&server, false)?);
    let mut agent = server.running()?;
    ensure!(open(&server, "web1", false).is_err(), "the next agent forgot what is open");
    server.write_site(&site(MOST + 1))?;
    server.ask(&["reload"])?;
    held.push(open(&server, "web1", false)?);
    ensure!(open(&server, "web1", false).is_err(), "a reload forgot what is open");
    // Without the rule everybody may; what was counted is given back all the same.
    server.write_site(&site(0))?;
    server.ask(&["reload"])?;
    held.push(open(&server, "web1", false)?);
    held.truncate(1);
    server.write_site(&site(MOST))?;
    server.ask(&["reload"])?;
    drop(held);
    empty(&server)?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait(DEADLINE)?;
    server.detach()?;
    ensure!(!server.pins().exists(), "pins are left");
    let many = (0..2 * MOST).map(|_| open(&server, "web1", false)).collect::<Result<Vec<_>>>()?;
    drop(many);
    Ok(())
}

/// Thousands of connections that come and go in no order leave nothing behind.
#[test]
fn churn_leaves_no_count() -> Result<()> {
    let (server, _echo) = server(&site(200))?;
    let _agent = server.running()?;
    let mut held: Vec<TcpStream> = Vec::new();
    // A fixed order that looks like none.
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for number in 0..CHURN {
        if held.len() > 150 || (!held.is_empty() && next() % 2 == 0) {
            held.swap_remove(next() % held.len());
        } else {
            held.push(open(&server, ["web1", "web2"][number % 2], number % 3 == 0)?);
        }
    }
    let open = counted(&server)?;
    ensure!(open > 0, "nothing was counted");
    held.clear();
    empty(&server)
}

fn site(most: usize) -> String {
    let site = SITE.replacen("interfaces", "address6 = \"fd00:1::41\"\ninterfaces", 1);
    let rule = |name: &str, action: &str| {
        let head = format!("[[rule]]\nname = \"{name}\"\non = [\"monitor\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\n");
        format!("{head}ports = [\"{PORT}\"]\naction = {action}\n")
    };
    let few = if most == 0 {
        String::new()
    } else {
        rule("few", &format!("\"limit\"\nlimit = {{ open = {most}, per6 = 128 }}"))
    };
    format!("{site}\n{few}\n{}", rule("echo", "\"allow\""))
}

/// A server with an echo service, as the agent's processes have their place.
fn server(site: &str) -> Result<(LoneServer, Process)> {
    let server = LoneServer::new(site)?;
    let mut command = Command::new(Binaries::find()?.echo);
    let listen = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)).to_string();
    command.args(["--server", "monitor", "--listen", &listen]).stdin(Stdio::null());
    let echo = server.host("echo", &mut command)?;
    eventually(DEADLINE, "the echo service", || Ok(open(&server, "web1", true).is_ok()))?;
    Ok((server, echo))
}

/// A connection from a neighbour that has been accepted.
fn open(server: &LoneServer, from: &str, v6: bool) -> Result<TcpStream> {
    let monitor = Host::named("monitor").context("a host")?;
    let address = if v6 { IpAddr::V6(monitor.v6()) } else { monitor.v4().into() };
    let connect = || TcpStream::connect_timeout(&SocketAddr::new(address, PORT), PATIENCE);
    let mut stream = server.other(from)?.run(connect)??;
    echoes(&mut stream)?;
    Ok(stream)
}

/// The same, as soon as there is room: a close takes a moment to reach the other side.
fn obtained(server: &LoneServer, v6: bool) -> Result<TcpStream> {
    foobar_tests::obtained(DEADLINE, "room for a connection", || Ok(open(server, "web1", v6).ok()))
}

fn echoes(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"?")?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    ensure!(&byte == b"?", "another byte came back");
    Ok(())
}

fn empty(server: &LoneServer) -> Result<()> {
    eventually(DEADLINE, "no connection is counted", || Ok(counted(server)? == 0))
}

/// Connections that are counted, over all sources.
fn counted(server: &LoneServer) -> Result<u64> {
    const COUNT: u64 = (1 << 24) - 1;
    let pin = server.pins().join(format!("abi{ABI_VERSION}/open_counts"));
    let map: Array<MapData, [u64; WAYS]> = Map::Array(MapData::from_pin(pin)?).try_into()?;
    map.iter().try_fold(0, |sum, words| Ok(sum + words?.iter().map(|word| word & COUNT).sum::<u64>()))
}

const PORT: u16 = 7007;
const MOST: usize = 3;
const CHURN: usize = 5000;
/// A SYN that is not answered within this was dropped.
const PATIENCE: Duration = Duration::from_millis(700);
const DEADLINE: Duration = Duration::from_secs(15);
