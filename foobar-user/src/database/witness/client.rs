//! The asking end: one connection that is kept, and made anew after any failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls;
use super::wire::{self, Answer, Request};
use crate::database::state::{Member, State};
use crate::database::store::{Snapshot, Store};
use crate::plan::TlsFiles;

/// Time that one question may take, connecting included: a part of a lease.
const PATIENCE: Duration = Duration::from_millis(400);

/// A database server's way to the witness.
#[derive(Debug)]
pub struct Client {
    /// The witness's server, and name in its certificate.
    server: String,
    addresses: Vec<SocketAddr>,
    files: TlsFiles,
    kept: Mutex<Option<BufReader<TlsStream<TcpStream>>>>,
}

impl Client {
    /// A client that is not connected yet.
    #[must_use]
    pub fn new(server: String, addresses: Vec<SocketAddr>, files: TlsFiles) -> Self {
        Self { server, addresses, files, kept: Mutex::default() }
    }

    async fn ask(&self, request: &Request) -> Result<Answer> {
        // What is asked while the answer to an earlier question is still awaited waits as long as that.
        let mut kept = self.kept.lock().await;
        let mut connection = kept.take();
        let asked = async {
            let stream = match &mut connection {
                Some(stream) => stream,
                None => connection.insert(self.connect().await?),
            };
            wire::send(stream.get_mut(), request).await?;
            wire::receive(stream).await?.context("it closed the connection")
        };
        let answer = timeout(PATIENCE, asked).await;
        let who = || format!("the witness {}", self.server);
        let answer = answer.with_context(|| format!("{} does not answer", who()))?.with_context(who)?;
        *kept = connection;
        match answer {
            Answer::Refused(why) => bail!("{} refuses: {why}", who()),
            answer => Ok(answer),
        }
    }

    /// Certificates are read anew: they may have been renewed.
    async fn connect(&self) -> Result<BufReader<TlsStream<TcpStream>>> {
        let config: Arc<ClientConfig> = tls::client(&self.files)?;
        let name = ServerName::try_from(self.server.clone())?;
        let mut last = None;
        for address in &self.addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let stream = TlsConnector::from(config).connect(name, stream).await?;
                    return Ok(BufReader::new(stream));
                }
                Err(error) => last = Some(error),
            }
        }
        bail!("cannot connect: {}", last.map_or_else(|| "it has no address".to_owned(), |error| error.to_string()))
    }
}

impl Store for Client {
    async fn read(&self) -> Result<Snapshot> {
        match self.ask(&Request::Read).await? {
            Answer::Snapshot(snapshot) => Ok(snapshot),
            other => bail!("the witness answers {other:?}"),
        }
    }

    async fn swap(&self, version: (u64, u64), state: &State) -> Result<Option<(u64, u64)>> {
        match self.ask(&Request::Swap { version, state: state.clone() }).await? {
            Answer::Swapped(swapped) => Ok(swapped),
            other => bail!("the witness answers {other:?}"),
        }
    }

    async fn tell(&self, _: &str, member: &Member) -> Result<()> {
        match self.ask(&Request::Tell(member.clone())).await? {
            Answer::Told => Ok(()),
            other => bail!("the witness answers {other:?}"),
        }
    }
}
