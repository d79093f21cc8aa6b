//! No access past the frame's end, no panic, and nothing written to a frame that is dropped.

use std::cell::Cell;

use crate::support::{Ends, balancer, frame};
use foobar_common::packet::Packet;
use foobar_common::path::{Work, process};
use foobar_common::verdict::Verdict;
use proptest::prelude::*;

/// A frame that answers nothing past its end, and remembers how far anyone has looked inside.
struct Watched {
    bytes: Vec<u8>,
    furthest: Cell<usize>,
}

impl Packet for Watched {
    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let loaded = self.bytes.load(offset)?;
        self.furthest.set(self.furthest.get().max(offset + N));
        Some(loaded)
    }

    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let head = self.bytes.head()?;
        self.furthest.set(self.furthest.get().max(N));
        Some(head)
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.bytes.store(offset, bytes)?;
        self.furthest.set(self.furthest.get().max(offset + N));
        Some(())
    }
}

fn run(bytes: &[u8]) -> Result<(), TestCaseError> {
    let end = |text: &str, port| (text.parse().expect("an address"), port);
    for (vip, backend) in [("203.0.113.10", "10.0.1.11"), ("2001:db8::a", "fd00:1::b")] {
        for protocol in [6, 17] {
            let tables = balancer(end(vip, 80), end(backend, 8080), protocol);
            let mut watched = Watched { bytes: bytes.to_vec(), furthest: Cell::new(0) };
            let verdict = process(&mut watched, &tables, &mut Work::default());
            prop_assert!(watched.furthest.get() <= bytes.len());
            // The longest headers: Ethernet, two tags, IPv6, TCP.
            prop_assert!(watched.furthest.get() <= 14 + 8 + 40 + 20);
            prop_assert!(watched.bytes == bytes || !matches!(verdict, Verdict::Drop(_)), "dropped, but written to");
        }
    }
    Ok(())
}

/// Frames that reach every stage.
fn whole() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (client, vip) in [("203.0.113.50", "203.0.113.10"), ("2001:db8::32", "2001:db8::a")] {
        for protocol in [6, 17] {
            let end = |text: &str, port| (text.parse().expect("an address"), port);
            frames.push(frame(Ends { source: end(client, 2000), destination: end(vip, 80) }, protocol, b"data"));
        }
    }
    let tagged = |frame: &Vec<u8>| [&frame[..12], &[0x81, 0, 0, 1, 0x88, 0xa8, 0, 2], &frame[12..]].concat();
    let more: Vec<_> = frames.iter().map(tagged).collect();
    frames.extend(more);
    frames
}

#[test]
fn frames_cut_at_every_byte() {
    for frame in whole() {
        for length in 0..=frame.len() {
            run(&frame[..length]).expect("no access past the end");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(&bytes)?;
    }

    #[test]
    fn mutated_frames(
        which in 0_usize..8,
        changes in prop::collection::vec((12_usize..90, any::<u8>()), 0..5),
        cut in 0_usize..120,
    ) {
        let mut bytes = whole()[which].clone();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        run(&bytes)?;
    }
}
