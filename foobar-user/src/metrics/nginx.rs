//! Metrics of nginx, from the page of its `stub_status` module on a unix socket.

use std::fmt;
use std::path::Path;

use anyhow::Context;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names, unix};

/// Path of the status page.
pub const STATUS_PATH: &str = "/status";

const PAGE_MAX_BYTES: usize = 4096;

/// nginx's own numbers; `None`: it does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nginx(pub Option<Status>);

/// The status page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Open connections of clients, waiting ones included.
    pub active: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections handled: fewer than accepted when a limit was met.
    pub handled: u64,
    /// Requests received.
    pub requests: u64,
    /// Connections whose request's head is being read.
    pub reading: u64,
    /// Connections that are being answered.
    pub writing: u64,
    /// Idle connections kept open.
    pub waiting: u64,
}

impl Nginx {
    /// Asks for the status page; a failure is `up 0`, never a failed scrape.
    pub async fn read(socket: &Path) -> Self {
        let answer = async {
            let page = unix::http_get(socket, STATUS_PATH, PAGE_MAX_BYTES).await?;
            parse(&page).with_context(|| format!("this is no stub_status page: {page:?}"))
        };
        match unix::in_time(answer).await {
            Ok(status) => Self(Some(status)),
            Err(error) => {
                tracing::debug!("metrics: nginx does not tell its status: {error:#}");
                Self(None)
            }
        }
    }
}

fn parse(page: &str) -> Option<Status> {
    let mut lines = page.lines();
    let active = lines.next()?.strip_prefix("Active connections:")?.trim().parse().ok()?;
    let _heading = lines.next()?.trim().strip_prefix("server accepts handled requests")?;
    let mut counters = lines.next()?.split_whitespace().map(|field| field.parse().ok());
    let [accepted, handled, requests] = [counters.next()??, counters.next()??, counters.next()??];
    let mut states = lines.next()?.split_whitespace();
    let mut state = |name: &str| (states.next()? == name).then(|| states.next()?.parse().ok())?;
    let [reading, writing, waiting] = [state("Reading:")?, state("Writing:")?, state("Waiting:")?];
    Some(Status { active, accepted, handled, requests, reading, writing, waiting })
}

impl Collector for Nginx {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        encode::gauge(encoder, &names::NGINX_UP, [([], u64::from(self.0.is_some()))])?;
        let Some(status) = self.0 else { return Ok(()) };
        let Status { active, reading, writing, waiting, .. } = status;
        let states = [("active", active), ("reading", reading), ("writing", writing), ("waiting", waiting)];
        encode::gauge(encoder, &names::NGINX_CONNECTIONS, states.map(|(state, n)| ([state], n)))?;
        encode::counter(encoder, &names::NGINX_ACCEPTED, [([], status.accepted)])?;
        encode::counter(encoder, &names::NGINX_HANDLED, [([], status.handled)])?;
        encode::counter(encoder, &names::NGINX_REQUESTS, [([], status.requests)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "Active connections: 291 \nserver accepts handled requests\n \
                        16630948 16630946 31070465 \nReading: 6 Writing: 179 Waiting: 106 \n";

    #[test]
    fn the_page_of_nginx_s_manual_is_understood() {
        let expected = Status {
            active: 291,
            accepted: 16_630_948,
            handled: 16_630_946,
            requests: 31_070_465,
            reading: 6,
            writing: 179,
            waiting: 106,
        };
        assert_eq!(parse(PAGE), Some(expected));
    }

    #[test]
    fn every_cut_of_the_page_is_refused() {
        let end = PAGE.find("106").unwrap();
        for at in 0..end {
            assert_eq!(parse(&PAGE[..at]), None, "{:?}", &PAGE[..at]);
        }
        assert_eq!(parse("<html>"), None);
        assert_eq!(parse(&PAGE.replace("179", "-1")), None);
    }
}
