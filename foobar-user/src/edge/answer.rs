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

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use super::*;
    use crate::edge::metrics::ServiceStats;
    use crate::edge::progress::Progress;

    #[test]
    fn no_healthy_backend_is_503_with_retry_after() {
        let status = status(Failure::Upstream(Reason::NoBackend));
        let response = plain(status, Rc::new(Progress::default()).begin(Arc::new(ServiceStats::default())));
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }

    #[test]
    fn failures_have_their_status() {
        for (failure, expected) in [
            (Failure::Upstream(Reason::Refused), 502),
            (Failure::Upstream(Reason::Tls), 502),
            (Failure::Upstream(Reason::ConnectTimeout), 502),
            (Failure::Upstream(Reason::ResponseTimeout), 504),
            (Failure::Body(BodyFault::TooLarge), 413),
            (Failure::Body(BodyFault::Slow), 408),
            (Failure::Body(BodyFault::Broken), 400),
        ] {
            assert_eq!(status(failure), expected, "{failure:?}");
        }
    }
}
