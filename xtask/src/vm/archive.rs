//! A cpio archive of the "newc" kind, which the kernel unpacks as its first root file system.

/// The archive being written; every file is root's.
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const MODE_FOLDER: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_000;

impl Archive {
    /// An empty archive.
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0 }
    }

    /// Adds a folder; its parents must be there already.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, MODE_FOLDER, &[]);
    }

    /// Adds a file with these permissions.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, MODE_FILE | permissions, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    /// One header of 13 eight-digit hexadecimal fields, the name, the content, each padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        let links = if mode & MODE_FOLDER == MODE_FOLDER { 2 } else { 1 };
        let (inode, size, name_size) = (self.entries, content.len(), path.len() + 1);
        let header = format!(
            "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{size:08x}\
             {major:08x}{minor:08x}{device_major:08x}{device_minor:08x}{name_size:08x}{check:08x}",
            uid = 0,
            gid = 0,
            time = 0,
            major = 0,
            minor = 0,
            device_major = 0,
            device_minor = 0,
            check = 0,
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::new();
        archive.folder("bin");
        archive.file("/bin/a", 0o755, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        // Header 110 + "bin\0" 4 = 114, padded to 116: there the file's header starts, without the leading slash.
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 14..116 + 22], b"000081ed");
        assert_eq!(&bytes[116 + 110..116 + 116], b"bin/a\0");
        assert!(bytes.windows(10).any(|window| window == b"TRAILER!!!"));
    }
}
