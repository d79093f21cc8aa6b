//! Access to one frame, every access checked against its end.

/// A frame from its Ethernet header on.
///
/// The two implementations are an `XdpContext` in the kernel and a byte buffer on the host.
pub trait Packet {
    /// Length of the frame in bytes.
    fn length(&self) -> usize;

    /// The `N` bytes at `offset`; `None` past the end.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first `N` bytes, to read and to change them with one check of the frame's end; `None`: the frame is shorter.
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]>;

    /// Replaces the `N` bytes at `offset`; `None` past the end, and then nothing is written.
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;
}

/// A frame that can begin and end elsewhere; only stages of their own do that, for all else is known by its offsets.
pub trait Resize: Packet {
    /// Makes room for `bytes` in front of the frame, by which all offsets grow; `None`: there is none, and nothing changes.
    fn push(&mut self, bytes: usize) -> Option<()>;

    /// Takes `bytes` off the front, by which all offsets shrink; `None`: it has fewer, and nothing changes.
    fn pull(&mut self, bytes: usize) -> Option<()>;

    /// Ends the frame behind its first `length` bytes; `None`: it has fewer, and nothing changes.
    fn cut(&mut self, length: usize) -> Option<()>;
}

/// The header behind IP begins here at the latest.
pub const MAX_DEPTH: usize = 255;
/// Offsets are capped, so that the verifier can bound them: the deepest TCP header's checksum can just be reached.
pub const MAX_OFFSET: usize = MAX_DEPTH + 16;

#[cfg(feature = "std")]
impl Packet for Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > MAX_OFFSET { None } else { self.get(offset..offset + N)?.try_into().ok() }
    }

    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        self.first_chunk_mut()
    }

    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        if offset > MAX_OFFSET {
            return None;
        }
        self.get_mut(offset..offset + N)?.copy_from_slice(&bytes);
        Some(())
    }
}

#[cfg(feature = "std")]
impl Resize for Vec<u8> {
    fn push(&mut self, bytes: usize) -> Option<()> {
        self.splice(0..0, vec![0; bytes]);
        Some(())
    }

    fn pull(&mut self, bytes: usize) -> Option<()> {
        (bytes <= self.len()).then(|| drop(self.drain(..bytes)))
    }

    fn cut(&mut self, length: usize) -> Option<()> {
        (length <= self.len()).then(|| self.truncate(length))
    }
}
