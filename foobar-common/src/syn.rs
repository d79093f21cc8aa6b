//! The options of a SYN, as far as a SYN cookie can keep them (RFC 9293, RFC 7323, RFC 2018).

/// A TCP header never has more bytes.
pub const TCP_MAX: usize = 60;
/// Room for a TCP header: a power of two, so that a masked index needs no check.
pub const ROOM: usize = 64;
/// Length of a TCP header without options.
const TCP: usize = 20;
/// Options have 40 bytes, and the shortest is one byte long.
const STEPS: usize = TCP_MAX - TCP;
/// A scale above this means this (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;

/// What a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Its clock, as it lies in the packet: what the answer echoes.
    pub timestamp: Option<u32>,
    /// Its window scale.
    pub window_scale: Option<u8>,
    /// Whether it takes selective acknowledgements.
    pub sack: bool,
    /// Whether it signs its segments (RFC 2385, RFC 5925): only the stack can answer it.
    pub signed: bool,
}

/// Reads the options of a TCP header of `length` bytes; what is malformed ends them, as in the kernel.
#[inline(always)]
#[must_use]
pub fn options(header: &[u8; ROOM], length: usize) -> Options {
    let mut found = Options::default();
    let mut at = TCP;
    let byte = |at: usize| header[at % ROOM];
    for _ in 0..STEPS {
        if at >= length || byte(at) == 0 {
            break;
        }
        if byte(at) == 1 {
            at += 1;
            continue;
        }
        let size = byte(at + 1) as usize;
        if at + 1 >= length || size < 2 || at + size > length {
            break;
        }
        match (byte(at), size) {
            (3, 3) => found.window_scale = Some(min(byte(at + 2), MAX_SCALE)),
            (4, 2) => found.sack = true,
            (8, 10) => {
                let clock = [byte(at + 2), byte(at + 3), byte(at + 4), byte(at + 5)];
                found.timestamp = Some(u32::from_ne_bytes(clock));
            }
            (19, 18) | (29, _) => found.signed = true,
            _ => {}
        }
        at += size;
    }
    found
}

const fn min(a: u8, b: u8) -> u8 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options_of: &[u8]) -> Options {
        let mut header = [0xee; ROOM];
        header[TCP..TCP + options_of.len()].copy_from_slice(options_of);
        options(&header, TCP + options_of.len())
    }

    #[test]
    fn a_linux_client_offers_everything() {
        let found = read(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]);
        assert_eq!(
            found,
            Options { timestamp: Some(u32::from_ne_bytes([1, 2, 3, 4])), window_scale: Some(7), sack: true, signed: false }
        );
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert_eq!(read(&[]), Options::default());
        assert_eq!(read(&[2, 4, 5, 0xb4]), Options::default());
        assert_eq!(read(&[1; 40]), Options::default());
    }

    #[test]
    fn the_end_mark_and_what_is_malformed_end_the_options() {
        let sack = Options { sack: true, ..Options::default() };
        assert_eq!(read(&[4, 2, 0, 3, 3, 7]), sack, "end of options");
        assert_eq!(read(&[4, 2, 3, 0, 3, 3, 7]), sack, "length 0");
        assert_eq!(read(&[4, 2, 3, 1, 3, 3, 7]), sack, "length 1");
        assert_eq!(read(&[4, 2, 3]), sack, "no length");
        assert_eq!(read(&[4, 2, 3, 3]), sack, "no value");
        assert_eq!(read(&[4, 2, 8, 9, 1, 2, 3, 4, 0, 0, 0]), sack, "a timestamp of another length");
    }

    #[test]
    fn a_scale_is_capped_and_signatures_are_seen() {
        assert_eq!(read(&[3, 3, 200]).window_scale, Some(14));
        assert!(read(&[[19, 18].as_slice(), &[0; 16]].concat()).signed);
        assert!(read(&[29, 4, 0, 0]).signed);
    }
}
