//! SYN floods against a listener: answered in the packet path while they last, and gone without a trace afterwards.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::eventually;
use foobar_tests::flood::{Flood, Kind};
use foobar_tests::host::Host;
use foobar_tests::lone::{LoneServer, SITE};
use foobar_tests::tcp_info::{self, OPTIONS};
use nix::sys::signal::Signal;

/// A flood from its first SYN to the end of the last setting that it has needed; the agent dies meanwhile.
#[test]
fn a_flood_is_answered_for_as_long_as_it_lasts() -> Result<()> {
    let server = server()?;
    serve(&server)?;
    let mut agent = server.running()?;
    normal(&server, "before the flood")?;
    connects(&server, "before the flood")?;

    let flood = pour(&server, Kind::Syn)?;
    eventually(DEADLINE, "SYNs are answered", || answering(&server))?;
    ensure!(settings(&server)? == ["2", "2"], "the stack takes no cookies: {:?}", settings(&server)?);
    let before = count(&server, "pass", "syn_cookie")?;
    connects(&server, "in the flood")?;
    let taken = count(&server, "pass", "syn_cookie")? - before;
    ensure!(taken == 2.0, "{taken} handshakes of 2 came through cookies");
    ensure!(metric(&server, "foobar_syn_floods_total")? == 1.0, "it is counted once");

    agent.signal(Signal::SIGKILL)?;
    agent.wait(DEADLINE)?;
    connects(&server, "without an agent")?;
    let _agent = server.running()?;
    ensure!(answering(&server)?, "the next agent does not know of the flood");
    let sent = flood.stop()?;
    let answered = count(&server, "answer", "syn_cookie")?;
    ensure!(answered > sent as f64 / 2.0, "{answered} of {sent} SYNs were answered");

    eventually(CALM, "SYNs are the stack's again", || Ok(!answering(&server)?))?;
    connects(&server, "after the flood")?;
    eventually(CALM, "the stack's settings are back", || Ok(settings(&server)? == ["1", "1"]))?;
    normal(&server, "after the flood")
}

/// ACKs that nobody asked for go up to the stack, but in a flood: then only those of cookies do.
#[test]
fn acks_of_nothing_end_here_in_a_flood() -> Result<()> {
    let server = server()?;
    serve(&server)?;
    let _agent = server.running()?;
    pour(&server, Kind::Ack)?.stop()?;
    ensure!(count(&server, "drop", "bad_cookie")? == 0.0, "ACKs were dropped without a flood");
    let flood = pour(&server, Kind::Syn)?;
    eventually(DEADLINE, "SYNs are answered", || answering(&server))?;
    let acks = pour(&server, Kind::Ack)?;
    eventually(DEADLINE, "ACKs of nothing are dropped", || Ok(count(&server, "drop", "bad_cookie")? > 1000.0))?;
    let (acks, before) = (acks.stop()?, count(&server, "pass", "syn_cookie")?);
    ensure!(before == 0.0, "{before} of {acks} ACKs were taken for cookies");
    connects(&server, "beside ACKs of nothing")?;
    flood.stop()?;
    Ok(())
}

/// What a flood has changed is put back by `foobar detach`, too.
#[test]
fn a_detach_in_a_flood_restores_the_stack() -> Result<()> {
    let server = server()?;
    serve(&server)?;
    let mut agent = server.running()?;
    let flood = pour(&server, Kind::Syn)?;
    eventually(DEADLINE, "SYNs are answered", || answering(&server))?;
    agent.signal(Signal::SIGTERM)?;
    agent.wait(DEADLINE)?;
    ensure!(settings(&server)? == ["2", "2"], "the stack stopped to take cookies that are still given out");
    connects(&server, "while the firewall goes on alone")?;
    flood.stop()?;
    server.detach()?;
    ensure!(settings(&server)? == ["1", "1"], "the stack's settings are not back: {:?}", settings(&server)?);
    connects(&server, "without a firewall")
}

/// With `syn_cookies = 0` the kernel is left alone.
#[test]
fn nothing_is_answered_where_it_is_switched_off() -> Result<()> {
    let server = LoneServer::new(&site(0))?;
    serve(&server)?;
    let _agent = server.running()?;
    let flood = pour(&server, Kind::Syn)?;
    eventually(DEADLINE, "SYNs come up", || Ok(count(&server, "pass", "rule")? > 5000.0))?;
    ensure!(!answering(&server)? && settings(&server)? == ["1", "1"], "SYNs are answered all the same");
    flood.stop()?;
    Ok(())
}

