//! `foobar edge`: configuration in, privileges out, workers up; SIGTERM drains.

use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use super::config::{self, EdgeConfig};
use super::limits::{self, ms};
use super::metrics::Metrics;
use super::phase::Phase;
use super::service::Shared;
use super::worker::Worker;
use super::{exposition, harden};

/// Time between two looks at the last connections while draining, in milliseconds.
const DRAIN_LOOK_MS: u64 = 20;

/// Runs the edge from the configuration in an inherited descriptor until SIGTERM has drained it.
///
/// The death of the agent ends nothing: the site keeps answering, and the next agent replaces this process.
///
/// # Errors
/// When the configuration cannot be read, privileges cannot be dropped, or a worker cannot start.
pub fn serve(config_fd: RawFd) -> anyhow::Result<()> {
    let config = config::read(config_fd)?;
    harden::harden(config.allow_root)?;
    ensure!(config.workers > 0 && !config.services.is_empty(), "the agent's configuration names nothing to serve");
    let metrics_listener = std::os::unix::net::UnixListener::from(config::inherit(config.metrics)?);
    metrics_listener.set_nonblocking(true).context("make the metrics' listener non-blocking")?;
    let (phase, phases) = watch::channel(Phase::Serve);
    let (metrics, workers) = workers(config, &phases)?;
    drop(phases);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    // Before the workers, so that no SIGTERM finds the default action.
    let (mut term, mut int) = {
        let _entered = runtime.enter();
        let term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        (term, signal(SignalKind::interrupt()).context("listen for SIGINT")?)
    };
    let handles = workers
        .into_iter()
        .map(|worker| thread::Builder::new().name(format!("edge-{}", worker.index)).spawn(|| worker.run()))
        .collect::<Result<Vec<_>, _>>()
        .context("start the workers' threads")?;
    runtime.block_on(async {
        let listener = UnixListener::from_std(metrics_listener).context("register the metrics' listener")?;
        tokio::spawn(exposition::serve(listener, metrics.clone()));
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = any_ended(&handles) => {} }
        drain(&phase, &metrics).await;
        anyhow::Ok(())
    })?;
    for handle in handles {
        handle.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    Ok(())
}

/// Ends when a worker does: half an edge would answer half of the clients.
async fn any_ended<T>(handles: &[thread::JoinHandle<T>]) {
    while !handles.iter().any(thread::JoinHandle::is_finished) {
        sleep(ms(limits::PROGRESS_TICK_MS)).await;
    }
}

/// Lets the connections end within the limits.
async fn drain(phase: &watch::Sender<Phase>, metrics: &Metrics) {
    let start = Instant::now();
    phase.send_replace(Phase::Notice);
    let mut elapsed = start.elapsed();
    // The acceptors take what waits in their queues first, so at least one look is a pause away.
    while elapsed < ms(limits::DRAIN_MS) {
        sleep(ms(DRAIN_LOOK_MS)).await;
        if metrics.connections.load(Relaxed) == 0 {
            break;
        }
        elapsed = start.elapsed();
        if elapsed > ms(limits::DRAIN_NOTICE_MS) {
            phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Close) != Phase::Close);
        }
    }
    let left = metrics.connections.load(Relaxed);
    if left > 0 {
        tracing::warn!("{left} connections are still open after {} ms: closed", limits::DRAIN_MS);
    }
    phase.send_replace(Phase::End);
}

fn workers(config: EdgeConfig, phases: &watch::Receiver<Phase>) -> anyhow::Result<(Arc<Metrics>, Vec<Worker>)> {
    let count = config.workers;
    let mut services = Vec::new();
    for mut service in config.services {
        let tls = owned(std::mem::take(&mut service.tls_listeners), count)?;
        let redirect = owned(std::mem::take(&mut service.redirect_listeners), count)?;
        let name = service.name.clone();
        let shared = Shared::new(service).with_context(|| format!("service {name}"))?;
        services.push((Arc::new(shared), tls, redirect));
    }
    let labels = services.iter().map(|(shared, ..)| (shared.config.name.clone(), shared.expiry)).collect();
    let metrics = Arc::new(Metrics::new(labels, count));
    let connection_limit = harden::connection_limit();
    let mut workers: Vec<Worker> = (0..count)
        .map(|index| Worker {
            index,
            services: Vec::new(),
            metrics: metrics.clone(),
            connection_limit,
            phases: phases.clone(),
        })
        .collect();
    for (shared, tls, redirect) in services {
        for (worker, (tls, redirect)) in workers.iter_mut().zip(tls.into_iter().zip(redirect)) {
            worker.services.push((shared.clone(), tls, redirect));
        }
    }
    Ok((metrics, workers))
}

/// Takes ownership of every worker's listeners.
fn owned(listeners: Vec<Vec<RawFd>>, workers: usize) -> anyhow::Result<Vec<Vec<OwnedFd>>> {
    ensure!(listeners.len() == workers, "the agent passed listeners for {} of {workers} workers", listeners.len());
    listeners.into_iter().map(|fds| fds.into_iter().map(config::inherit).collect()).collect()
}
