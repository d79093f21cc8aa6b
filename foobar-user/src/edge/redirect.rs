//! Plain HTTP: every request for one of our hosts is sent to `https://`, nothing else is answered.

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use super::host::{HostFault, Hosts};

/// The answer to one request; `target` is the domain, with a port unless it is 443. 308 keeps method and body.
pub(crate) fn redirect(hosts: &Hosts, target: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, _) = request.into_parts();
    let (status, location) = match hosts.of(&parts) {
        Err(HostFault::Bad) => (StatusCode::BAD_REQUEST, None),
        Err(HostFault::Unknown) => (StatusCode::MISDIRECTED_REQUEST, None),
        Ok(_) => {
            let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let path = if path.starts_with('/') { path } else { "/" };
            let location = HeaderValue::try_from(format!("https://{target}{path}"));
            (StatusCode::PERMANENT_REDIRECT, location.ok())
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    if let Some(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
