//! When a started process can be used: it takes a connection, answers a request, or a program says so.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::kind::Surroundings;
use super::{command, launch};
use crate::plan::{ProcessPlan, ReadyCheck};

/// Time between two tries, in milliseconds.
const RETRY_MS: u64 = 50;
/// Time that one try may take, in milliseconds.
const TRY_MS: u64 = 5_000;
/// Time after which it is told what is waited for, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

/// Tries until the process is ready; says why it was not when its time is over.
pub(super) async fn wait(plan: &ProcessPlan, around: &Surroundings) -> Result<(), String> {
    let Some(ready) = &plan.ready else { return Ok(()) };
    let began = Instant::now();
    let deadline = began + Duration::from_millis(ready.timeout_ms);
    loop {
        let patience = Duration::from_millis(TRY_MS).min(deadline.saturating_duration_since(Instant::now()));
        let why = match timeout(patience, attempt(&ready.check, plan, around)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("no answer within {} ms", patience.as_millis()),
        };
        if Instant::now() + Duration::from_millis(RETRY_MS) >= deadline {
            return Err(format!("was not ready within {} ms: {why}", ready.timeout_ms));
        }
        if began.elapsed() >= Duration::from_millis(PATIENCE_MS) {
            around.reporter.update(|status| status.message = Some(format!("not ready yet: {why}")));
        }
        sleep(Duration::from_millis(RETRY_MS)).await;
    }
}

async fn attempt(check: &ReadyCheck, plan: &ProcessPlan, around: &Surroundings) -> Result<()> {
    match check {
        ReadyCheck::Tcp(address) => connect(*address).await.map(drop),
        ReadyCheck::Http { address, path } => http(*address, path).await,
        ReadyCheck::Script(words) => {
            let (program, arguments) = words.split_first().context("the check has no program")?;
            let account = command::account(plan)?;
            let mut helper = launch::helper(Path::new(program), Some(&account), &around.cgroup)?;
            helper.args(arguments);
            launch::run(helper).await
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))
}

async fn http(address: SocketAddr, path: &str) -> Result<()> {
    let mut stream = connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200`: more is nobody's business.
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.with_context(|| format!("{address} gives no whole answer"))?;
    let start = String::from_utf8_lossy(&start);
    match start.split_once(' ') {
        Some((version, status)) if version.starts_with("HTTP/1.") && matches!(status.as_bytes(), [b'2' | b'3', ..]) => {
            Ok(())
        }
        _ => bail!("{address}{path} answers {start}"),
    }
}
