//! The dead man's switch: PostgreSQL's answers end with its server's lease, whatever has become of the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::ABI_VERSION;
use foobar_tests::capture::{Capture, Frame};
use foobar_tests::host::Host;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::{Bed, Silent, eventually};
use foobar_user::datapath::fence::{Fence, boot_now};
use futures_util::TryStreamExt as _;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use tokio_postgres::{Config, NoTls};

/// With the agent stopped, over IPv4.
pub(crate) fn falls_with_the_agent_stopped(bed: &Bed) -> Result<()> {
    bed.agent(FENCED)?.signal(Signal::SIGSTOP)?;
    let fell = falls(bed, false);
    fence(bed)?.open();
    bed.agent(FENCED)?.signal(Signal::SIGCONT)?;
    bed.settled(&Silent)?;
    fell
}

/// With the agent killed, over IPv6.
pub(crate) fn falls_with_the_agent_killed(bed: &Bed) -> Result<()> {
    bed.agent(FENCED)?.kill()?;
    let fell = falls(bed, true);
    fence(bed)?.open();
    bed.start_agent(FENCED)?;
    bed.ready(FENCED, &Silent)?;
    bed.settled(&Silent)?;
    fell
}

/// A client reads rows without an end. At the end of the lease the last of them leaves, and nobody is let in but the other
/// database server; under the next lease the same connection goes on.
fn falls(bed: &Bed, v6: bool) -> Result<()> {
    let (fence, database) = (fence(bed)?, address(FENCED, v6)?);
    let rows = Rows::read(bed, database)?;
    rows.go_on()?;
    let capture = Capture::start(bed.host(FENCED)?)?;
    let end = boot_now() + LEASE.as_nanos() as u64;
    fence.open_until(end);
    eventually(DEADLINE, "the lease is over", || Ok(boot_now() >= end + SILENCE.as_nanos() as u64))?;
    let read = rows.bytes();
    let times = answers(&capture.stop()?, database)?;
    ensure!(times.iter().any(|at| *at < end), "no answer has left before the end: {times:?}");
    let late: Vec<i64> =
        times.iter().map(|at| at.cast_signed() - end.cast_signed()).filter(|ns| *ns > SLACK_NS).collect();
    ensure!(late.is_empty(), "{} answers have left after the end, so many ns: {late:?}", late.len());
    let last = times.iter().max().map_or(0, |last| end.saturating_sub(*last));
    ensure!(last < 100_000_000, "the last answer has left {last} ns before the end: nothing was held back");

    let knock = |from: &str, to| connect(bed.host(from)?, to, KNOCK);
    ensure!(knock(CLIENT, database)? == Outcome::Silent, "a client was let in after the end");
    ensure!(knock(PEER, database)? == Outcome::Open, "the other database server was not let in");
    ensure!(knock(CLIENT, address(PEER, v6)?)? == Outcome::Open, "the other database server has lost its clients");
    let streams = bed.metrics(PEER)?.sum("foobar_postgres_receiving", &[]);
    ensure!(streams == 1.0, "the replica does not stream from the fenced server");
    ensure!(rows.bytes() == read, "rows have come after the end");

    fence.open_until(boot_now() + NEXT_LEASE.as_nanos() as u64);
    rows.go_on()?;
    ensure!(knock(CLIENT, database)? == Outcome::Open, "a client was not let in under the next lease");
    Ok(())
}

/// When packets of the database's port have left, on the boot-time clock.
fn answers(frames: &[Frame], database: SocketAddr) -> Result<Vec<u64>> {
    let boot = boot_now();
    let day = Duration::from(clock_gettime(ClockId::CLOCK_REALTIME)?);
    let client = address(CLIENT, database.is_ipv6())?.ip();
    let answers =
        frames.iter().filter(|frame| frame.endpoints().is_some_and(|(from, to)| from == database && to.ip() == client));
    Ok(answers.map(|frame| boot.saturating_sub(day.saturating_sub(frame.at()).as_nanos() as u64)).collect())
}

/// The fence, as an agent would hold it.
fn fence(bed: &Bed) -> Result<Fence> {
    Fence::pinned(&bed.network().bpffs().join(format!("foobar/{FENCED}/abi{ABI_VERSION}/fence")))
}

/// A client that reads rows from the database as fast as they come, until it is dropped.
struct Rows {
    bytes: Arc<AtomicU64>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Rows {
    fn read(bed: &Bed, database: SocketAddr) -> Result<Self> {
        let password = std::fs::read(bed.site().folder().join("secrets/guestbook.password"))?;
        let mut config = Config::new();
        config.hostaddr(database.ip()).port(database.port()).dbname("guestbook").user("guestbook");
        config.password(password.trim_ascii_end());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let (namespace, counted) = (bed.host(CLIENT)?.clone(), Arc::clone(&bytes));
        thread::spawn(move || {
            namespace.block_on(|| async {
                tokio::select! {
                    read = copy(&config, &counted) => read,
                    _ = stopped => Ok(()),
                }
            })
        });
        Ok(Self { bytes, _stop: stop })
    }

    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// More rows come.
    fn go_on(&self) -> Result<()> {
        let enough = self.bytes() + 100_000;
        eventually(DEADLINE, "rows come", || Ok(self.bytes() >= enough))
    }
}

async fn copy(config: &Config, counted: &AtomicU64) -> Result<()> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    let mut rows = std::pin::pin!(client.copy_out(ROWS).await?);
    while let Some(row) = rows.try_next().await? {
        counted.fetch_add(row.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn address(host: &str, v6: bool) -> Result<SocketAddr> {
    let host = Host::named(host).context("a host")?;
    Ok(SocketAddr::new(if v6 { IpAddr::V6(host.v6()) } else { IpAddr::V4(host.v4()) }, PORT))
}

/// Rows that fill a packet each, a thousand a second at the most, for an hour.
const ROWS: &str = "COPY (SELECT repeat('x', 9000), pg_sleep(0.001) FROM generate_series(1, 3600000)) TO STDOUT";
/// The primary.
const FENCED: &str = "db1";
/// The replica.
const PEER: &str = "db2";
/// Who reads.
const CLIENT: &str = "app1";
const PORT: u16 = 5432;
/// Time until the end.
const LEASE: Duration = Duration::from_millis(400);
/// Time to see that nothing comes after it.
const SILENCE: Duration = Duration::from_millis(600);
const NEXT_LEASE: Duration = Duration::from_secs(60);
/// Time between the program's last look at the clock and the packet on the wire.
const SLACK_NS: i64 = 1_000_000;
const KNOCK: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(20);
