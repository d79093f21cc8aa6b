//! `foobar explain`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{ArgGroup, Args};
use foobar_user::agent::Explanation;
use foobar_user::agent::control::Command;
use foobar_user::frame::build::{self, Kind, Question, SYN};
use foobar_user::frame::pcap;

use super::{ServerArguments, print_json};

/// Source port of packets whose question names none: one of those that systems choose.
const EPHEMERAL_PORT: u16 = 40_000;
/// Frames of a capture that are explained unless more are asked for.
const FRAMES: usize = 1_000;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["from", "pcap"])))]
#[command(group(ArgGroup::new("kind").args(["tcp_syn", "tcp_flags", "udp", "icmp"])))]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// Source: an address, or address and port (`203.0.113.9:40000`, `[2001:db8::1]:40000`).
    #[arg(long, value_parser = end, requires = "to", value_name = "IP[:PORT]")]
    from: Option<End>,
    /// Destination: an address, or address and port.
    #[arg(long, value_parser = end, value_name = "IP[:PORT]", conflicts_with = "pcap")]
    to: Option<End>,
    /// The packet opens a TCP connection. This is also meant when nothing else is said.
    #[arg(long)]
    tcp_syn: bool,
    /// TCP with these flags: syn,ack.
    #[arg(long, value_parser = build::flags, value_name = "FLAGS")]
    tcp_flags: Option<u8>,
    /// UDP.
    #[arg(long)]
    udp: bool,
    /// ICMP, or ICMPv6 between IPv6 addresses, of this type.
    #[arg(long, value_name = "TYPE")]
    icmp: Option<u8>,
    /// VLAN that the frame is tagged with.
    #[arg(long, value_parser = clap::value_parser!(u16).range(..4095), conflicts_with = "pcap")]
    vlan: Option<u16>,
    /// Explain the frames of a capture (tcpdump -w FILE).
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    pcap: Option<PathBuf>,
    /// Frames of the capture at the most.
    #[arg(long, default_value_t = FRAMES, requires = "pcap")]
    count: usize,
    /// Interface by which the packet comes [default: the first one of the server].
    #[arg(long)]
    interface: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End(IpAddr, Option<u16>);

fn end(text: &str) -> Result<End, String> {
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(End(address, None));
    }
    let socket: SocketAddr =
        text.parse().map_err(|_| "an address, or address and port: 10.0.1.11:22, [2001:db8::1]:22".to_owned())?;
    Ok(End(socket.ip(), Some(socket.port())))
}

pub(super) fn explain(arguments: &ExplainArguments) -> Result<()> {
    let mut explanations = Vec::new();
    if let Some(path) = &arguments.pcap {
        let mut left = 0;
        for_each_frame(path, |frame| {
            if explanations.len() < arguments.count {
                explanations.push(ask(arguments, &frame)?);
            } else {
                left += 1;
            }
            Ok(())
        })?;
        if left > 0 {
            eprintln!("{left} more frames in {}: say --count to explain them too", path.display());
        }
    } else {
        let frame = build::frame(&arguments.question()?).map_err(|why| anyhow!(why))?;
        explanations.push(ask(arguments, &frame)?);
    }
    match (&explanations[..], arguments.json, &arguments.pcap) {
        ([one], true, None) => return print_json(one),
        (all, true, _) => return print_json(&all),
        (all, false, None) => all.iter().for_each(|one| print!("{one}")),
        (all, false, Some(_)) => {
            for (index, explanation) in all.iter().enumerate() {
                print!("{}{}. {explanation}", if index == 0 { "" } else { "\n" }, index + 1);
            }
        }
    }
    Ok(())
}

fn for_each_frame(path: &Path, mut each: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
    let mut capture = pcap::open(path)?;
    while let Some(frame) = capture.next_frame().with_context(|| format!("cannot read {}", path.display()))? {
        each(frame.bytes)?;
    }
    Ok(())
}

fn ask(arguments: &ExplainArguments, frame: &[u8]) -> Result<Explanation> {
    let frame = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    arguments.server.ask(&Command::Explain { frame, interface: arguments.interface.clone() })
}

impl ExplainArguments {
    fn question(&self) -> Result<Question> {
        let (End(from, from_port), End(to, to_port)) =
            self.from.zip(self.to).context("say where the packet comes from (--from) and where it goes (--to)")?;
        let kind = match (self.tcp_flags, self.udp, self.icmp) {
            (Some(flags), ..) => Kind::Tcp(flags),
            (_, true, _) => Kind::Udp,
            (.., Some(kind)) => Kind::Icmp(kind),
            _ => Kind::Tcp(SYN),
        };
        let to_port = match (kind, to_port) {
            (Kind::Icmp(_), _) => 0,
            (_, port) => port.with_context(|| format!("say to which port: --to {}", SocketAddr::new(to, 22)))?,
        };
        let from_port = from_port.unwrap_or(EPHEMERAL_PORT);
        Ok(Question { from, from_port, to, to_port, kind, vlan: self.vlan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_with_and_without_port() {
        assert_eq!(end("10.0.1.11").unwrap(), End("10.0.1.11".parse().unwrap(), None));
        assert_eq!(end("10.0.1.11:22").unwrap(), End("10.0.1.11".parse().unwrap(), Some(22)));
        assert_eq!(end("2001:db8::1").unwrap(), End("2001:db8::1".parse().unwrap(), None));
        assert_eq!(end("[2001:db8::1]:22").unwrap(), End("2001:db8::1".parse().unwrap(), Some(22)));
        assert_eq!(end("[2001:db8::1]").unwrap(), End("2001:db8::1".parse().unwrap(), None));
        assert!(end("web1:22").is_err());
    }
}
