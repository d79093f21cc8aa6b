//! The options of a SYN, as far as a SYN cookie can keep them (RFC 9293, RFC 7323, RFC 2018).

/// A TCP header never has more bytes.
pub const TCP_MAX: usize = 60;
/// Room for a TCP header: a power of two, so that a masked index needs no check.
pub const ROOM: usize = 64;
/// Offset of the first option.
pub const FIRST: u32 = 20;
/// A scale above this means this (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;

/// [`Options::window_scale`]: windows are not scaled. The kernel's cookies have the same number for it.
pub const NO_SCALE: u8 = 0xf;

/// What a client offers.
///
/// No field is an `Option`: LLVM copies what is undefined in a `None`, and the verifier refuses that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether it has a clock.
    pub timestamps: bool,
    /// Its clock, as it lies in the packet: what the answer echoes.
    pub timestamp: u32,
    /// Its window scale, or [`NO_SCALE`].
    pub window_scale: u8,
    /// Whether it takes selective acknowledgements.
    pub sack: bool,
    /// Whether it signs its segments (RFC 2385, RFC 5925): only the stack can answer it.
    pub signed: bool,
}

impl Options {
    /// Of a SYN without options.
    pub const NONE: Self = Self { timestamps: false, timestamp: 0, window_scale: NO_SCALE, sack: false, signed: false };
}

/// Where what is found is noted, one field at a time.
///
/// The kernel's lies in a map and not on the stack: the verifier does not follow what is in a map, and so need not walk
/// every choice of options.
pub trait Notes {
    /// A clock, as it lies in the packet.
    fn timestamp(&mut self, clock: u32);
    /// A window scale.
    fn window_scale(&mut self, scale: u8);
    /// Selective acknowledgements.
    fn sack(&mut self);
    /// A signature.
    fn signed(&mut self);
}

impl Notes for Options {
    fn timestamp(&mut self, clock: u32) {
        (self.timestamps, self.timestamp) = (true, clock);
    }
    fn window_scale(&mut self, scale: u8) {
        self.window_scale = scale;
    }
    fn sack(&mut self) {
        self.sack = true;
    }
    fn signed(&mut self) {
        self.signed = true;
    }
}

/// Options have 40 bytes, and the shortest is one byte long.
pub const STEPS: u32 = (TCP_MAX - FIRST as usize) as u32;

/// Reads the option at an offset of a TCP header of `length` bytes; the offset of the next, or `None` at their end.
///
/// What is malformed ends them, as in the kernel.
#[inline(always)]
#[must_use]
pub fn option<N: Notes>(header: &[u8; ROOM], at: u32, length: u32, notes: &mut N) -> Option<u32> {
    let byte = |at: u32| header[at as usize % ROOM];
    if at >= length {
        return None;
    }
    let kind = byte(at);
    if kind == 1 {
        return Some(at + 1);
    }
    let size = byte(at + 1) as u32;
    if kind == 0 || size < 2 || at + size > length {
        return None;
    }
    match (kind, size) {
        (3, 3) => notes.window_scale(min(byte(at + 2), MAX_SCALE)),
        (4, 2) => notes.sack(),
        (8, 10) => {
            let clock = [byte(at + 2), byte(at + 3), byte(at + 4), byte(at + 5)];
            notes.timestamp(u32::from_ne_bytes(clock));
        }
        (19, 18) | (29, _) => notes.signed(),
        _ => {}
    }
    Some(at + size)
}

const fn min(a: u8, b: u8) -> u8 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options_of: &[u8]) -> Options {
        let mut header = [0xee; ROOM];
        header[FIRST as usize..][..options_of.len()].copy_from_slice(options_of);
        let (mut found, mut at) = (Options::NONE, FIRST);
        for _ in 0..STEPS {
            let Some(next) = option(&header, at, FIRST + options_of.len() as u32, &mut found) else { break };
            at = next;
        }
        found
    }

    #[test]
    fn a_linux_client_offers_everything() {
        let found = read(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        assert_eq!(
            found,
            Options {
                timestamps: true,
                timestamp: u32::from_ne_bytes([1, 2, 3, 4]),
                window_scale: 7,
                sack: true,
                signed: false
            }
        );
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(read(&[]), Options::NONE);
        assert_eq!(read(&[2, 4, 5, 0xb4]), Options::NONE);
        assert_eq!(read(&[1; 40]), Options::NONE);
    }

    #[test]
    fn the_end_mark_and_what_is_malformed_end_the_options() {
        let sack = Options { sack: true, ..Options::NONE };
        assert_eq!(read(&[4, 2, 0, 3, 3, 7]), sack, "end of options");
        assert_eq!(read(&[4, 2, 3, 0, 3, 3, 7]), sack, "length 0");
        assert_eq!(read(&[4, 2, 3, 1, 3, 3, 7]), sack, "length 1");
        assert_eq!(read(&[4, 2, 3]), sack, "no length");
        assert_eq!(read(&[4, 2, 3, 3]), sack, "no value");
        assert_eq!(read(&[4, 2, 8, 9, 1, 2, 3, 4, 0, 0, 0]), sack, "a timestamp of another length");
    }

    #[test]
    fn a_scale_is_capped_and_signatures_are_seen() {
        assert_eq!(read(&[3, 3, 200]).window_scale, 14);
        assert!(read(&[[19, 18].as_slice(), &[0; 16]].concat()).signed);
        assert!(read(&[29, 4, 0, 0]).signed);
    }
}
