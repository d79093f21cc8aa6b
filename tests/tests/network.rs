//! The bed's network alone: wiring, guards, and sweeping what a crashed run left behind.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::capture::Capture;
use foobar_tests::host::{HOSTS, Host, servers};
use foobar_tests::leftovers::left_behind;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::process::Process;
use foobar_tests::{Bed, Network, Silent, eventually};

/// Every server reaches every other, and the client, over both families and through the balancer where that is the way.
#[test]
fn hosts_reach_each_other() -> Result<()> {
    let network = Network::create(&Silent)?;
    for server in servers() {
        for address in [IpAddr::V4(server.v4()), IpAddr::V6(server.v6())] {
            let listener = network.namespace(server.name)?.run(|| TcpListener::bind((address, 8000)))??;
            let address = listener.local_addr()?;
            for from in HOSTS.iter().filter(|from| from.name != server.name) {
                let outcome = connect(network.namespace(from.name)?, address, DEADLINE)?;
                ensure!(outcome == Outcome::Open, "{} to {address}: {outcome:?}", from.name);
            }
        }
        let closed = SocketAddr::new(IpAddr::V4(server.v4()), 8001);
        ensure!(connect(network.namespace("client")?, closed, DEADLINE)? == Outcome::Refused, "a closed port");
    }
    Ok(())
}

/// Bytes cross the switch as they are, and the capture there sees them.
#[test]
fn a_capture_sees_what_crosses_the_switch() -> Result<()> {
    let network = Network::create(&Silent)?;
    let web = Host::named("web1").context("a host")?;
    let listener = network.namespace("web1")?.run(|| TcpListener::bind((web.v4(), 8000)))??;
    let address = listener.local_addr()?;
    let capture = Capture::start(network.namespace("switch")?)?;
    let mut stream = network.namespace("app1")?.run(|| TcpStream::connect_timeout(&address, DEADLINE))??;
    stream.write_all(b"a marker nobody else writes")?;
    drop(stream);
    let mut received = String::new();
    listener.accept()?.0.read_to_string(&mut received)?;
    ensure!(received == "a marker nobody else writes", "{received:?}");
    let frames = capture.stop()?;
    let found = frames.iter().find(|frame| frame.contains(b"a marker nobody else")).context("no frame has it")?;
    let (from, to) = found.endpoints().context("a TCP packet")?;
    ensure!(to == address && from.ip().to_string() == "10.0.1.21", "{from} to {to}");
    Ok(())
}

/// The guard removes namespaces, cgroups, pins, files and processes.
#[test]
fn closing_leaves_nothing_behind() -> Result<()> {
    let network = Network::create(&Silent)?;
    let id = network.run().id().to_owned();
    let mut sleeper = Command::new("sleep");
    network.place("web1", "bed", sleeper.arg("1000"))?;
    let sleeper = Process::spawn("sleep", &mut sleeper)?;
    // Processes that no guard knows: one in a namespace and a cgroup, one in a namespace alone.
    let mut orphan = Command::new("sh");
    network.place("app1", "bed", orphan.args(["-c", "sleep 1000 & exit 0"]))?;
    ensure!(orphan.status()?.success(), "the orphan's parent failed");
    let mut stray = Command::new("sh");
    network.namespace("db1")?.attach(stray.args(["-c", "sleep 1000 & exit 0"]));
    ensure!(stray.status()?.success(), "the stray's parent failed");
    let found = left_behind(&id);
    ensure!(found.iter().filter(|what| what.starts_with("process ")).count() == 3, "{found:?}");
    ensure!(found.iter().filter(|what| what.starts_with("network namespace ")).count() == HOSTS.len() + 1, "{found:?}");
    let faults = network.close();
    ensure!(faults.is_empty(), "{faults:?}");
    ensure!(left_behind(&id).is_empty(), "{:?}", left_behind(&id));
    drop(sleeper);
    Ok(())
}

/// A run that was killed is swept by the next; a living one is not touched.
#[test]
fn sweeping_takes_the_dead_and_spares_the_living() -> Result<()> {
    let living = Network::create(&Silent)?;
    let before = left_behind(living.run().id());
    // Another process makes a run and is killed: this very test program, asked by an environment variable.
    let mut child = Process::spawn(
        "a run that will crash",
        Command::new(std::env::current_exe()?)
            .args(["--exact", "a_run_that_crashes", "--nocapture"])
            .env(CRASH_FILE, living.run().folder().join("crashed"))
            .stdout(Stdio::null()),
    )?;
    let file = living.run().folder().join("crashed");
    eventually(DEADLINE, "the other run stands", || Ok(fs::read_to_string(&file).is_ok_and(|id| id.ends_with('\n'))))?;
    let dead = fs::read_to_string(&file)?.trim().to_owned();
    child.signal(nix::sys::signal::Signal::SIGKILL)?;
    child.wait(DEADLINE)?;
    ensure!(left_behind(&dead).iter().any(|what| what.contains("sleep 1000")), "{:?}", left_behind(&dead));
    // Another test's bed may have swept it meanwhile; what counts is that it is gone.
    Bed::sweep()?;
    ensure!(left_behind(&dead).is_empty(), "{:?}", left_behind(&dead));
    ensure!(left_behind(living.run().id()) == before, "the living run was harmed");
    Ok(())
}

/// Started by the test above only; by itself it does nothing.
#[test]
fn a_run_that_crashes() -> Result<()> {
    let Some(file) = std::env::var_os(CRASH_FILE) else { return Ok(()) };
    let network = Network::create(&Silent)?;
    let mut sleeper = Command::new("sleep");
    network.place("web1", "bed", sleeper.arg("1000"))?;
    let mut sleeper = Process::spawn("sleep", &mut sleeper)?;
    fs::write(file, format!("{}\n", network.run().id()))?;
    // Until the killer comes.
    sleeper.wait(Duration::from_secs(60)).map(drop)
}

const CRASH_FILE: &str = "FOOBAR_TESTS_CRASH_FILE";
const DEADLINE: Duration = Duration::from_secs(10);
