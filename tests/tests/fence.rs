//! The dead man's switch: PostgreSQL's answers end with its server's lease, whatever has become of the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_common::abi::ABI_VERSION;
use foobar_common::fence::OPEN;
use foobar_tests::capture::{Capture, Frame};
use foobar_tests::failover::Failover;
use foobar_tests::host::Host;
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::{eventually, obtained};
use foobar_user::datapath::fence::{Fence, boot_now};
use futures_util::TryStreamExt as _;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use tokio_postgres::{Config, NoTls};

/// The agents of both database servers are stopped, so that nobody takes over; then the leader's is killed. In the kernel its lease
/// ends all the same, and the same connections go on under the next one.
#[test]
fn answers_end_with_the_lease_whatever_has_become_of_the_agent() -> Result<()> {
    let mut failover = Failover::start("")?;
    let fence = fence(&failover)?;
    let readers = FAMILIES.map(|v6| address(FENCED, v6).and_then(|database| Rows::read(&failover, database)));
    let readers = readers.into_iter().collect::<Result<Vec<_>>>()?;
    readers.iter().try_for_each(Rows::go_on)?;
    let capture = Capture::start(failover.cluster().namespace(FENCED)?)?;
    // The client's agent would end its connections to a primary that is gone.
    [CLIENT, PEER, FENCED].iter().try_for_each(|server| failover.signal_agent(server, Signal::SIGSTOP))?;
    // Whoever was about to move it on has done so by then.
    let unmoved = |end: &u64| {
        std::thread::sleep(RENEWAL);
        fence.end() == *end
    };
    let end = obtained(DEADLINE, "the lease moves no more", || Ok(Some(fence.end()).filter(unmoved)))?;
    ensure!(end != OPEN, "the leader's lease has no end");
    falls(&failover, &readers, capture, end).context("with the agents stopped")?;

    fence.open_until(boot_now() + LONG_LEASE.as_nanos() as u64);
    readers.iter().try_for_each(Rows::go_on).context("under the next lease")?;
    for v6 in FAMILIES {
        ensure!(knock(&failover, CLIENT, FENCED, v6)? == Outcome::Open, "a client was not let in under the next lease");
    }
    failover.signal_agent(FENCED, Signal::SIGKILL)?;
    let capture = Capture::start(failover.cluster().namespace(FENCED)?)?;
    let end = boot_now() + SHORT_LEASE.as_nanos() as u64;
    fence.open_until(end);
    falls(&failover, &readers, capture, end).context("with the agent killed")?;
    [CLIENT, PEER].iter().try_for_each(|server| failover.signal_agent(server, Signal::SIGCONT))?;

    // Taking the fence out of the kernel would open what no agent holds back any more.
    let refused = failover.cluster().detach(FENCED).err().context("the fence was taken from a PostgreSQL that runs")?;
    ensure!(format!("{refused:#}").contains("runs behind the fence"), "{refused:#}");
    ensure!(knock(&failover, CLIENT, FENCED, false)? == Outcome::Silent, "a refused detach has opened the server");
    failover.kill_server(FENCED)?;
    failover.cluster().detach(FENCED)
}

/// At the end of the lease the last answers leave; from then on nobody is let in but the other database server.
fn falls(failover: &Failover, readers: &[Rows], capture: Capture, end: u64) -> Result<()> {
    eventually(DEADLINE, "the lease is over", || Ok(boot_now() >= end + SILENCE.as_nanos() as u64))?;
    let frames = capture.stop()?;
    FAMILIES.iter().try_for_each(|v6| held_back(&frames, address(FENCED, *v6)?, end))?;
    let read: Vec<u64> = readers.iter().map(Rows::bytes).collect();
    FAMILIES.iter().try_for_each(|v6| neighbours(failover, *v6))?;
    ensure!(readers.iter().map(Rows::bytes).eq(read), "rows have come after the end");
    Ok(())
}

/// Answers have left until the end, and none after it.
fn held_back(frames: &[Frame], database: SocketAddr, end: u64) -> Result<()> {
    let times = answers(frames, database)?;
    let after = |at: &u64| at.cast_signed() - end.cast_signed();
    let last = times.iter().map(after).max().context("no answer has left at all")?;
    println!("{} answers, the last {} us after the end of the lease", times.len(), last / 1_000);
    ensure!(last <= SLACK_NS, "an answer has left {last} ns after the end");
    ensure!(-last <= STREAM_NS, "the last answer has left {} ns before the end: nothing was held back", -last);
    Ok(())
}

/// Who is let in where the fence is up.
fn neighbours(failover: &Failover, v6: bool) -> Result<()> {
    ensure!(knock(failover, CLIENT, FENCED, v6)? == Outcome::Silent, "a client was let in after the end");
    ensure!(knock(failover, PEER, FENCED, v6)? == Outcome::Open, "the other database server was not let in");
    failover.sql(FENCED, "insert into acknowledged select 99, count(*) from acknowledged")?;
    eventually(DEADLINE, "the fenced server's rows reach the replica", || {
        Ok(failover.digest(PEER)? == failover.digest(FENCED)?)
    })
}

fn knock(failover: &Failover, from: &str, to: &str, v6: bool) -> Result<Outcome> {
    connect(failover.cluster().namespace(from)?, address(to, v6)?, KNOCK)
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
fn fence(failover: &Failover) -> Result<Fence> {
    Fence::pinned(&failover.cluster().pins(FENCED).join(format!("abi{ABI_VERSION}/fence")))
}

/// A client that reads rows from the database as fast as they come, until it is dropped.
struct Rows {
    bytes: Arc<AtomicU64>,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Rows {
    fn read(failover: &Failover, database: SocketAddr) -> Result<Self> {
        let password = std::fs::read(failover.cluster().folder().join("secrets/guestbook.password"))?;
        let mut config = Config::new();
        config.hostaddr(database.ip()).port(database.port()).dbname("guestbook").user("guestbook");
        config.password(password.trim_ascii_end());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let bytes = Arc::new(AtomicU64::new(0));
        let (namespace, counted) = (failover.cluster().namespace(CLIENT)?.clone(), Arc::clone(&bytes));
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
const FAMILIES: [bool; 2] = [false, true];
const PORT: u16 = 5432;
/// Within which a leader that lives moves its lease on.
const RENEWAL: Duration = Duration::from_millis(20);
/// Time to see that nothing comes after it.
const SILENCE: Duration = Duration::from_millis(600);
const LONG_LEASE: Duration = Duration::from_secs(60);
const SHORT_LEASE: Duration = Duration::from_millis(400);
/// Time between the program's last look at the clock and the packet on the wire.
const SLACK_NS: i64 = 1_000_000;
/// Rows come at least so often.
const STREAM_NS: i64 = 100_000_000;
const KNOCK: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_secs(60);
