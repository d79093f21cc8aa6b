//! The echo service: answers each UDP datagram with the server's name and the datagram, and TCP byte for byte.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context, Result};
use nix::cmsg_space;
use nix::libc::in6_pktinfo;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt};
use tokio::io::Interest;
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

/// Answers from the address that was asked, which may be any of this host's, such as a VIP.
async fn echo(socket: &UdpSocket, server: &str) -> Result<()> {
    if socket.local_addr()?.is_ipv6() {
        setsockopt(socket, Ipv6RecvPacketInfo, &true).context("cannot ask for destinations")?;
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        let asked = socket.async_io(Interest::READABLE, || receive(socket, &mut buffer)).await;
        let (length, from, at) = asked.context("cannot receive")?;
        let answer = [server.as_bytes(), b" ", &buffer[..length]].concat();
        // A client that is gone is not this server's failure.
        let _ = socket.async_io(Interest::WRITABLE, || send(socket, &answer, &from, at)).await;
    }
}

/// A datagram's length, its sender, and the address that it was sent to.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SockaddrStorage, Option<in6_pktinfo>)> {
    let mut space = cmsg_space!(in6_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let datagram = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let at = datagram.cmsgs()?.find_map(|message| match message {
        // By which interface it came is not the way back.
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(in6_pktinfo { ipi6_ifindex: 0, ..info }),
        _ => None,
    });
    Ok((datagram.bytes, datagram.address.ok_or(io::ErrorKind::InvalidData)?, at))
}

fn send(socket: &UdpSocket, answer: &[u8], to: &SockaddrStorage, from: Option<in6_pktinfo>) -> io::Result<usize> {
    let from: Vec<ControlMessage<'_>> = from.iter().map(ControlMessage::Ipv6PacketInfo).collect();
    Ok(sendmsg(socket.as_raw_fd(), &[IoSlice::new(answer)], &from, MsgFlags::empty(), Some(to))?)
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
