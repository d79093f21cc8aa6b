//! Clients of the echo service, over TCP: questions one after the other, and bytes there and back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

/// So many connections one after the other, each answered and closed.
///
/// # Errors
/// One of them is not.
pub async fn knocks(vip: impl ToSocketAddrs, count: usize) -> Result<()> {
    for _ in 0..count {
        there_and_back(&vip, b"who").await?;
    }
    Ok(())
}

/// A megabyte there and back: whole, or it stalls.
///
/// # Errors
/// Not all of it comes back, or other bytes do.
pub async fn megabyte(vip: impl ToSocketAddrs) -> Result<()> {
    there_and_back(vip, &bytes(1 << 20)).await.map(drop)
}

/// So many bytes, in which a piece that is lost, doubled or moved shows.
#[must_use]
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 % 251) as u8).collect()
}

/// Sends all of it, while it is sent back, and then the end; the connection after both ends.
///
/// # Errors
/// No connection, no end, or other bytes than were sent.
pub async fn there_and_back(vip: impl ToSocketAddrs, data: &[u8]) -> Result<TcpStream> {
    let mut stream = timeout(ANSWER, TcpStream::connect(vip)).await.context("no connection")??;
    let (mut reader, mut writer) = stream.split();
    let mut back = Vec::with_capacity(data.len());
    let writing = async {
        writer.write_all(data).await?;
        writer.shutdown().await
    };
    let both = async { tokio::try_join!(writing, reader.read_to_end(&mut back)) };
    let outcome = timeout(ANSWER, both).await;
    ensure!(outcome.is_ok(), "the echo stalls after {} of {} bytes", back.len(), data.len());
    outcome??;
    ensure!(back == data, "{} bytes came back of {}, or others than were sent", back.len(), data.len());
    Ok(stream)
}

const ANSWER: Duration = Duration::from_secs(10);
