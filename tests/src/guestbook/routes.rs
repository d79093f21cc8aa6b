//! Which answer a request gets.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::entries::{Entries, Listing};
use super::form::Form;
use super::outage::Outage;
use super::page;
use super::pool::Away;

type Answer = Response<Full<Bytes>>;

/// What every request needs.
#[derive(Debug)]
pub(super) struct App {
    pub(super) server: String,
    pub(super) entries: Entries,
    reading: Outage,
    writing: Outage,
}

impl App {
    pub(super) const fn new(server: String, entries: Entries) -> Self {
        Self { server, entries, reading: Outage::new("read"), writing: Outage::new("written") }
    }

    /// The answer to `request`.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match (method, path.as_str()) {
            (Method::GET | Method::HEAD, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            (Method::GET | Method::HEAD, "/guestbook") => self.read(html).await,
            (Method::GET | Method::HEAD, "/guestbook.json") => self.read(json).await,
            (Method::POST, "/guestbook") => self.write(request).await,
            (_, "/guestbook") => not_allowed("GET, HEAD, POST"),
            (_, "/healthz" | "/guestbook.json") => not_allowed("GET, HEAD"),
            _ => fault(StatusCode::NOT_FOUND, "Not found", "There is no such page."),
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(server) = HeaderValue::from_str(&self.server) {
            headers.insert("x-app-server", server);
        }
        response
    }

    async fn read(&self, render: fn(&Listing, &str) -> Answer) -> Answer {
        match self.entries.list().await {
            Ok(listing) => {
                self.reading.over();
                render(&listing, &self.server)
            }
            Err(away) => unavailable(&self.reading, &away),
        }
    }

    async fn write(&self, request: Request<Incoming>) -> Answer {
        let form = match form(request).await {
            Ok(form) => form,
            Err(answer) => return *answer,
        };
        match self.entries.add(&form.author, &form.message).await {
            Ok(()) => {
                self.writing.over();
                let mut response = text(StatusCode::SEE_OTHER, "text/plain", "Thank you.\n".to_owned());
                response.headers_mut().insert(LOCATION, HeaderValue::from_static("/guestbook"));
                response
            }
            Err(away) => unavailable(&self.writing, &away),
        }
    }
}

async fn form(request: Request<Incoming>) -> Result<Form, Box<Answer>> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().unwrap_or_default().trim() != "application/x-www-form-urlencoded" {
        let why = "Please send a form.";
        return Err(Box::new(fault(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not a form", why)));
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = match timeout(BODY_TIMEOUT, body).await {
        Err(_) => {
            return Err(Box::new(fault(
                StatusCode::REQUEST_TIMEOUT,
                "Too slow",
                "Your message did not arrive in time.",
            )));
        }
        Ok(Err(_)) => {
            return Err(Box::new(fault(StatusCode::PAYLOAD_TOO_LARGE, "Too long", "Your message is too long.")));
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    Form::parse(&body).map_err(|why| Box::new(fault(StatusCode::BAD_REQUEST, "Please try again", why)))
}

fn html(listing: &Listing, server: &str) -> Answer {
    text(StatusCode::OK, HTML, page::entries(listing, server))
}

fn json(listing: &Listing, server: &str) -> Answer {
    let value = serde_json::json!({
        "server": server, "database": listing.database, "total": listing.total, "entries": listing.entries,
    });
    text(StatusCode::OK, "application/json", value.to_string())
}

fn unavailable(outage: &Outage, away: &Away) -> Answer {
    outage.failed(away);
    let why = format!("The guest book cannot be {} just now. Please try again in a moment.", outage.done());
    let mut response = fault(StatusCode::SERVICE_UNAVAILABLE, "Back in a moment", &why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut response = fault(StatusCode::METHOD_NOT_ALLOWED, "Not allowed", "This page cannot do that.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn fault(status: StatusCode, title: &str, why: &str) -> Answer {
    text(status, HTML, page::message(title, why))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

const HTML: &str = "text/html; charset=utf-8";
const MAX_BODY_BYTES: usize = 16 << 10;
const BODY_TIMEOUT: std::time::Duration = Duration::from_secs(5);
