//! The phases of an edge process's life.

/// What the process is doing; it only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepting and answering.
    Serve,
    /// Accepts no more; HTTP/1.1 clients learn with their next response that it is the last, HTTP/2 clients at once.
    Notice,
    /// Idle connections are closed, the others after their response.
    Close,
    /// Time is up.
    End,
}
