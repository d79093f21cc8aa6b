//! One check of one address, whatever its kind.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use super::http::HttpProbe;
use super::postgres::{PostgresProbe, Said};
use super::script::ScriptProbe;
use super::tls::TlsProbe;
use crate::plan::CheckKind;

/// How one check ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// As it should; databases tell their role.
    Success(Option<Said>),
    /// Refused, broken off or answered wrongly.
    Failure(String),
    /// Not in time.
    Timeout(String),
}

impl Outcome {
    pub(super) const fn said(&self) -> Option<Said> {
        match self {
            Self::Success(said) => *said,
            Self::Failure(_) | Self::Timeout(_) => None,
        }
    }

    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Success(_) => None,
            Self::Failure(why) | Self::Timeout(why) => Some(why),
        }
    }
}

/// Asks one address again and again; keeps what can be kept between checks.
pub(super) enum Probe {
    Tcp(SocketAddr),
    Tls(Box<TlsProbe>),
    Http(Box<HttpProbe>),
    Script(ScriptProbe),
    Postgres(Box<PostgresProbe>),
}

impl Probe {
    pub(super) fn new(kind: &CheckKind, server: &str, address: SocketAddr) -> Self {
        match kind {
            CheckKind::Tcp => Self::Tcp(address),
            CheckKind::Tls(files) => Self::Tls(Box::new(TlsProbe::new(address, server, files))),
            CheckKind::Http(check) => Self::Http(Box::new(HttpProbe::new(address, server, check))),
            CheckKind::Script(command) => Self::Script(ScriptProbe::new(command, server, address)),
            CheckKind::Postgres { database, user, password_file } => {
                Self::Postgres(Box::new(PostgresProbe::new(address, database, user, password_file)))
            }
        }
    }

    /// Asks once; the caller limits the time.
    pub(super) async fn ask(&mut self) -> Result<Option<Said>> {
        match self {
            Self::Tcp(address) => {
                connect(*address).await?;
                Ok(None)
            }
            Self::Tls(probe) => probe.ask().await.map(|_| None),
            Self::Http(probe) => probe.ask().await.map(|()| None),
            Self::Script(probe) => probe.ask().await.map(|()| None),
            Self::Postgres(probe) => probe.ask().await.map(Some),
        }
    }

    /// Drops what was kept: after a failure the next check starts from nothing.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Tcp(_) | Self::Script(_) => {}
            Self::Tls(probe) => probe.forget(),
            Self::Http(probe) => probe.forget(),
            Self::Postgres(probe) => probe.forget(),
        }
    }
}

/// Connects to the backend's own address.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true).context("cannot switch off Nagle's algorithm")?;
    Ok(stream)
}
