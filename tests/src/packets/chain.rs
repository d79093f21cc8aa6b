//! What stands between an IP header and the transport header: IPv6 extension headers (RFC 8200), and what looks like them.

/// One header of a chain, whose "next header" is written when the chain is laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options of so many bytes, a multiple of 8.
    HopByHop(usize),
    /// Destination options of so many bytes, a multiple of 8.
    Destination(usize),
    /// A routing header of 24 bytes: its type and the segments left.
    Routing(u8, u8),
    /// An authentication header (RFC 4302) of so many bytes, a multiple of 4.
    Authentication(usize),
    /// A fragment header: offset in units of 8 bytes, and whether more fragments follow.
    Fragment(u16, bool),
    /// Any other header: its number, and its bytes behind "next header".
    Other(u8, Vec<u8>),
}

impl Extension {
    /// A fragment header that cuts nothing (RFC 6946).
    pub const ATOMIC: Self = Self::Fragment(0, false);

    /// Protocol number by which the header before it names it.
    pub const fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(..) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication(_) => 51,
            Self::Destination(_) => 60,
            Self::Other(number, _) => *number,
        }
    }

    /// Its bytes; `next` is the number of what follows.
    fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(length) | Self::Destination(length) => options(next, *length),
            Self::Routing(kind, left) => {
                let mut header = vec![next, 2, *kind, *left, 0, 0, 0, 0];
                header.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x77]);
                header
            }
            Self::Authentication(length) => {
                let mut header = vec![next, (length / 4 - 2) as u8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7];
                header.resize(*length, 0xaa);
                header
            }
            Self::Fragment(offset, more) => {
                let [high, low] = (offset << 3 | u16::from(*more)).to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 9]
            }
            Self::Other(_, bytes) => [&[next], bytes.as_slice()].concat(),
        }
    }
}

/// Options that are all padding (RFC 8200, 4.2).
fn options(next: u8, length: usize) -> Vec<u8> {
    let mut header = vec![next, (length / 8 - 1) as u8];
    while header.len() < length {
        // PadN holds 257 bytes with its own two at the most.
        let pad = (length - header.len()).min(257);
        header.extend(if pad == 1 { vec![0] } else { vec![1, (pad - 2) as u8] });
        header.extend(std::iter::repeat_n(0, pad.saturating_sub(2)));
    }
    header
}

/// The chain's bytes, and the number of its first header; `last` is the protocol behind the chain.
pub fn laid_out(chain: &[Extension], last: u8) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut next = last;
    for header in chain.iter().rev() {
        bytes.splice(0..0, header.bytes(next));
        next = header.number();
    }
    (next, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_each_other_and_have_the_lengths_they_say() {
        let chain =
            [Extension::HopByHop(8), Extension::Destination(264), Extension::ATOMIC, Extension::Authentication(24)];
        let (first, bytes) = laid_out(&chain, 6);
        assert_eq!((first, bytes.len()), (0, 8 + 264 + 8 + 24));
        assert_eq!((bytes[0], bytes[1]), (60, 0));
        assert_eq!((bytes[8], bytes[9]), (44, 32));
        assert_eq!((bytes[272], bytes[274], bytes[275]), (51, 0, 0));
        assert_eq!((bytes[280], bytes[281]), (6, 4));
    }

    #[test]
    fn padding_fills_the_options_exactly() {
        for length in (8..=264).step_by(8) {
            assert_eq!(options(6, length).len(), length);
        }
    }
}
