//! Connections to a VIP by the way of one backend: a SYN to the VIP goes where its backend is, whatever holds the VIP here.
//!
//! The balancer holds the VIP itself, so none of its own sockets reaches a backend by it. The SYN is written by hand, and sent
//! with the backend's own address as its next hop; the answer comes from the VIP, is let in by a rule of its own, and is
//! taken off the wire before the stack wonders about it. The handshake is broken off: no program ever sees it.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OnceCell, oneshot};
use tokio::task::AbortHandle;
use tracing::warn;

use super::syn::Segment;
use crate::plan::CHECK_PORTS;

/// Longest part of an answer that is looked at.
const ANSWER_BYTES: usize = 128;

/// Raw sockets of both families, opened when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Wire {
    v4: OnceCell<Option<Ends>>,
    v6: OnceCell<Option<Ends>>,
    /// The next source port, counted from the first of [`CHECK_PORTS`].
    port: AtomicU16,
}

/// What is sent and heard by.
#[derive(Debug)]
struct Ends {
    sender: Socket,
    heard: Arc<Heard>,
    listening: AbortHandle,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Who waits for an answer that acknowledges which number.
#[derive(Debug, Default)]
struct Heard(Mutex<BTreeMap<u32, oneshot::Sender<Segment>>>);

impl Heard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, oneshot::Sender<Segment>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, answer: Segment) {
        if let Some(waiting) = self.lock().remove(&answer.acknowledged) {
            // Who asked may have given up.
            let _ = waiting.send(answer);
        }
    }
}

/// An answer that is waited for, until it is dropped.
struct Expected<'h> {
    heard: &'h Heard,
    number: u32,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.heard.lock().remove(&self.number);
    }
}

impl Wire {
    /// Asks a backend whether it accepts connections to a VIP; waits for ever.
    pub(super) async fn ask(&self, backend: IpAddr, vip: SocketAddr) -> Result<()> {
        let ends = if backend.is_ipv4() { &self.v4 } else { &self.v6 };
        let Some(ends) = ends.get_or_init(async || opened(backend.is_ipv6())).await else { return Ok(()) };
        let from = SocketAddr::new(source(backend)?, self.next_port());
        let sequence = RandomState::new().hash_one(from) as u32;
        let expected = Expected { heard: &ends.heard, number: sequence.wrapping_add(1) };
        let (told, answer) = oneshot::channel();
        ends.heard.lock().insert(expected.number, told);
        ends.send(&Segment::syn(from, vip, sequence), backend)?;
        let answer = answer.await.context("nobody listens for answers any more")?;
        if !answer.accepts() {
            bail!("it refuses connections to the VIP {vip}: what it runs must listen there, or on every address");
        }
        ends.send(&Segment::reset(&answer), backend)
    }

    fn next_port(&self) -> u16 {
        let count = CHECK_PORTS.end() - CHECK_PORTS.start() + 1;
        CHECK_PORTS.start() + self.port.fetch_add(1, Ordering::Relaxed) % count
    }
}

/// The sockets of a family. Without the right to have them, backends are checked at their own addresses alone.
fn opened(v6: bool) -> Option<Ends> {
    match Ends::open(v6) {
        Ok(ends) => Some(ends),
        Err(error) => {
            warn!("backends cannot be checked by their VIPs, only at their own addresses: {error:#}");
            None
        }
    }
}

impl Ends {
    fn open(v6: bool) -> Result<Self> {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        // Of this protocol the header is ours to write.
        let sender = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
            .context("no raw socket (CAP_NET_RAW)")?;
        sender.set_nonblocking(true).context("the raw socket blocks")?;
        let heard = Arc::new(Heard::default());
        let ear = ear(v6)?;
        // SAFETY: the socket owns its descriptor, and keeps it open and the same until it is dropped.
        let ear = unsafe { AsyncFd::register_with_interest(ear, Interest::READABLE) };
        let ear = ear.map_err(|error| error.into_parts().1).context("cannot wait for packets")?;
        let listening = tokio::spawn(listen(ear, Arc::clone(&heard))).abort_handle();
        Ok(Self { sender, heard, listening })
    }

    fn send(&self, segment: &Segment, next_hop: IpAddr) -> Result<()> {
        let packet = segment.packet().context("a VIP and a backend of two address families")?;
        // The kernel goes by the address that it is told, not by the header's; and refuses a way that leads over a router.
        let sent = self.sender.send_to_with_flags(&packet, &SocketAddr::new(next_hop, 0).into(), libc::MSG_DONTROUTE);
        match sent {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => bail!(
                "{next_hop} is in no network of this server, and a `direct` service reaches backends by their MAC addresses: \
                 set `forward = \"tunnel\"` or `\"nat\"`"
            ),
            Err(error) => Err(error).with_context(|| format!("cannot send a SYN to {next_hop}")),
        }
    }
}

/// This host's address towards a backend.
fn source(backend: IpAddr) -> Result<IpAddr> {
    let any = if backend.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("no socket")?;
    // Nothing is sent: this asks for the route.
    socket.connect(SocketAddr::new(backend, 9)).with_context(|| format!("no route to {backend}"))?;
    Ok(socket.local_addr().context("no address")?.ip())
}

/// Hears TCP packets to [`CHECK_PORTS`], on every interface.
fn ear(v6: bool) -> Result<Socket> {
    let protocol = if v6 { libc::ETH_P_IPV6 } else { libc::ETH_P_IP };
    let protocol = i32::from(u16::try_from(protocol)?.to_be());
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(protocol)))
        .context("no packet socket (CAP_NET_RAW)")?;
    socket.attach_filter(&filter(v6)).context("the kernel refuses a packet filter")?;
    socket.set_nonblocking(true).context("the packet socket blocks")?;
    Ok(socket)
}

/// Classic BPF over a packet from its IP header on.
fn filter(v6: bool) -> Vec<SockFilter> {
    let code = |code: u32| u16::try_from(code).unwrap_or(0);
    let load = |code_bits: u32, at: u32| SockFilter::new(code(code_bits), 0, 0, at);
    let protocol = load(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, if v6 { 6 } else { 9 });
    let is_tcp = |otherwise| SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ), 0, otherwise, 6);
    let port = if v6 {
        vec![load(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 42)]
    } else {
        vec![load(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0), load(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 2)]
    };
    let (first, last) = (u32::from(*CHECK_PORTS.start()), u32::from(*CHECK_PORTS.end()));
    // From the second step to the last one, which refuses.
    let refuse = if v6 { 4 } else { 5 };
    let ends = [
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JGE), 0, 2, first),
        SockFilter::new(code(libc::BPF_JMP | libc::BPF_JGT), 1, 0, last),
        SockFilter::new(code(libc::BPF_RET), 0, 0, ANSWER_BYTES as u32),
        SockFilter::new(code(libc::BPF_RET), 0, 0, 0),
    ];
    [protocol, is_tcp(refuse)].into_iter().chain(port).chain(ends).collect()
}

async fn listen(ear: AsyncFd<Socket>, heard: Arc<Heard>) {
    let mut packet = [0; ANSWER_BYTES];
    loop {
        let Ok(mut ready) = ear.readable().await else { return };
        // An error is an interface that went down; there are others.
        if let Ok(Ok(length)) = ready.try_io(|ear| ear.get_ref().read(&mut packet))
            && let Some(answer) = Segment::read(&packet[..length])
        {
            heard.tell(answer);
        }
    }
}
