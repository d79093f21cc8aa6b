//! A steady load from one host: how many answers were good, and when and why the others were not.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Connection, Target};
use crate::namespace::Namespace;

/// What a load sends.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Where to.
    pub target: Target,
    /// Paths, asked for in turn.
    pub paths: Vec<String>,
    /// Connections at the same time.
    pub connections: usize,
    /// Whether a connection takes more than one request.
    pub keep_alive: bool,
    /// Time between an answer and the connection's next request.
    pub pause: Duration,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    state: Arc<State>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A request that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When its failure was known.
    pub at: Instant,
    /// Why.
    pub why: String,
}

/// What a load has seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Good answers.
    pub good: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// The others, in order.
    pub failures: Vec<Failure>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    good: AtomicU64,
    opened: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

impl Load {
    /// Starts the load `shape` from `namespace`.
    pub fn start(namespace: &Namespace, shape: &Shape) -> Result<Self> {
        let state = Arc::new(State::default());
        let (namespace, shape, shared) = (namespace.clone(), shape.clone(), Arc::clone(&state));
        let thread = thread::Builder::new().name("load".to_owned()).spawn(move || {
            namespace.enter()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let mut connections = tokio::task::JoinSet::new();
            for _ in 0..shape.connections {
                connections.spawn_on(drive(shape.clone(), Arc::clone(&shared)), runtime.handle());
            }
            runtime.block_on(connections.join_all());
            Ok(())
        })?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Good answers until now.
    pub fn good(&self) -> u64 {
        self.state.good.load(Ordering::Relaxed)
    }

    /// Failures until now.
    pub fn failed(&self) -> usize {
        self.state.failures().len()
    }

    /// Ends the load after the requests in flight.
    pub fn stop(mut self) -> Result<Report> {
        self.state.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the load has ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the load's thread panicked"))??;
        Ok(Report {
            good: self.good(),
            opened: self.state.opened.load(Ordering::Relaxed),
            failures: self.state.failures().clone(),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

impl State {
    fn failures(&self) -> std::sync::MutexGuard<'_, Vec<Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's requests, one after the other.
async fn drive(shape: Shape, state: Arc<State>) {
    let mut connection = None;
    let mut paths = shape.paths.iter().cycle();
    while !state.stop.load(Ordering::Relaxed) {
        let Some(path) = paths.next() else { return };
        match request(&shape.target, path, &mut connection, &state).await {
            Ok(()) => {
                state.good.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                connection = None;
                state.failures().push(Failure { at: Instant::now(), why: format!("{error:#}") });
            }
        }
        if !shape.keep_alive {
            connection = None;
        }
        tokio::time::sleep(shape.pause).await;
    }
}

async fn request(target: &Target, path: &str, connection: &mut Option<Connection>, state: &State) -> Result<()> {
    let open = match connection {
        Some(open) => open,
        None => {
            state.opened.fetch_add(1, Ordering::Relaxed);
            connection.insert(Connection::open(target).await?)
        }
    };
    let response = open.get(path).await?;
    ensure!(response.status.is_success(), "{path} answers {}", response.status);
    Ok(())
}
