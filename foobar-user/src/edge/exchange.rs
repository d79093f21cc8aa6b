//! One request and its response's head over some backend connection, with the retries that are safe:
//! a request that was not sent, and an idempotent one without a body (RFC 9110 9.2.2).

use std::rc::Rc;

use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::connect::connect;
use super::limits::{self, ms};
use super::metrics::Reason;
use super::pool::Lease;
use super::request_body::{BodyFault, BodyState, RequestBody};
use super::service::Service;

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The backends' side.
    Upstream(Reason),
    /// The client's body.
    Body(BodyFault),
}

/// What came of one sending.
enum Sent {
    Answer(Response<Incoming>),
    /// Nothing was written: the request comes back.
    Unsent(Box<Request<RequestBody>>),
    Failed(Failure),
}

/// Sends a request whose body is `body`, watched by `state` when there is one.
pub(crate) async fn exchange(
    service: &Rc<Service>,
    parts: Parts,
    body: RequestBody,
    state: Option<Rc<BodyState>>,
) -> Result<(Response<Incoming>, Lease), Failure> {
    let replayable = state.is_none() && parts.method.is_idempotent();
    let mut request = Request::from_parts(parts, body);
    for attempt in 1.. {
        // What a pooled connection failed at goes to a fresh one: the other pooled ones may be as stale.
        let pooled = if attempt == 1 { service.pool.take().await } else { None };
        let mut upstream = match pooled {
            Some(upstream) => upstream,
            None => connect(service).await.map_err(Failure::Upstream)?,
        };
        let last = attempt >= limits::SEND_ATTEMPTS;
        let copy = (replayable && !last).then(|| copy_of(&request));
        request = match (send(&mut upstream.sender, request, state.as_deref()).await, copy) {
            (Sent::Answer(response), _) => return Ok((response, Lease::new(upstream, service.clone(), state))),
            (Sent::Unsent(request), _) if !last => *request,
            (Sent::Failed(Failure::Upstream(Reason::Closed)), Some(copy)) => copy,
            (Sent::Unsent(_), _) => return Err(fail(service, Failure::Upstream(Reason::Closed))),
            (Sent::Failed(failure), _) => return Err(fail(service, failure)),
        };
        service.worker.upstream(Reason::Retried);
    }
    unreachable!("the last attempt returns")
}

fn fail(service: &Service, failure: Failure) -> Failure {
    if let Failure::Upstream(reason) = failure {
        service.worker.upstream(reason);
        service.warn(&format_args!("no response ({})", reason.label()));
    }
    failure
}

fn copy_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

async fn send(sender: &mut SendRequest<RequestBody>, request: Request<RequestBody>, state: Option<&BodyState>) -> Sent {
    let mut answer = std::pin::pin!(sender.try_send_request(request));
    let mut pieces = 0;
    let answer = loop {
        let window = timeout(ms(limits::RESPONSE_HEAD_MS), answer.as_mut()).await;
        match (window, state) {
            (Ok(answer), _) => break answer,
            // A body that still flows has its own time-outs; the head's time starts at its end.
            (Err(_), Some(state)) if state.pieces() != pieces => pieces = state.pieces(),
            (Err(_), _) => return Sent::Failed(Failure::Upstream(Reason::ResponseTimeout)),
        }
    };
    let mut error = match answer {
        Ok(response) => return Sent::Answer(response),
        Err(error) => error,
    };
    if let Some(fault) = state.and_then(BodyState::fault) {
        return Sent::Failed(Failure::Body(fault));
    }
    if let Some(request) = error.take_message() {
        return Sent::Unsent(Box::new(request));
    }
    let invalid = error.error().is_parse();
    Sent::Failed(Failure::Upstream(if invalid { Reason::Invalid } else { Reason::Closed }))
}
