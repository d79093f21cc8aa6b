//! `ask`: asks an echo service by datagrams of one socket, and tells who has answered and from where.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

/// Sends datagrams one after the other; a line for each answer: the server's name, and the address that the answer bears.
#[derive(Parser)]
struct Arguments {
    /// The echo service
    #[arg(long)]
    to: SocketAddr,
    /// How many datagrams
    #[arg(long, default_value_t = 3)]
    count: usize,
    /// Connect the socket first, and tell whom it says that it is connected to
    #[arg(long)]
    connected: bool,
}

fn main() -> Result<()> {
    let Arguments { to, count, connected } = Arguments::parse();
    // To an IPv4-mapped address an IPv6 socket sends by IPv4.
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).context("cannot open a socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    if connected {
        socket.connect(to).with_context(|| format!("cannot connect to {to}"))?;
        println!("peer {}", socket.peer_addr()?);
    }
    for number in 0..count {
        let text = format!("{number}");
        if connected {
            socket.send(text.as_bytes()).context("cannot send")?;
        } else {
            socket.send_to(text.as_bytes(), to).with_context(|| format!("cannot send to {to}"))?;
        }
        let mut buffer = [0; 64];
        let (length, from) =
            socket.recv_from(&mut buffer).with_context(|| format!("no answer to datagram {number}"))?;
        let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
        println!("{} {from}", answer.split(' ').next().unwrap_or_default());
    }
    Ok(())
}