fn site(half_open: u32) -> String {
    let open = "[[rule]]\nname = \"web\"\non = [\"monitor\"]\nfrom = [\"any\"]\nprotocol = \"tcp\"\n";
    let site = SITE.replacen("[site]\n", &format!("[site]\nsyn_cookies = {half_open}\n"), 1);
    let site = site.replacen("interfaces", "address6 = \"fd00:1::41\"\ninterfaces", 1);
    format!("{site}\n{open}ports = [\"{PORT}\"]\naction = \"allow\"\n")
}

fn server() -> Result<LoneServer> {
    LoneServer::new(&site(HALF_OPEN))
}

/// Serves both families in the server's namespace until the process ends: each connection is told what the stack has agreed to
/// with its client, and gets back what it sends.
fn serve(server: &LoneServer) -> Result<()> {
    let listener = server.namespace()?.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream));
        }
    });
    Ok(())
}

fn echo(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&agreed(&stream)?)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(stream.write_all(&bytes)?)
}

/// Options of a connection, and its window scales: to the other side, and from it (`struct tcp_info`).
fn agreed(stream: &TcpStream) -> Result<[u8; 3]> {
    let info: [u8; OPTIONS + 3] = tcp_info::read(stream)?;
    Ok([info[OPTIONS], info[OPTIONS + 1] & 15, info[OPTIONS + 1] >> 4])
}

/// New connections of both families come through whole, with all that Linux offers.
fn connects(server: &LoneServer, when: &str) -> Result<()> {
    let monitor = Host::named("monitor").context("a host")?;
    for address in [IpAddr::from(monitor.v4()), monitor.v6().into()] {
        server.neighbour()?.run(|| connect(address))?.with_context(|| format!("{address} {when}"))?;
    }
    Ok(())
}

fn connect(address: IpAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let [options, sends, receives] = agreed(&stream)?;
    let mut theirs = [0; 3];
    stream.read_exact(&mut theirs)?;
    // TCPI_OPT_TIMESTAMPS, TCPI_OPT_SACK, TCPI_OPT_WSCALE.
    ensure!(options & 7 == 7 && theirs[0] & 7 == 7, "options {options:#x} here, {:#x} there", theirs[0]);
    ensure!([theirs[1], theirs[2]] == [receives, sends], "scales {sends} {receives} here, {theirs:?} there");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let mut writer = stream.try_clone()?;
    let bytes = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write)));
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
    Ok(())
}

/// Packets of ever new sources, bounded in number and rate.
fn pour(server: &LoneServer, kind: Kind) -> Result<Flood> {
    let (packets, rate) = if kind == Kind::Ack { (5000, 20_000) } else { (1_000_000, 10_000) };
    server.flood(kind, PORT, packets, rate)
}

fn normal(server: &LoneServer, when: &str) -> Result<()> {
    ensure!(!answering(server)? && settings(server)? == ["1", "1"], "SYNs are not the stack's {when}");
    Ok(())
}

/// Whether status and metric say that SYNs are answered.
fn answering(server: &LoneServer) -> Result<bool> {
    let status = server.json(&["status", "--json"])?["answering_syns"] == true;
    let metric = metric(server, "foobar_syn_cookies")? == 1.0;
    Ok(status && metric)
}

/// `tcp_syncookies` and `tcp_timestamps` of the server.
fn settings(server: &LoneServer) -> Result<[String; 2]> {
    server.namespace()?.run(|| {
        let read = |name: &str| anyhow::Ok(fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"))?.trim().to_owned());
        Ok([read("tcp_syncookies")?, read("tcp_timestamps")?])
    })?
}

fn count(server: &LoneServer, verdict: &str, reason: &str) -> Result<f64> {
    Ok(server.metrics()?.sum("foobar_verdict_packets_total", &[("verdict", verdict), ("reason", reason)]))
}

fn metric(server: &LoneServer, name: &str) -> Result<f64> {
    Ok(server.metrics()?.sum(name, &[]))
}

const PORT: u16 = 80;
/// Half-open connections that are a flood.
const HALF_OPEN: u32 = 64;
const DEADLINE: Duration = Duration::from_secs(15);
/// A flood is seen to be over after five seconds, and the last ACKs are waited for ten more.
const CALM: Duration = Duration::from_secs(30);
