//! The listening end.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::ledger::Ledger;
use super::tls;
use super::wire::{self, Answer, Request};
use crate::plan::TlsFiles;

/// Connections at once; the next wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Time for a handshake, and between two requests.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a witness is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessSettings {
    /// Where it listens.
    pub listen: Vec<SocketAddr>,
    /// Its certificates.
    pub tls: TlsFiles,
    /// Database servers: who may ask.
    pub servers: Vec<String>,
    /// Folder of its memory.
    pub folder: PathBuf,
}

/// A running witness. It ends when it is dropped; before another one is started on its port or its memory, it is to be stopped.
#[derive(Debug)]
pub struct Server {
    /// What it was started with.
    pub settings: WitnessSettings,
    tasks: JoinSet<()>,
    ledger: Open,
}

/// The memory; `None`: it is closed.
type Open = Arc<Mutex<Option<Ledger>>>;

#[derive(Clone, Debug)]
struct Shared {
    ledger: Open,
    servers: Arc<[String]>,
    places: Arc<Semaphore>,
}

impl Server {
    /// Opens its memory, and listens.
    ///
    /// # Errors
    /// An address cannot be bound, or its memory or its certificates cannot be used.
    pub fn start(settings: WitnessSettings) -> Result<Self> {
        let acceptor = TlsAcceptor::from(tls::server(&settings.tls)?);
        let ledger = Arc::new(Mutex::new(Some(Ledger::open(&settings.folder)?)));
        let shared = Shared {
            ledger: Arc::clone(&ledger),
            servers: settings.servers.clone().into(),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let mut tasks = JoinSet::new();
        for address in &settings.listen {
            let listener = TcpListener::bind(address)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .and_then(tokio::net::TcpListener::from_std)
                .with_context(|| format!("the witness cannot listen on {address}: set another `witness_port`"))?;
            tasks.spawn(accept(listener, acceptor.clone(), shared.clone()));
        }
        Ok(Self { settings, tasks, ledger })
    }

    /// Ends it: its port is free, and nothing is written any more that the next one would not read.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        // A swap that is being written ends before it closes, whether or not somebody waits for the answer.
        let closed = tokio::task::spawn_blocking(move || drop(lock(&self.ledger).take())).await;
        if let Err(error) = closed {
            warn!("the memory of the witness is not closed: {error}");
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, shared: Shared) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&shared.places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let (acceptor, shared) = (acceptor.clone(), shared.clone());
                connections.spawn(async move {
                    if let Err(error) = serve(stream, acceptor, shared).await {
                        debug!("the witness let {from} go: {error:#}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("the witness cannot accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = timeout(PATIENCE, acceptor.accept(stream)).await.context("no handshake in time")??;
    let asker = tls::who(stream.get_ref().1.peer_certificates(), &shared.servers)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = timeout(PATIENCE, wire::receive(&mut stream)).await.context("silent")?? {
        let answer = shared.answer(&asker, request).await;
        wire::send(stream.get_mut(), &answer).await?;
    }
    Ok(())
}

fn lock(ledger: &Open) -> MutexGuard<'_, Option<Ledger>> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn answer(&self, asker: &str, request: Request) -> Answer {
        let (ledger, asker) = (Arc::clone(&self.ledger), asker.to_owned());
        // A swap waits for the disk.
        let answered = tokio::task::spawn_blocking(move || {
            let mut open = lock(&ledger);
            let ledger = open.as_mut().context("it has been stopped")?;
            match request {
                Request::Read => Ok(Answer::Snapshot(ledger.read())),
                Request::Swap { version, state } => ledger.swap(version, state).map(Answer::Swapped),
                Request::Tell(member) => {
                    ledger.tell(&asker, member);
                    Ok(Answer::Told)
                }
            }
        });
        match answered.await.map_err(anyhow::Error::from).and_then(|answer| answer) {
            Ok(answer) => answer,
            Err(error) => Answer::Refused(format!("{error:#}")),
        }
    }
}
