//! Answers of the edge itself: a status, one line of text, nothing about the inside.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use super::exchange::Failure;
use super::metrics::Reason;
use super::progress::InFlight;
use super::request_body::BodyFault;
use super::response_body::ResponseBody;

/// Seconds after which a client may try again when no backend is healthy.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// A small answer of plain text.
pub(crate) fn plain(status: StatusCode, in_flight: InFlight) -> Response<ResponseBody> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(ResponseBody::own(Bytes::from(text), in_flight));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match status {
        StatusCode::SERVICE_UNAVAILABLE => headers.insert(RETRY_AFTER, RETRY_AFTER_S),
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
        }
        _ => None,
    };
    response
}

/// The status that tells a client of a failure.
pub(crate) fn status(failure: Failure) -> StatusCode {
    match failure {
        Failure::Upstream(Reason::NoBackend) => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Upstream(Reason::ResponseTimeout) => StatusCode::GATEWAY_TIMEOUT,
        Failure::Upstream(_) => StatusCode::BAD_GATEWAY,
        Failure::Body(BodyFault::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Failure::Body(BodyFault::Slow) => StatusCode::REQUEST_TIMEOUT,
        Failure::Body(BodyFault::Broken) => StatusCode::BAD_REQUEST,
    }
}
