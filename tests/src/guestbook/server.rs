//! The guest book's listener: accepts, serves, and at the end lets the requests in flight finish.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::entries::Entries;
use super::routes::App;
use super::settings::Settings;

/// Serves until `stop` is ready, then a few seconds more for the requests in flight.
pub async fn serve(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let listen = settings.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let app = Arc::new(App::new(settings.server, Entries::new(settings.write, settings.read)));
    let table = tokio::spawn(make_table(Arc::clone(&app)));
    let (stopping, stopped) = watch::channel(());
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await.context("the listener is closed")?;
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (app, stopped) = (Arc::clone(&app), stopped.clone());
                    connections.spawn(async move {
                        connection(stream, app, stopped).await;
                        drop(permit);
                    });
                }
                // Out of descriptors: those in use become free; accepting at once would only spin.
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    table.abort();
    drop(stopping);
    // Whoever is slower is cut off, by dropping the set.
    let _ = timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

/// One connection, until it ends or, when the server stops, until its request in flight is answered.
async fn connection(stream: TcpStream, app: Arc<App>, mut stopped: watch::Receiver<()>) {
    // Without it answers are only later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    // hyper's time-out does nothing without a timer.
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A client's mistake or departure is its own affair.
        _ = connection.as_mut() => return,
        _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Makes the table as soon as the database takes writes.
async fn make_table(app: Arc<App>) {
    let mut told = false;
    while let Err(away) = app.entries.create_table().await {
        if !told {
            eprintln!("guestbook: cannot make the table yet: {away}");
            told = true;
        }
        sleep(TABLE_PAUSE).await;
    }
}

const MAX_CONNECTIONS: usize = 1024;
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Also ends idle connections: longer than nginx keeps one, so that it is nginx who closes.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TABLE_PAUSE: Duration = Duration::from_millis(500);
