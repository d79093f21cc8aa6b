//! A cold start fails closed: once a server's firewall has dropped the first packet of a flood, none comes through.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::host::Host;
use foobar_tests::lone::{LoneServer, SITE};
use foobar_tests::{eventually, is_long};
use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use serde_json::Value;

/// Five starts, or fifty: each from nothing, under denied packets all the time.
#[test]
fn nothing_comes_through_a_cold_start() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let probes = Probes::default();
    thread::scope(|scope| {
        let (sender, sink) = (server.neighbour()?, server.namespace()?);
        let sent = scope.spawn(|| sender.run(|| probes.send()));
        let taken = scope.spawn(|| sink.run(|| probes.take()));
        let outcome = starts(&server, &probes);
        probes.stop.store(true, Ordering::Relaxed);
        for thread in [sent, taken] {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))???;
        }
        outcome
    })
}

fn starts(server: &LoneServer, probes: &Probes) -> Result<()> {
    let starts = if is_long() { 50 } else { 5 };
    for number in 1..=starts {
        start(server, probes).with_context(|| format!("start {number} of {starts}"))?;
    }
    Ok(())
}

/// One start, from an open server to an open server.
fn start(server: &LoneServer, probes: &Probes) -> Result<()> {
    // The control: without a firewall the probes are seen to come through.
    probes.taken().clear();
    eventually(DEADLINE, "probes come through an open server", || Ok(probes.taken().len() > 100))?;
    let mut agent = server.start()?;
    eventually(DEADLINE, "the agent is ready", || {
        let status: Value = serde_json::from_str(&server.ask(&["status", "--json"])?)?;
        Ok(status["ready"] == true)
    })?;
    let goal = probes.sent.load(Ordering::Relaxed) + 1000;
    eventually(DEADLINE, "probes after the start", || Ok(probes.sent.load(Ordering::Relaxed) >= goal))?;
    let taken = std::mem::take(&mut *probes.taken());
    agent.signal(Signal::SIGTERM)?;
    agent.wait(DEADLINE)?;
    server.detach()?;
    ensure!(taken.last().is_some_and(|last| *last < goal - 1000), "probes came through a server that is ready");
    let gap = taken.windows(2).find(|pair| pair[1] != pair[0] + 1);
    ensure!(gap.is_none(), "probe {gap:?} came through after others had been dropped");
    Ok(())
}

/// Numbered packets to a port that the firewall does not open, though somebody listens there.
#[derive(Default)]
struct Probes {
    stop: AtomicBool,
    sent: AtomicU32,
    taken: Mutex<Vec<u32>>,
}

impl Probes {
    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends some thousand a second.
    fn send(&self) -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            socket.send_to(&number.to_be_bytes(), address()?).context("cannot send a probe")?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn take(&self) -> Result<()> {
        let socket = UdpSocket::bind(address()?)?;
        setsockopt(&socket, RcvBufForce, &(4 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        while !self.stop.load(Ordering::Relaxed) {
            let mut number = [0; 4];
            if socket.recv(&mut number).is_ok() {
                self.taken().push(u32::from_be_bytes(number));
            }
        }
        Ok(())
    }
}

fn address() -> Result<SocketAddr> {
    let monitor = Host::named("monitor").context("a host")?;
    Ok(SocketAddr::from((monitor.v4(), 7199)))
}

const DEADLINE: Duration = Duration::from_secs(15);
