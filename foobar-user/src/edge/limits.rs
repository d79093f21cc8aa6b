//! Every limit and time-out of the edge: what one client, one request and one process may take.

use std::time::Duration;

/// Connections that one process serves; more are accepted and closed at once.
pub(crate) const CONNECTIONS: usize = 10_000;
/// File descriptors kept back for listeners, the pool's reserve and the runtime.
pub(crate) const RESERVED_DESCRIPTORS: u64 = 256;
/// Connections that the kernel holds for one listener before `accept`.
pub(crate) const LISTEN_BACKLOG: i32 = 4096;
/// Pause after a failed `accept` (out of descriptors or memory), in milliseconds.
pub(crate) const ACCEPT_PAUSE_MS: u64 = 50;

/// Time for a client's TLS handshake, in milliseconds.
pub(crate) const HANDSHAKE_MS: u64 = 5_000;
/// Time for a request's head, and for an idle HTTP/1.1 connection, in milliseconds.
pub(crate) const REQUEST_HEAD_MS: u64 = 10_000;
/// Size of a request's head, in bytes.
pub(crate) const REQUEST_HEAD_BYTES: usize = 32 * 1024;
/// Header lines of one request.
pub(crate) const REQUEST_HEADERS: usize = 100;
/// Buffer of one HTTP/1.1 connection in each direction, in bytes.
pub(crate) const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// Size of a request's body, in bytes.
pub(crate) const REQUEST_BODY_BYTES: u64 = 10 * 1024 * 1024;
/// Time between two pieces of a request's body, in milliseconds.
pub(crate) const REQUEST_BODY_IDLE_MS: u64 = 30_000;
/// Time for a whole request body, in milliseconds.
pub(crate) const REQUEST_BODY_TOTAL_MS: u64 = 600_000;

/// Streams that one HTTP/2 client may have open.
pub(crate) const H2_STREAMS: u32 = 100;
/// Streams reset by the client before they were accepted (rapid reset, CVE-2023-44487).
pub(crate) const H2_PENDING_RESETS: usize = 20;
/// Streams reset by us because of the client's faults.
pub(crate) const H2_LOCAL_RESETS: usize = 1024;
/// Receive window of one HTTP/2 stream, in bytes.
pub(crate) const H2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Receive window of one HTTP/2 connection, in bytes.
pub(crate) const H2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Response bytes buffered for one HTTP/2 stream.
pub(crate) const H2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Time between HTTP/2 keep-alive pings, in milliseconds.
pub(crate) const H2_PING_INTERVAL_MS: u64 = 20_000;
/// Time for the answer to a ping, in milliseconds.
pub(crate) const H2_PING_TIMEOUT_MS: u64 = 10_000;

/// Time between two looks at a client connection's progress, in milliseconds.
pub(crate) const PROGRESS_TICK_MS: u64 = 5_000;
/// Ticks without progress after which a connection is closed: 60 s. Longer than every other time-out of a request,
/// so that it only meets clients who do not read, and idle HTTP/2 connections.
pub(crate) const PROGRESS_TICKS: u32 = 12;

/// Time for `connect()` to a backend, in milliseconds.
pub(crate) const CONNECT_MS: u64 = 1_000;
/// Time for the TLS handshake with a backend, in milliseconds.
pub(crate) const UPSTREAM_HANDSHAKE_MS: u64 = 2_000;
/// Connection attempts for one request: the first and two more, each to the next backend.
pub(crate) const CONNECT_ATTEMPTS: u32 = 3;
/// Times a replayable request is sent at most.
pub(crate) const SEND_ATTEMPTS: u32 = 3;
/// Time from the request's end to the response's head, in milliseconds.
pub(crate) const RESPONSE_HEAD_MS: u64 = 30_000;
/// Time between two pieces of a response's body, in milliseconds.
pub(crate) const RESPONSE_IDLE_MS: u64 = 30_000;
/// Time for a pooled connection to become ready, in milliseconds.
pub(crate) const CHECKOUT_MS: u64 = 1_000;
/// Requests on one backend connection: then the kernel chooses a backend anew.
pub(crate) const UPSTREAM_REQUESTS: u32 = 1_000;
/// Age of a backend connection that is still reused, in milliseconds.
pub(crate) const UPSTREAM_AGE_MS: u64 = 30_000;
/// Time that an unused backend connection is kept, in milliseconds.
pub(crate) const UPSTREAM_IDLE_MS: u64 = 10_000;
/// Unused backend connections kept for each service and thread.
pub(crate) const UPSTREAM_IDLE: usize = 256;

/// Time from SIGTERM in which clients learn with their next response that the connection ends, in milliseconds.
pub(crate) const DRAIN_NOTICE_MS: u64 = 2_000;
/// Time from SIGTERM to the end of the process, in milliseconds.
pub(crate) const DRAIN_MS: u64 = 10_000;
/// Time for writing the metrics to their reader, in milliseconds.
pub(crate) const EXPOSITION_MS: u64 = 1_000;
/// Size of the configuration that the parent passes, in bytes.
pub(crate) const CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// Time between two warnings about one service's backends, in milliseconds.
pub(crate) const WARNING_MS: u64 = 1_000;

/// A limit in milliseconds as a duration.
pub(crate) const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}
