//! A request's body on its way to a backend: bounded in size, in pauses and in total time; trailers end here.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::limits::{self, ms};
use super::progress::Progress;

/// Why a body stopped; seen by the request's handler when the backend's side fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// More than the limit: 413.
    TooLarge,
    /// A pause or a total beyond the limit: 408.
    Slow,
    /// The client left or sent nonsense.
    Broken,
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request body: {self:?}")
    }
}

impl std::error::Error for BodyFault {}

/// How far a body got, shared with the request's handler.
#[derive(Default)]
pub(crate) struct BodyState {
    fault: Cell<Option<BodyFault>>,
    ended: Cell<bool>,
    pieces: Cell<u64>,
}

impl BodyState {
    /// Why it stopped.
    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.fault.get()
    }

    /// Whether all of it was handed on.
    pub(crate) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// Pieces handed on until now.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces.get()
    }
}

/// The body; `None` inside is an empty one.
pub(crate) struct RequestBody(Option<Box<Flow>>);

struct Flow {
    incoming: Incoming,
    left: u64,
    state: Rc<BodyState>,
    progress: Rc<Progress>,
    pause: Option<Pin<Box<Sleep>>>,
    deadline: Instant,
}

impl RequestBody {
    /// No body: can be sent again.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// A client's body, and where its state can be watched.
    pub(crate) fn new(incoming: Incoming, progress: Rc<Progress>) -> (Self, Rc<BodyState>) {
        let state = Rc::new(BodyState::default());
        let deadline = Instant::now() + ms(limits::REQUEST_BODY_TOTAL_MS);
        let left = limits::REQUEST_BODY_BYTES;
        (Self(Some(Box::new(Flow { incoming, left, state: state.clone(), progress, pause: None, deadline }))), state)
    }
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            let data = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Pending => return self.poll_pause(cx).map(|()| Some(Err(BodyFault::Slow))),
                Poll::Ready(None) => {
                    self.state.ended.set(true);
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Some(Err(BodyFault::Broken))),
                Poll::Ready(Some(Ok(frame))) => frame.into_data(),
            };
            self.pause = None;
            self.progress.step();
            self.state.pieces.set(self.state.pieces.get() + 1);
            // Trailers are for this hop: dropped.
            let Ok(data) = data else { continue };
            let Some(left) = self.left.checked_sub(data.len() as u64) else {
                return Poll::Ready(Some(Err(BodyFault::TooLarge)));
            };
            self.left = left;
            self.state.ended.set(self.incoming.is_end_stream());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let pause = self.pause.get_or_insert_with(|| {
            Box::pin(sleep_until(deadline.min(Instant::now() + ms(limits::REQUEST_BODY_IDLE_MS))))
        });
        pause.as_mut().poll(cx)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(flow) = &mut self.0 else { return Poll::Ready(None) };
        let polled = flow.poll(cx);
        if let Poll::Ready(Some(Err(fault))) = &polled {
            flow.state.fault.set(Some(*fault));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|flow| flow.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |flow| flow.incoming.size_hint())
    }
}
