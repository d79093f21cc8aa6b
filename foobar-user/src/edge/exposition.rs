//! The edge's metrics over an inherited unix socket: each connection gets the text (without `# EOF`) and is closed.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::limits::{self, ms};
use super::metrics::Metrics;

/// Answers readers for ever.
pub(crate) async fn serve(listener: UnixListener, metrics: Arc<Metrics>) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(ms(limits::ACCEPT_PAUSE_MS)).await;
            continue;
        };
        let mut text = String::new();
        if encode_registry(&mut text, &registry).is_ok() {
            // A reader that went away or does not read gets no more; the next one does.
            let _ = timeout(ms(limits::EXPOSITION_MS), stream.write_all(text.as_bytes())).await;
        }
    }
}

/// Reads the metrics of the edge that listens at `path`.
pub async fn scrape(path: &Path) -> std::io::Result<String> {
    let read = async {
        let mut text = String::new();
        UnixStream::connect(path).await?.read_to_string(&mut text).await?;
        Ok(text)
    };
    timeout(ms(limits::EXPOSITION_MS), read).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}
