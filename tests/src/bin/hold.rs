//! `hold`: opens connections and holds them, as the lines of its standard input say; a line for each answer.

use std::io::{self, BufRead as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Parser;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
use std::os::fd::{AsRawFd as _, OwnedFd};

/// `open N`: one after the other. `storm N`: at once. `begin N`: without waiting. `datagrams N`: sockets connected by UDP.
/// `close N`: the oldest. `peer`: whom the newest is connected to.
#[derive(Parser)]
struct Arguments {
    /// Where to
    #[arg(long)]
    to: SocketAddr,
}

/// What is held, whatever it is.
enum Held {
    Stream(TcpStream),
    #[expect(dead_code, reason = "it is closed when it is dropped, and nothing else is wanted of it")]
    Other(OwnedFd),
}

fn main() -> Result<()> {
    let Arguments { to } = Arguments::parse();
    let mut held: Vec<Held> = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (word, number) = line.split_once(' ').unwrap_or((&line, "1"));
        let number: usize = number.parse().with_context(|| format!("`{number}` is no number"))?;
        let answer = match word {
            "open" => taken(&mut held, (0..number).map(|_| TcpStream::connect(to).map(Held::Stream))),
            "storm" => taken(&mut held, storm(to, number).into_iter()),
            "begin" => taken(&mut held, (0..number).map(|_| begin(to).map(Held::Other))),
            "datagrams" => taken(&mut held, (0..number).map(|_| datagrams(to).map(Held::Other))),
            "close" => {
                held.drain(..number.min(held.len()));
                format!("{} held", held.len())
            }
            "peer" => match held.last() {
                Some(Held::Stream(stream)) => stream.peer_addr()?.to_string(),
                _ => "no connection".to_owned(),
            },
            _ => bail!("`{word}` is no order"),
        };
        println!("{answer}");
        io::stdout().flush()?;
    }
    Ok(())
}

/// How many were made; and why one was not.
fn taken(held: &mut Vec<Held>, made: impl Iterator<Item = io::Result<Held>>) -> String {
    let (mut count, mut fault) = (0, String::new());
    for one in made {
        match one {
            Ok(one) => {
                held.push(one);
                count += 1;
            }
            Err(error) => fault = format!(", {:?}", Errno::from_raw(error.raw_os_error().unwrap_or(0))),
        }
    }
    format!("{count}{fault}")
}

/// So many at the same time.
fn storm(to: SocketAddr, number: usize) -> Vec<io::Result<Held>> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..number).map(|_| scope.spawn(move || TcpStream::connect(to))).collect();
        let joined = threads.into_iter().map(|thread| match thread.join() {
            Ok(result) => result.map(Held::Stream),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// A connection on its way.
fn begin(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let descriptor = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    match connect(descriptor.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(descriptor),
        Err(error) => Err(error.into()),
    }
}

/// A socket for datagrams that is connected.
fn datagrams(to: SocketAddr) -> io::Result<OwnedFd> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket.into())
}
