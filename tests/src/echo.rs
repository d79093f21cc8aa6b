//! The echo service: answers each UDP datagram with the server's name and the datagram, and TCP byte for byte.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, UdpSocket};

/// Serves until it fails.
pub async fn serve(listen: SocketAddr, server: &str) -> Result<()> {
    let udp = UdpSocket::bind(listen).await.with_context(|| format!("cannot listen on {listen}/udp"))?;
    let tcp = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}/tcp"))?;
    tokio::select! {
        result = echo(&udp, server) => result,
        result = accept(&tcp) => result,
    }
}

async fn echo(socket: &UdpSocket, server: &str) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.context("cannot receive")?;
        let answer = [server.as_bytes(), b" ", &buffer[..length]].concat();
        // A client that is gone is not this server's failure.
        let _ = socket.send_to(&answer, from).await;
    }
}

/// Each connection lasts until its client has sent all; a health check sends nothing.
async fn accept(listener: &TcpListener) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await.context("cannot accept")?;
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.split();
            // A client that is gone is not this server's failure.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}
