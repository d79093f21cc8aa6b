//! New TCP connections a second through each firewall, over no firewall: connect, be accepted, be closed.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::cable::Cable;
use super::frame::{SERVER, SERVICE_PORT};
use super::guards::{Guard, Installed};
use super::nft::{Form, Hook, Ruleset};
use super::ours;
use crate::bench::lab::Lab;
use crate::bench::row::{Measured, Row, Target};
use crate::bench::samples::Samples;
use crate::progress::{Progress, check, step};

/// Connects through every firewall in turn.
pub(super) fn run(progress: &dyn Progress, rounds: u32, time: Duration) -> Result<Vec<Row>> {
    let lab = Lab::with_pins(progress)?;
    let mut sites = Vec::new();
    for (number, (name, guard, target)) in cases().into_iter().enumerate() {
        let what = format!("connections, {name}");
        sites.extend(step(progress, &what, || Site::build(&lab, number, name, &guard, target))?);
    }
    let Some((nothing, guarded)) = sites.split_first_mut() else { return Ok(Vec::new()) };
    for round in 0..rounds {
        step(progress, &format!("connections, round {} of {rounds}", round + 1), || {
            let mut order: Vec<&mut Site> = guarded.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            let mut before = nothing.connect(time)?;
            for site in order {
                check(progress)?;
                site.rate.add(site.connect(time)?);
                let after = nothing.connect(time)?;
                site.nothing.add(f64::midpoint(before, after));
                before = after;
            }
            Ok(())
        })?;
    }
    let row = |site: &Site| {
        let peer = Measured { name: nothing.name, samples: &site.nothing };
        Row::new(("firewall", "connections/s"), site.name, &site.rate, peer, site.target)
    };
    Ok(guarded.iter().map(row).collect())
}

/// A server behind a firewall.
struct Site {
    name: &'static str,
    target: Option<Target>,
    cable: Cable,
    listener: TcpListener,
    _installed: Installed,
    rate: Samples,
    /// Without a firewall, before and after each.
    nothing: Samples,
}

impl Site {
    fn build(
        lab: &Lab,
        number: usize,
        name: &'static str,
        guard: &Guard,
        target: Option<Target>,
    ) -> Result<Option<Self>> {
        let cable = Cable::create(lab, number)?;
        let Some(installed) = guard.install(lab, &cable)? else { return Ok(None) };
        let listener = cable.guarded.run(|| TcpListener::bind((SERVER, SERVICE_PORT)))?.context("cannot listen")?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ACCEPT_MS))?;
        let (rate, nothing) = (Samples::default(), Samples::default());
        let site = Self { name, target, cable, listener, _installed: installed, rate, nothing };
        site.connect(WARM_UP)?;
        Ok(Some(site))
    }

    /// Connections a second.
    fn connect(&self, time: Duration) -> Result<f64> {
        let stop = AtomicBool::new(false);
        let start = Instant::now();
        let made = thread::scope(|scope| {
            let server = scope.spawn(|| serve(&self.listener, &stop));
            let made = self.cable.sender.run(|| {
                thread::scope(|inside| {
                    let clients: Vec<_> = (0..CLIENTS).map(|_| inside.spawn(|| client(start + time))).collect();
                    let made =
                        clients.into_iter().map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")));
                    made.sum::<Result<u64>>()
                })
            });
            stop.store(true, Ordering::Relaxed);
            server.join().unwrap_or_else(|_| bail!("the server panicked"))?;
            made?
        });
        let made = made.with_context(|| format!("cannot connect through {}", self.name))?;
        ensure!(made > 0, "{}: no connection", self.name);
        Ok(made as f64 / start.elapsed().as_secs_f64())
    }
}

/// Accepts and closes.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => drop(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
    Ok(())
}

/// Connects and waits for the other side's end, until `end`; the number of times.
fn client(end: Instant) -> Result<u64> {
    let mut made = 0;
    while Instant::now() < end {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((SERVER, SERVICE_PORT)), CONNECT)?;
        stream.set_read_timeout(Some(CONNECT))?;
        stream.read(&mut [0]).context("the server does not close")?;
        made += 1;
    }
    Ok(made)
}

/// No firewall comes first.
fn cases() -> Vec<(&'static str, Guard, Option<Target>)> {
    let nft = |hook, form, stateful| Guard::Nft(Ruleset { hook, form, stateful });
    let target = Some(Target::AtLeast(0.95));
    vec![
        ("no firewall", Guard::Nothing, None),
        ("an XDP program that passes", Guard::Passing, None),
        ("foobar, 1,000 rules", Guard::Rules(1000, ours::tcp()), target),
        ("foobar, set of 1,000,000", Guard::Set(1_000_000), target),
        ("xdp-filter, 1,000", Guard::XdpFilter(1000), None),
        ("nft ingress, set of 10,000", nft(Hook::Ingress, Form::Set(10_000), false), None),
        ("nft ingress, 1,000 rules", nft(Hook::Ingress, Form::Linear(1000), false), None),
        ("nft input, stateful, set of 10,000", nft(Hook::Input, Form::Set(10_000), true), None),
        ("nft input, stateful, intervals of 10,000", nft(Hook::Input, Form::Intervals(10_000), true), None),
        ("nft input, stateful, 1,000 rules", nft(Hook::Input, Form::Linear(1000), true), None),
    ]
}

const CLIENTS: usize = 4;
const ACCEPT_MS: i64 = 50;
const CONNECT: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(200);
