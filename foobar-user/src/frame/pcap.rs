//! Captures in the classic pcap format, as `tcpdump -w` writes it: both byte orders, micro- and nanoseconds, Ethernet.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Magic numbers of microseconds and of nanoseconds.
const MAGICS: [u32; 2] = [0xa1b2_c3d4, 0xa1b2_3c4d];
/// First word of a pcapng file, in both byte orders.
const PCAPNG: u32 = 0x0a0d_0d0a;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;
/// Longest frame that is read, a jumbo frame many times over.
const FRAME_MAX_BYTES: u32 = 65_536;

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its bytes, perhaps cut short.
    pub bytes: Vec<u8>,
    /// How long it was on the wire.
    pub length: u32,
}

/// A capture that is read frame by frame.
#[derive(Debug)]
pub struct Capture<R> {
    input: R,
    big_endian: bool,
}

/// Opens a capture.
///
/// # Errors
/// It cannot be opened, or is no capture of Ethernet frames.
pub fn open(path: &Path) -> Result<Capture<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Capture::new(BufReader::new(file)).with_context(|| format!("cannot read {}", path.display()))
}

impl<R: Read> Capture<R> {
    /// Reads the capture's header.
    ///
    /// # Errors
    /// See [`open`].
    pub fn new(mut input: R) -> Result<Self> {
        let mut header = [0; 24];
        input.read_exact(&mut header).context("it is shorter than a capture's header")?;
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let magic = u32::from_le_bytes(word(0));
        ensure!(
            magic != PCAPNG,
            "it is in the pcapng format: convert it with `tcpdump -r FILE -w NEW` or `editcap -F pcap FILE NEW`"
        );
        let big_endian = match magic {
            magic if MAGICS.contains(&magic) => false,
            magic if MAGICS.contains(&magic.swap_bytes()) => true,
            _ => bail!("it is no capture: write one with `tcpdump -w FILE`"),
        };
        let capture = Self { input, big_endian };
        // The upper bits tell of a frame check sequence.
        let link = capture.number(word(20)) & 0x0fff_ffff;
        ensure!(
            link == ETHERNET,
            "its frames are not Ethernet (link type {link}): capture on one interface, not on `any`"
        );
        Ok(capture)
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// The file ends within a frame, or a length cannot be.
    pub fn next_frame(&mut self) -> Result<Option<Captured>> {
        let mut header = [0; 16];
        match self.input.read(&mut header[..1]).context("cannot read on")? {
            0 => return Ok(None),
            _ => self.whole(&mut header[1..])?,
        }
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let (held, length) = (self.number(word(8)), self.number(word(12)));
        ensure!(held <= FRAME_MAX_BYTES, "a frame of {held} bytes: the file is damaged");
        let mut bytes = vec![0; held as usize];
        self.whole(&mut bytes)?;
        Ok(Some(Captured { bytes, length }))
    }

    fn whole(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.input.read_exact(bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => bail!("it ends within a frame"),
            result => result.context("cannot read on"),
        }
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(magic: u32, link: u32, big: bool, frames: &[&[u8]]) -> Vec<u8> {
        let number = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = [number(magic), number(0x0004_0002), [0; 4], [0; 4], number(65_535), number(link)].concat();
        for frame in frames {
            let length = number(u32::try_from(frame.len()).unwrap());
            bytes.extend([[0; 4], [0; 4], length, length].concat());
            bytes.extend(*frame);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut capture = Capture::new(bytes)?;
        let mut frames = Vec::new();
        while let Some(frame) = capture.next_frame()? {
            frames.push(frame.bytes);
        }
        Ok(frames)
    }

    #[test]
    fn captures_of_all_kinds_are_read() {
        for (magic, big) in [(MAGICS[0], false), (MAGICS[0], true), (MAGICS[1], false), (MAGICS[1], true)] {
            let frames = read(&file(magic, ETHERNET, big, &[b"first", b"", b"third"])).unwrap();
            assert_eq!(frames, [b"first".to_vec(), b"".to_vec(), b"third".to_vec()]);
        }
        assert!(read(&file(MAGICS[0], ETHERNET, false, &[])).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let refusal = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(refusal(&file(PCAPNG, ETHERNET, false, &[])).contains("pcapng"));
        assert!(refusal(&file(7, ETHERNET, false, &[])).contains("no capture"));
        assert!(refusal(&file(MAGICS[0], 113, false, &[])).contains("link type 113"));
        assert!(refusal(b"short").contains("shorter"));
        let whole = file(MAGICS[0], ETHERNET, false, &[b"frame"]);
        assert!(refusal(&whole[..whole.len() - 1]).contains("ends within a frame"));
        assert!(refusal(&whole[..30]).contains("ends within a frame"));
        let mut huge = whole;
        huge[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refusal(&huge).contains("damaged"));
    }
}
