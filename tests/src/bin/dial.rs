//! `dial`: opens connections one after the other, from threads on every processor.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Each connection asks an echo service for one byte and is closed; fails with the first one that is not answered.
#[derive(Parser)]
struct Arguments {
    /// The echo service
    #[arg(long)]
    to: SocketAddr,
    /// How many connections
    #[arg(long)]
    count: usize,
    /// Threads on each processor
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> Result<()> {
    let Arguments { to, count, threads } = Arguments::parse();
    let processors = processors()?;
    let threads = processors.len() * threads;
    let callers = (0..threads).map(|number| {
        let processor = processors[number % processors.len()];
        let share = count / threads + usize::from(number < count % threads);
        thread::spawn(move || {
            stay(processor)?;
            (0..share).try_for_each(|_| dial(to))
        })
    });
    let callers: Vec<_> = callers.collect();
    callers.into_iter().try_for_each(|caller| caller.join().map_err(|_| anyhow!("a thread panicked"))?)
}

fn dial(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(b"?").context("cannot ask")?;
    let mut answer = [0];
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(&answer == b"?", "a wrong answer: {answer:?}");
    Ok(())
}

/// Processors that this process may use.
fn processors() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("cannot read the processors of this process")?;
    let found: Vec<usize> = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect();
    ensure!(!found.is_empty(), "no processor is allowed");
    Ok(found)
}

/// Keeps the calling thread on a processor.
fn stay(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot stay on processor {processor}"))
}

const DEADLINE: Duration = Duration::from_secs(20);
