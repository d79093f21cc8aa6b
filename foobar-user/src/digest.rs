//! FNV-1a: the same over machines and versions of this program, which the standard library's hashers are not.

use std::hash::Hasher;

/// A digest of bytes; no protection from who wants two texts to have the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Digest {
    /// As sixteen hexadecimal digits.
    pub(crate) fn text(self) -> String {
        format!("{:016x}", self.finish())
    }
}
