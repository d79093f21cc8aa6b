//! One thread of the edge: a runtime, its own listeners, its own backend connections; nothing shared on a request's way.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch::Receiver;
use tokio::task::{JoinSet, LocalSet, spawn_local};

use super::connection::{serve_redirect, serve_tls};
use super::host::Hosts;
use super::limits::{self, ms};
use super::metrics::{Handshake, Metrics, Version, WorkerStats};
use super::phase::Phase;
use super::service::{Service, Shared};

/// What one worker starts with.
pub(crate) struct Worker {
    /// Its number.
    pub(crate) index: usize,
    /// Each service with this worker's TLS and redirect listeners.
    pub(crate) services: Vec<(Arc<Shared>, Vec<OwnedFd>, Vec<OwnedFd>)>,
    /// All counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Connections of the whole process at most.
    pub(crate) connection_limit: usize,
    /// The process's phase.
    pub(crate) phases: Receiver<Phase>,
}

type Serve = Rc<dyn Fn(TcpStream, Receiver<Phase>) -> Pin<Box<dyn Future<Output = ()>>>>;

impl Worker {
    /// Serves until the process ends.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        LocalSet::new().block_on(&runtime, self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let stats = self.metrics.workers[self.index].clone();
        let draining = Rc::new(Cell::new(false));
        let mut acceptors = JoinSet::new();
        for (index, (shared, tls, redirects)) in self.services.into_iter().enumerate() {
            let config = &shared.config;
            let hosts = Rc::new(Hosts::new(&config.domain, &config.redirect));
            let target = redirect_target(&config.domain, &config.listen);
            let service = Rc::new(Service::new(shared.clone(), index, stats.clone(), draining.clone()));
            let serve_tls: Serve = Rc::new(move |stream, phases| Box::pin(serve_tls(stream, service.clone(), phases)));
            let serve_redirect: Serve =
                Rc::new(move |stream, phases| Box::pin(serve_redirect(stream, hosts.clone(), target.clone(), phases)));
            let tls = tls.into_iter().map(|listener| (listener, serve_tls.clone()));
            let redirects = redirects.into_iter().map(|listener| (listener, serve_redirect.clone()));
            for (listener, serve) in tls.chain(redirects) {
                let acceptor = Acceptor {
                    listener: listen(listener)?,
                    serve,
                    metrics: self.metrics.clone(),
                    stats: stats.clone(),
                    limit: self.connection_limit,
                };
                acceptors.spawn_local(acceptor.run(self.phases.clone()));
            }
        }
        let mut phases = self.phases;
        // The sender lives as long as the process; were it gone, so would be the reason to serve.
        let _ = phases.wait_for(|phase| *phase >= Phase::Notice).await;
        draining.set(true);
        while acceptors.join_next().await.is_some() {}
        let _ = phases.wait_for(|phase| *phase >= Phase::End).await;
        Ok(())
    }
}

fn listen(descriptor: OwnedFd) -> anyhow::Result<TcpListener> {
    let listener = std::net::TcpListener::from(descriptor);
    listener.set_nonblocking(true).context("make an inherited listener non-blocking")?;
    TcpListener::from_std(listener).context("register an inherited listener")
}

/// Where plain HTTP is sent: the domain, and a port when none of the service's is the usual one.
fn redirect_target(domain: &str, listen: &[SocketAddr]) -> Rc<str> {
    match listen.first().map(SocketAddr::port) {
        Some(port) if listen.iter().all(|address| address.port() != 443) => format!("{domain}:{port}").into(),
        _ => domain.into(),
    }
}

/// Takes connections from one listener.
struct Acceptor {
    listener: TcpListener,
    serve: Serve,
    metrics: Arc<Metrics>,
    stats: Arc<WorkerStats>,
    limit: usize,
}

impl Acceptor {
    async fn run(self, mut phases: Receiver<Phase>) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = phases.wait_for(|phase| *phase >= Phase::Notice) => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.start(stream, &phases),
                Err(error) => {
                    tracing::warn!("accept: {error}");
                    tokio::time::sleep(ms(limits::ACCEPT_PAUSE_MS)).await;
                }
            }
        }
        // Connections that wait in this listener's queue were promised an answer; when nobody else holds the
        // listener (the agent was killed), closing it would reset them.
        while let Some(Ok((stream, _))) = now(self.listener.accept()).await {
            self.start(stream, &phases);
        }
    }

    fn start(&self, stream: TcpStream, phases: &Receiver<Phase>) {
        if self.metrics.connections.fetch_add(1, Relaxed) >= self.limit {
            self.metrics.connections.fetch_sub(1, Relaxed);
            return self.stats.handshake(Version::None, Handshake::Limit);
        }
        let guard = Open(self.metrics.clone());
        let served = (self.serve)(stream, phases.clone());
        spawn_local(async move {
            served.await;
            drop(guard);
        });
    }
}

/// The result of a future that is ready at once.
async fn now<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! { biased; output = future => Some(output), () = std::future::ready(()) => None }
}

/// One open client connection.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
