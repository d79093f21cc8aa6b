//! What is asked for, and how.

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// The file.
    pub(super) file: &'static str,
    /// Whether a connection takes more than one request.
    pub(super) keep_alive: bool,
    /// Whether peers may leave checksums and segments to their cables, which XDP programs cannot.
    pub(super) offloads: bool,
    /// Least part of direct's requests that ours should answer.
    pub(super) target: f64,
}

/// Every case.
pub(super) const CASES: [Case; 4] = [
    Case { name: "128 B", file: SMALL, keep_alive: true, offloads: true, target: 0.97 },
    Case { name: "64 KiB", file: LARGE, keep_alive: true, offloads: true, target: 0.97 },
    Case { name: "64 KiB, no offloads", file: LARGE, keep_alive: true, offloads: false, target: 0.97 },
    Case { name: "a connection a request", file: SMALL, keep_alive: false, offloads: true, target: 0.90 },
];

const SMALL: &str = "small.txt";
const LARGE: &str = "large.bin";
