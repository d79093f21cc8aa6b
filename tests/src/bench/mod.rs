//! `foobar-bed bench`: figures of ours beside a peer's, measured in one interleaved run, as ratios.
//!
//! Absolute figures hold for one machine and minute; the speed of a virtual machine changes by half within a minute. So
//! every case is measured between, or in turn with, what it is compared to, several times, and what counts is the ratio.

mod balancer;
mod cpu;
mod failover;
mod firewall;
mod http;
mod lab;
mod packets;
mod part;
mod row;
mod samples;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::console::screen::Screen;
use crate::console::stop::Stop;
use crate::leftovers;
use crate::progress::Progress;
use part::Part;
use row::Row;

/// Arguments of `foobar-bed bench`.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Run only this bench
    bench: Option<Bench>,
    /// Run only this part of the bench that has it
    #[arg(long)]
    part: Option<Part>,
    /// Print one JSON object a row; everything else goes to standard error
    #[arg(long)]
    json: bool,
    /// Rounds of the benches on wires, deaths of each leader; BPF_PROG_TEST_RUN always takes 24 or 64
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds that each way is measured in such a round; datagrams are sent for a tenth of that
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Nanoseconds a packet of the packet path, by BPF_PROG_TEST_RUN
    Packets,
    /// The firewall beside xdp-filter, nftables and the kernel's tries: look-ups, floods, new connections
    Firewall,
    /// The L4 balancer beside nftables, nginx and HAProxy: requests a second over direct, by wrk
    Balancer,
    /// Requests a second and CPU a request, by wrk through the site
    Http,
    /// Milliseconds without writes when the database's leader dies or hands over, beside Patroni with etcd and HAProxy
    Failover,
}

/// Runs the benches; fails when one could not be run, never for a figure.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let stop = Stop::listen()?;
    let screen = Screen::new(arguments.json, true, stop.clone());
    let outcome = benches(arguments, &screen);
    if stop.asked() {
        screen.line("stopped; everything is removed");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

fn benches(arguments: &Arguments, screen: &Screen) -> Result<()> {
    let of_part = arguments.part.map(Part::bench);
    ensure!(
        of_part.is_none() || arguments.bench.is_none_or(|named| Some(named) == of_part),
        "this bench has no such part: `--part` alone chooses the bench that has it"
    );
    let only = arguments.bench.or(of_part);
    let wanted = |bench| only.is_none_or(|only| only == bench);
    for id in leftovers::sweep()? {
        screen.note(&format!("removed what the run {id} left behind"));
    }
    if wanted(Bench::Packets) {
        print(arguments, screen, &packets::run(screen)?)?;
    }
    if wanted(Bench::Firewall) {
        let seconds = Duration::from_secs(u64::from(arguments.seconds));
        print(arguments, screen, &firewall::run(screen, arguments.part, arguments.rounds, seconds)?)?;
    }
    if wanted(Bench::Balancer) {
        // The packet path is a bench of its own: among all of them it runs once.
        let part = arguments.part.or(only.is_none().then_some(Part::Wire));
        print(arguments, screen, &balancer::run(screen, part, arguments.rounds, arguments.seconds)?)?;
    }
    if wanted(Bench::Http) {
        print(arguments, screen, &http::run(screen, arguments.rounds, arguments.seconds)?)?;
    }
    if wanted(Bench::Failover) {
        print(arguments, screen, &failover::run(screen, arguments.rounds)?)?;
    }
    Ok(())
}

fn print(arguments: &Arguments, screen: &Screen, rows: &[Row]) -> Result<()> {
    if !arguments.json {
        screen.line(&table::text(rows));
        return Ok(());
    }
    for row in rows {
        println!("{}", serde_json::to_string(row).context("cannot write a row")?);
    }
    Ok(())
}

const INTERRUPTED: u8 = 130;
