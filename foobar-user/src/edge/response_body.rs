//! A response's body on its way to a client: our own few bytes, or a backend's with a bound on pauses.
//! When a backend's body has ended, its connection goes back to the pool.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::limits::{self, ms};
use super::metrics::Reason;
use super::pool::Lease;
use super::progress::InFlight;

/// The body of every response.
pub(crate) struct ResponseBody {
    source: Source,
    in_flight: InFlight,
}

enum Source {
    Own(Option<Bytes>),
    Backend { incoming: Incoming, lease: Option<Lease>, pause: Option<Pin<Box<Sleep>>> },
}

/// A backend's body broke off; the client's stream must break too, because its head is gone already.
#[derive(Debug)]
pub(crate) struct BrokenBody;

impl std::fmt::Display for BrokenBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the backend's response broke off")
    }
}

impl std::error::Error for BrokenBody {}

impl ResponseBody {
    /// Bytes of ours.
    pub(crate) fn own(bytes: Bytes, in_flight: InFlight) -> Self {
        Self { source: Source::Own(Some(bytes).filter(|bytes| !bytes.is_empty())), in_flight }
    }

    /// A backend's body.
    pub(crate) fn backend(incoming: Incoming, lease: Lease, in_flight: InFlight) -> Self {
        Self { source: Source::Backend { incoming, lease: Some(lease), pause: None }, in_flight }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokenBody;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenBody>>> {
        let this = &mut *self;
        let (incoming, lease, pause) = match &mut this.source {
            Source::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Backend { incoming, lease, pause } => (incoming, lease, pause),
        };
        loop {
            let reason = match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    *pause = None;
                    this.in_flight.progress.step();
                    if frame.is_data() {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    continue;
                }
                Poll::Ready(None) => {
                    if let Some(lease) = lease.take() {
                        lease.release();
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => Reason::BodyClosed,
                Poll::Pending => {
                    let pause = pause.get_or_insert_with(|| Box::pin(sleep(ms(limits::RESPONSE_IDLE_MS))));
                    match pause.as_mut().poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(()) => Reason::BodyTimeout,
                    }
                }
            };
            if let Some(lease) = lease.take() {
                lease.fault(reason);
            }
            return Poll::Ready(Some(Err(BrokenBody)));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Backend { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Backend { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper does not ask again after the last byte of a known length.
        if let Source::Backend { incoming, lease, .. } = &mut self.source
            && incoming.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.release();
        }
    }
}
