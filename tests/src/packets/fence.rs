//! What the fence holds back where it leaves: packets of the database's port, judged on the host and by the loaded program.

use anyhow::Result;
use aya::programs::{TestRun as _, TestRunOptions};
use foobar_common::abi::Fenced;
use foobar_common::fence;
use foobar_common::verdict::Reason;
use foobar_user::datapath::programs::FENCE;

use super::case::Lease;
use super::chain::Extension;
use super::frame::{ACK, FIN, Frame, RST, SYN, Transport};
use super::hosts::{CLIENT, Host, LB1, LB1_TOO, WEB1, WEB2};
use super::kernel::Kernel;
use super::session::Tally;
use super::shell::Shell as _;
use super::tables::named;

/// Port of the database.
const PORT: u16 = 5432;
/// Length of an Ethernet header: the program sees none.
const ETHERNET: usize = 14;

/// A packet that leaves.
struct Leaves {
    name: &'static str,
    bytes: Vec<u8>,
    /// Whether it is held back while the fence is up.
    held: bool,
}

/// Runs all packets, under every lease.
pub fn check(kernel: &mut Kernel, tally: &mut Tally) -> Result<()> {
    let both = |host: Host| [host.address(false), host.address(true)];
    let free = [both(LB1), both(LB1_TOO), both(WEB1)].concat();
    let fenced = Fenced::new(PORT, &free).expect("a few of them");
    for (fenced, there_is_one) in [(fenced, true), (Fenced::default(), false)] {
        kernel.set_fenced(&fenced)?;
        for v6 in [false, true] {
            for leaves in packets(v6) {
                let name = named(&format!("an answer: {}, with a fence: {there_is_one}", leaves.name), v6);
                let faults = faults(kernel, &fenced, &leaves, leaves.held && there_is_one)?;
                tally.note(&name, &faults);
            }
        }
    }
    kernel.set_lease(Lease::Endless)
}

fn faults(kernel: &mut Kernel, fenced: &Fenced, leaves: &Leaves, held: bool) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let packet = leaves.bytes[ETHERNET..].to_vec();
    if fence::holds_back(&packet, fenced) != held {
        faults.push(format!("the core says {}", !held));
    }
    for (lease, is_up) in [(Lease::None, true), (Lease::Now, true), (Lease::Soon, false), (Lease::Endless, false)] {
        kernel.set_lease(lease)?;
        let before = kernel.counters()?;
        let options = TestRunOptions { data_in: Some(&leaves.bytes), ..TestRunOptions::default() };
        let passed = kernel.programs().sending(FENCE)?.test_run(options)?.return_value == 1;
        let dropped = kernel.counters()?.since(&before).verdicts[Reason::FencedAnswer as usize];
        let expected = if held && is_up { (1, packet.len() as u64) } else { (0, 0) };
        if passed != (expected.0 == 0) || (dropped.packets, dropped.bytes) != expected {
            faults.push(format!("{lease:?}: passed {passed}, and {dropped:?} is counted"));
        }
    }
    Ok(faults)
}

fn packets(v6: bool) -> Vec<Leaves> {
    let tcp = |to: Host, source, flags| Frame::new(v6, LB1, to, Transport::Tcp(source, 40_000, flags));
    let leaves = |name, frame: &Frame, held| Leaves { name, bytes: frame.bytes(), held };
    let loopback = CLIENT.at([127, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into());
    let beside = CLIENT.at([128, 0, 0, 1].into(), [0, 0, 0, 0, 0, 0, 0, 2].into());
    let mut packets = vec![
        leaves("of a handshake", &tcp(WEB2, PORT, SYN | ACK), true),
        leaves("with data", &tcp(WEB2, PORT, ACK).data(b"row"), true),
        leaves("a farewell", &tcp(CLIENT, PORT, FIN | ACK), true),
        leaves("a reset", &tcp(CLIENT, PORT, RST), true),
        leaves("to the other database server", &tcp(WEB1, PORT, ACK), false),
        leaves("to the server itself", &tcp(LB1_TOO, PORT, ACK), false),
        leaves("to the loopback address", &tcp(loopback, PORT, ACK), false),
        leaves("beside the loopback address", &tcp(beside, PORT, ACK), true),
        leaves("of the port before", &tcp(WEB2, PORT - 1, ACK), false),
        leaves("of the port after", &tcp(WEB2, PORT + 1, ACK), false),
        leaves(
            "to the database's port elsewhere",
            &Frame::new(v6, LB1, WEB2, Transport::Tcp(40_000, PORT, ACK)),
            false,
        ),
        leaves("a datagram", &Frame::new(v6, LB1, WEB2, Transport::Udp(PORT, 53)), false),
        leaves("an echo request", &Frame::new(v6, LB1, WEB2, Transport::Icmp(if v6 { 128 } else { 8 })), false),
    ];
    if v6 {
        let chained = tcp(WEB2, 40_001, ACK).chain(&[Extension::Destination(8)]);
        packets.push(leaves("behind an extension header", &chained, true));
    } else {
        let options = tcp(WEB2, PORT, ACK).options(&[1; 40]);
        packets.push(leaves("behind options", &options, true));
        let beside = tcp(WEB2, PORT + 1, ACK).options(&[1; 40]);
        packets.push(leaves("of the port after, behind options", &beside, false));
    }
    packets
}
