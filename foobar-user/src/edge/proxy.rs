//! The way of a request: judged, cleaned, forwarded, answered. What the backend gets is written anew from the parsed form,
//! so that the two sides cannot read it differently.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use super::answer;
use super::exchange::exchange;
use super::headers::{self, Origin};
use super::host::HostFault;
use super::limits;
use super::progress::{InFlight, Progress};
use super::request_body::RequestBody;
use super::response_body::ResponseBody;
use super::service::Service;

/// One client connection's side of the proxy.
pub(crate) struct Client {
    /// The service it came to.
    pub(crate) service: Rc<Service>,
    /// Who it is.
    pub(crate) origin: Origin,
    /// How it gets on.
    pub(crate) progress: Rc<Progress>,
}

/// Answers one request; what fails becomes a status.
pub(crate) async fn handle(client: Rc<Client>, request: Request<Incoming>) -> Response<ResponseBody> {
    let version = request.version();
    let in_flight = client.progress.begin(client.service.stats.clone());
    let mut response = match judge(&client, request) {
        Err(status) => answer::plain(status, in_flight),
        Ok(request) => forward(&client, request, in_flight).await,
    };
    client.service.stats.response(response.status().as_u16());
    if client.service.draining.get() && version != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Refuses what is not served; else the request as the backend shall see it.
fn judge(client: &Client, request: Request<Incoming>) -> Result<Request<Incoming>, StatusCode> {
    let (mut parts, body) = request.into_parts();
    let both_lengths = parts.headers.contains_key(TRANSFER_ENCODING) && client.progress.head_has_length();
    client.progress.forget_head();
    if both_lengths {
        return Err(StatusCode::BAD_REQUEST);
    }
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if headers::asks_upgrade(&parts.headers) {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let host = client.service.hosts.of(&parts).map_err(|fault| match fault {
        HostFault::Bad => StatusCode::BAD_REQUEST,
        HostFault::Unknown => StatusCode::MISDIRECTED_REQUEST,
    })?;
    if body.size_hint().lower() > limits::REQUEST_BODY_BYTES {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    headers::clean_request(&mut parts.headers);
    client.origin.stamp(&mut parts.headers, &host);
    origin_form(&mut parts);
    Ok(Request::from_parts(parts, body))
}

/// Path and query only, and HTTP/1.1.
fn origin_form(parts: &mut Parts) {
    if parts.uri.scheme().is_some() || parts.uri.authority().is_some() {
        let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        parts.uri = Uri::from(path);
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
}

async fn forward(client: &Rc<Client>, request: Request<Incoming>, in_flight: InFlight) -> Response<ResponseBody> {
    let (parts, incoming) = request.into_parts();
    let (body, state) = if incoming.is_end_stream() {
        (RequestBody::empty(), None)
    } else {
        let (body, state) = RequestBody::new(incoming, client.progress.clone());
        (body, Some(state))
    };
    match exchange(&client.service, parts, body, state).await {
        Ok((response, lease)) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return answer::plain(StatusCode::BAD_GATEWAY, in_flight);
            }
            let (mut head, incoming) = response.into_parts();
            headers::clean_response(&mut head.headers);
            head.version = Version::HTTP_11;
            head.extensions.clear();
            Response::from_parts(head, ResponseBody::backend(incoming, lease, in_flight))
        }
        Err(failure) => answer::plain(answer::status(failure), in_flight),
    }
}
