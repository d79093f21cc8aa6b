//! A flood: packets of ever new sources from one namespace, bounded in rate, number and time.
//!
//! The same packets to a closed port are the control: generator and site share the machine's CPUs.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket};

use crate::namespace::Namespace;
use crate::packets::frame::checksum;

/// What each packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The SYN of a connection that never goes on.
    Syn,
    /// The ACK of a connection that never began.
    Ack,
    /// A datagram.
    Datagram,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What each packet is.
    pub kind: Kind,
    /// Where to.
    pub to: (Ipv4Addr, u16),
    /// MAC addresses of the next hop and of the own interface, `eth0`.
    pub macs: [[u8; 6]; 2],
    /// Packets at the most; each has a source of its own.
    pub packets: u64,
    /// Packets a second at the most.
    pub rate: u64,
    /// First source, as a number: two floods of one run differ in it.
    pub first: u32,
}

/// A running flood.
#[derive(Debug)]
pub struct Flood {
    state: Arc<State>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    /// Starts it from `namespace`.
    pub fn start(namespace: &Namespace, shape: Shape) -> Result<Self> {
        let state = Arc::new(State::default());
        let socket = namespace.run(open)??;
        let shared = Arc::clone(&state);
        let thread = thread::Builder::new().name("flood".to_owned()).spawn(move || pour(&socket, &shape, &shared))?;
        Ok(Self { state, thread: Some(thread) })
    }

    /// Packets that were sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Ends it; how many were sent.
    pub fn stop(mut self) -> Result<u64> {
        self.state.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all are sent; how many.
    pub fn join(&mut self) -> Result<u64> {
        let thread = self.thread.take().context("the flood has ended")?;
        thread.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??;
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

/// The MAC address of an interface in the namespace of the calling thread.
pub fn mac(namespace: &Namespace, interface: &str) -> Result<[u8; 6]> {
    // `/sys` shows the namespace that it was mounted in; `ip` asks the kernel.
    let mut command = std::process::Command::new("ip");
    namespace.attach(command.args(["-brief", "link", "show", "dev", interface]));
    let text = crate::process::run(&mut command)?;
    let found = text.split_ascii_whitespace().find_map(|word| {
        let bytes: Vec<u8> = word.split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>().ok()?;
        bytes.try_into().ok()
    });
    found.with_context(|| format!("no MAC address of {interface} in {text:?}"))
}

/// A packet socket that sends by `eth0` and receives nothing.
fn open() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    let index = if_nametoindex("eth0").context("no eth0")?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the address is a whole `sockaddr_ll`, its length is given, and the descriptor is open.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    (bound == 0).then_some(()).ok_or_else(io::Error::last_os_error).context("cannot bind a packet socket to eth0")?;
    Ok(socket)
}

/// Sends in bursts of a millisecond, so that the rate is met without waiting for each packet.
fn pour(socket: &OwnedFd, shape: &Shape, state: &State) -> Result<()> {
    let mut packet = Template::new(shape);
    let started = Instant::now();
    while state.sent.load(Ordering::Relaxed) < shape.packets && !state.stop.load(Ordering::Relaxed) {
        let sent = state.sent.load(Ordering::Relaxed);
        let due = (started.elapsed().as_micros() as u64 * shape.rate / 1_000_000).min(shape.packets);
        for number in sent..due {
            match send(socket.as_raw_fd(), packet.of(shape.first.wrapping_add(number as u32)), MsgFlags::empty()) {
                // A full queue is a packet lost on the wire.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS) => {}
                Err(error) => return Err(error).context("cannot send by the packet socket"),
            }
            state.sent.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A frame whose source is written anew for each packet; its checksums are kept as sums without the source.
struct Template {
    frame: Vec<u8>,
    sums: [u32; 2],
}

/// Offsets in the frame.
const SOURCE: usize = 26;
const SOURCE_PORT: usize = 34;
const IP_SUM: usize = 24;

impl Template {
    fn new(shape: &Shape) -> Self {
        let (protocol, length): (u8, u16) = if shape.kind == Kind::Datagram { (17, 13) } else { (6, 20) };
        let mut frame = shape.macs.concat();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 0, 0, 0, 0]);
        frame.extend(shape.to.0.octets());
        frame.extend([0, 0]);
        frame.extend(shape.to.1.to_be_bytes());
        match shape.kind {
            Kind::Syn => frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
            Kind::Ack => frame.extend([0, 0, 0, 2, 7, 7, 7, 7, 0x50, 16, 0xff, 0xff, 0, 0, 0, 0]),
            Kind::Datagram => frame.extend([&length.to_be_bytes()[..], &[0, 0], b"flood"].concat()),
        }
        let pseudo = [&shape.to.0.octets()[..], &[0, protocol], &length.to_be_bytes()].concat();
        let sum = |parts: &[&[u8]]| u32::from(!checksum(parts));
        let sums = [sum(&[&frame[14..34]]), sum(&[&pseudo, &frame[34..]])];
        Self { frame, sums }
    }

    /// The frame of source `number`: 11.0.0.0/8, which is no network of the bed, and a port that differs too.
    fn of(&mut self, number: u32) -> &[u8] {
        let (address, port) = (0x0b00_0000 | (number & 0x00ff_ffff), 1024 + (number % 60_000) as u16);
        self.frame[SOURCE..SOURCE + 4].copy_from_slice(&address.to_be_bytes());
        self.frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        let source = (address >> 16) + (address & 0xffff);
        let at = if self.frame[23] == 6 { 50 } else { 40 };
        self.frame[IP_SUM..IP_SUM + 2].copy_from_slice(&folded(self.sums[0] + source).to_be_bytes());
        self.frame[at..at + 2].copy_from_slice(&folded(self.sums[1] + source + u32::from(port)).to_be_bytes());
        &self.frame
    }
}

/// A sum as it stands in a header (RFC 1071).
const fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right_for_every_source() {
        for (kind, protocol) in [(Kind::Syn, 6), (Kind::Ack, 6), (Kind::Datagram, 17)] {
            let to = (Ipv4Addr::new(203, 0, 113, 10), 8080);
            let shape = Shape { kind, to, macs: [[2; 6], [4; 6]], packets: 1, rate: 1, first: 0 };
            let mut template = Template::new(&shape);
            for number in [0, 1, 0xffff, 0x12_3456, u32::MAX] {
                let frame = template.of(number);
                // Over a header with its own checksum, the sum is all ones.
                assert_eq!(checksum(&[&frame[14..34]]), 0, "{number}");
                let length = (frame.len() - 34) as u16;
                let pseudo = [&frame[26..34], &[0, protocol], &length.to_be_bytes()[..]].concat();
                assert_eq!(checksum(&[&pseudo, &frame[34..]]), 0, "{kind:?} {number}");
            }
        }
    }
}
