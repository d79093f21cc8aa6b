//! A packet capture: every frame that a namespace sees, over an `AF_PACKET` socket.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, ReceiveTimestampns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt, socket,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};

use crate::namespace::Namespace;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Frame>>>>,
}

/// One frame from the wire.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// When the kernel saw it, on the clock of the day.
    at: Duration,
}

impl Capture {
    /// Captures all frames of all interfaces of `namespace` from now on.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(open)??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("capture".to_owned()).spawn(move || collect(&socket, &stopped))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the capture and returns its frames.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the capture has ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the capture's thread panicked"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Frame {
    /// Whether `needle` is somewhere in the frame.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }

    /// When the kernel saw it, since 1970.
    pub const fn at(&self) -> Duration {
        self.at
    }

    /// Source and destination of a TCP or UDP packet.
    pub fn endpoints(&self) -> Option<(SocketAddr, SocketAddr)> {
        let packet = SlicedPacket::from_ethernet(&self.bytes).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let (from, to) = match packet.transport? {
            TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
            _ => return None,
        };
        Some((SocketAddr::new(source, from), SocketAddr::new(destination, to)))
    }
}

fn open() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("cannot open a packet socket")?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES).context("cannot enlarge the receive buffer")?;
    setsockopt(&socket, ReceiveTimestampns, &true).context("cannot ask for times")?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(POLL_MS)).context("cannot set a receive timeout")?;
    Ok(socket)
}

/// Reads until it is told to stop and nothing more is queued.
fn collect(socket: &OwnedFd, stop: &AtomicBool) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 16];
    loop {
        // Asked to stop, it takes what is queued and waits for nothing: a site is never silent.
        let stopping = stop.load(Ordering::Relaxed);
        let flags = if stopping { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        match receive(socket, &mut buffer, flags) {
            Ok((length, at)) => {
                bytes += length;
                if bytes > MAX_BYTES {
                    bail!("the capture is larger than {MAX_BYTES} bytes");
                }
                frames.push(Frame { bytes: buffer[..length].to_vec(), at });
            }
            Err(Errno::EAGAIN) if stopping => return Ok(frames),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot read from the packet socket"),
        }
    }
}

/// Length of the next frame, and when the kernel saw it.
fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: MsgFlags) -> nix::Result<(usize, Duration)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let stamp = message.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    Ok((message.bytes, stamp.ok_or(Errno::ENOMSG)?))
}

const POLL_MS: i64 = 50;
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
const MAX_BYTES: usize = 256 << 20;
