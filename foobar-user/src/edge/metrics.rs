//! The edge's metrics: plain counters a thread, without locks; summed when somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Status codes that have a label of their own; all others are `other`.
const CODES: [u16; 40] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413,
    414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504,
];
/// Upper ends of the histogram's buckets, in microseconds.
const BUCKETS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $(#[doc = $text] $variant),* }
        impl $name {
            const ALL: &[Self] = &[$(Self::$variant),*];
            /// The label's value.
            pub(crate) fn label(self) -> &'static str { match self { $(Self::$variant => $text),* } }
        }
    };
}

labels! {
    /// TLS version of a handshake.
    Version { Tls12 = "1.2", Tls13 = "1.3", None = "none" }
}
labels! {
    /// How a handshake ended; `limit` is a connection that was closed unheard.
    Handshake { Ok = "ok", Error = "error", Timeout = "timeout", Limit = "limit" }
}
labels! {
    /// What went wrong towards a backend.
    Reason {
        NoBackend = "no_backend", Refused = "refused", Unreachable = "unreachable", ConnectTimeout = "connect_timeout",
        Tls = "tls", Closed = "closed", Invalid = "invalid", ResponseTimeout = "response_timeout", BodyTimeout = "body_timeout",
        BodyClosed = "body_closed", Retried = "retried",
    }
}

/// Counters of one service in one worker.
#[derive(Debug)]
pub(crate) struct ServiceStats {
    codes: [AtomicU64; CODES.len()],
    other: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len()],
    slower: AtomicU64,
    sum_us: AtomicU64,
}

impl Default for ServiceStats {
    fn default() -> Self {
        Self {
            codes: [const { AtomicU64::new(0) }; CODES.len()],
            other: AtomicU64::new(0),
            buckets: Default::default(),
            slower: AtomicU64::new(0),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl ServiceStats {
    /// Counts a response.
    pub(crate) fn response(&self, code: u16) {
        CODES.binary_search(&code).map_or(&self.other, |index| &self.codes[index]).fetch_add(1, Relaxed);
    }

    /// Counts the time from a request's head to its response's end.
    pub(crate) fn duration(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets.get(BUCKETS_US.partition_point(|&end| end < us)).unwrap_or(&self.slower).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }
}

/// Counters of one worker.
#[derive(Debug)]
pub(crate) struct WorkerStats {
    services: Vec<Arc<ServiceStats>>,
    handshakes: [[AtomicU64; Handshake::ALL.len()]; Version::ALL.len()],
    upstream: [AtomicU64; Reason::ALL.len()],
}

impl WorkerStats {
    fn new(services: usize) -> Self {
        Self {
            services: (0..services).map(|_| Arc::default()).collect(),
            handshakes: Default::default(),
            upstream: Default::default(),
        }
    }

    /// Counters of one service.
    pub(crate) fn service(&self, index: usize) -> Arc<ServiceStats> {
        self.services[index].clone()
    }

    /// Counts the end of a handshake.
    pub(crate) fn handshake(&self, version: Version, result: Handshake) {
        self.handshakes[version as usize][result as usize].fetch_add(1, Relaxed);
    }

    /// Counts a fault towards a backend.
    pub(crate) fn upstream(&self, reason: Reason) {
        self.upstream[reason as usize].fetch_add(1, Relaxed);
    }
}

/// All counters of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Name and end of the certificate of each service.
    services: Vec<(String, i64)>,
    /// One for each worker.
    pub(crate) workers: Vec<Arc<WorkerStats>>,
    /// Client connections now.
    pub(crate) connections: AtomicUsize,
}

impl Metrics {
    /// Zeroes for these services (name, end of the certificate) and that many workers.
    pub(crate) fn new(services: Vec<(String, i64)>, workers: usize) -> Self {
        let workers = (0..workers).map(|_| Arc::new(WorkerStats::new(services.len()))).collect();
        Self { services, workers, connections: AtomicUsize::new(0) }
    }

    fn sum(&self, counter: impl Fn(&WorkerStats) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| counter(worker).load(Relaxed)).sum()
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Responses to clients by status code";
        let mut family = encoder.encode_descriptor("foobar_edge_requests", help, None, MetricType::Counter)?;
        for (index, (service, _)) in self.services.iter().enumerate() {
            let other = self.sum(|worker| &worker.services[index].other);
            let codes = CODES
                .iter()
                .enumerate()
                .map(|(slot, code)| (code.to_string(), self.sum(|worker| &worker.services[index].codes[slot])));
            for (code, count) in codes.chain([("other".to_owned(), other)]) {
                // Codes never sent have no series, but the ones that alerts are about start at zero.
                if count > 0 || matches!(code.as_str(), "200" | "502" | "503" | "504") {
                    let labels = [("service", service.as_str()), ("code", code.as_str())];
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let name = "foobar_edge_request_duration_seconds";
        let help = "Time from a request's head to its response's end";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (index, (service, _)) in self.services.iter().enumerate() {
            let slower = self.sum(|worker| &worker.services[index].slower);
            let mut buckets: Vec<(f64, u64)> = BUCKETS_US
                .iter()
                .enumerate()
                .map(|(slot, &end)| (seconds(end), self.sum(|worker| &worker.services[index].buckets[slot])))
                .collect();
            buckets.push((f64::INFINITY, slower));
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = seconds(self.sum(|worker| &worker.services[index].sum_us));
            let labels = [("service", service.as_str())];
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn handshakes(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "TLS handshakes with clients";
        let mut family = encoder.encode_descriptor("foobar_edge_handshakes", help, None, MetricType::Counter)?;
        for &version in Version::ALL {
            for &result in Handshake::ALL {
                // A handshake that failed has agreed on no version, and one that succeeded has.
                if (version == Version::None) != (result == Handshake::Ok) {
                    let count = self.sum(|worker| &worker.handshakes[version as usize][result as usize]);
                    let labels = [("version", version.label()), ("result", result.label())];
                    family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        Ok(())
    }

    fn upstream(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let help = "Faults towards backends, retried ones included";
        let mut family = encoder.encode_descriptor("foobar_edge_upstream_errors", help, None, MetricType::Counter)?;
        for &reason in Reason::ALL {
            let count = self.sum(|worker| &worker.upstream[reason as usize]);
            let labels = [("reason", reason.label())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.requests(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.handshakes(&mut encoder)?;
        self.upstream(&mut encoder)?;
        let help = "Client connections now";
        let connections = i64::try_from(self.connections.load(Relaxed)).unwrap_or(i64::MAX);
        encoder
            .encode_descriptor("foobar_edge_connections", help, None, MetricType::Gauge)?
            .encode_gauge(&connections)?;
        let name = "foobar_edge_certificate_expiry_timestamp_seconds";
        let help = "End of the public certificate, seconds since 1970";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (service, expiry) in &self.services {
            family.encode_family(&[("service", service.as_str())])?.encode_gauge(expiry)?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sum of microseconds stays exact for 285 years")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
