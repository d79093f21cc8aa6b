//! Long-lived connections that ask for an echo all the time: which of them ended, and how long the longest wait was.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::eventually::eventually;
use crate::namespace::Namespace;

/// Running connections.
#[derive(Debug)]
pub struct Heartbeats {
    state: Arc<State>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Echoes, of all connections.
    pub beats: u64,
    /// The longest time from a message to its echo.
    pub longest: Duration,
    /// Why each connection that did not last has ended.
    pub ended: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    /// Echoes of each connection.
    beats: Vec<AtomicU64>,
    longest_us: AtomicU64,
    ended: Mutex<Vec<String>>,
}

impl Heartbeats {
    /// Opens `count` connections from `namespace` to the echo service at `address`; returns when each has had an echo.
    pub fn start(namespace: &Namespace, address: SocketAddr, count: usize) -> Result<Self> {
        let beats = (0..count).map(|_| AtomicU64::new(0)).collect();
        let state = Arc::new(State { beats, ..State::default() });
        let (namespace, shared) = (namespace.clone(), Arc::clone(&state));
        let thread = thread::Builder::new().name("heartbeats".to_owned()).spawn(move || {
            namespace.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut connections = tokio::task::JoinSet::new();
            for number in 0..count {
                connections.spawn_on(last(address, number, Arc::clone(&shared)), runtime.handle());
            }
            runtime.block_on(connections.join_all());
            Ok(())
        })?;
        let heartbeats = Self { state, thread: Some(thread) };
        heartbeats.go_on()?;
        Ok(heartbeats)
    }

    /// Waits until each connection has had some more echoes; fails as soon as one has ended.
    pub fn go_on(&self) -> Result<()> {
        let goals: Vec<u64> = self.state.beats.iter().map(|beats| beats.load(Ordering::Relaxed) + MORE).collect();
        let mut ended = Vec::new();
        eventually(PATIENCE, "every connection goes on", || {
            ended = self.state.ended().clone();
            let mut beats = self.state.beats.iter().zip(&goals);
            Ok(!ended.is_empty() || beats.all(|(beats, goal)| beats.load(Ordering::Relaxed) >= *goal))
        })?;
        ensure!(ended.is_empty(), "{} connections have ended; the first: {}", ended.len(), ended[0]);
        Ok(())
    }

    /// Connections that have ended by themselves.
    pub fn ended(&self) -> usize {
        self.state.ended().len()
    }

    /// The longest wait since the last look.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.state.longest_us.swap(0, Ordering::Relaxed))
    }

    /// Ends the connections after the echoes that they wait for.
    pub fn stop(mut self) -> Result<Report> {
        self.state.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the heartbeats have ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the heartbeats' thread panicked"))??;
        let beats = self.state.beats.iter().map(|beats| beats.load(Ordering::Relaxed)).sum();
        Ok(Report { beats, longest: self.longest(), ended: self.state.ended().clone() })
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn ended(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, until it is stopped or ends by itself.
async fn last(address: SocketAddr, number: usize, state: Arc<State>) {
    let mut beats = 0;
    if let Err(error) = beat(address, number, &state, &mut beats).await {
        state.ended().push(format!("connection {number}, after {beats} echoes: {error:#}"));
    }
}

async fn beat(address: SocketAddr, number: usize, state: &State, beats: &mut u64) -> Result<()> {
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await.context("no answer")??;
    stream.set_nodelay(true)?;
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !state.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let message = [(number as u64).to_be_bytes(), beats.to_be_bytes()].concat();
        let mut echo = [0; 16];
        let asked = Instant::now();
        stream.write_all(&message).await.context("cannot send")?;
        let read = timeout(PATIENCE, stream.read_exact(&mut echo)).await;
        read.with_context(|| format!("no echo within {PATIENCE:?}"))?.context("cannot receive")?;
        ensure!(echo[..] == message, "another message came back: {echo:?}");
        state.longest_us.fetch_max(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
        *beats += 1;
        state.beats[number].store(*beats, Ordering::Relaxed);
    }
    Ok(())
}

/// Time between an echo and the next message.
const BEAT: Duration = Duration::from_millis(50);
/// Echoes of each connection that show that it goes on.
const MORE: u64 = 2;
/// Whoever has waited for so long waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);
