//! What PostgreSQL is asked beside the loop: nothing that may take long stands between two renewals.

use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::Work;

/// Something that PostgreSQL is asked beside the loop.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) task: JoinHandle<Result<()>>,
}

impl Drop for Errand {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S> Work<S> {
    pub(super) fn send(&mut self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.errand = Some(Errand { task: tokio::spawn(work) });
    }

    pub(super) async fn finish_errand(&mut self) {
        let Some(errand) = self.errand.take_if(|errand| errand.task.is_finished()) else { return };
        let mut errand = errand;
        self.errand_ended = Instant::now();
        match (&mut errand.task).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                warn!("{fault:#}");
                // Whatever it was told to wait for: begin from what the state says.
                self.leading.begin_anew();
            }
            Err(gone) => error!("{gone}"),
        }
    }
}
