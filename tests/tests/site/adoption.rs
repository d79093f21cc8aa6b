//! The balancer's agent is killed under load: its data path goes on, opens nothing, and the next agent adopts it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::host::{BALANCER, Host, VIP};
use foobar_tests::load::{Load, Shape};
use foobar_tests::probe::{Outcome, connect};
use foobar_tests::{Bed, Silent, eventually};

/// No request fails, no connection is opened anew, no closed door opens.
pub(crate) fn balancer_agent(bed: &Bed) -> Result<()> {
    let watch = Watch::default();
    thread::scope(|scope| {
        let knocking = scope.spawn(|| watch.knock(bed));
        let outcome = kill_and_adopt(bed, &watch);
        watch.stop.store(true, Ordering::Relaxed);
        knocking.join().map_err(|_| anyhow::anyhow!("the knocking thread panicked"))??;
        outcome
    })?;
    let https = bed.https()?;
    eventually(DEADLINE, "the TLS path answers again", || Ok(bed.get(&https, "/guestbook")?.status == 200))
}

fn kill_and_adopt(bed: &Bed, watch: &Watch) -> Result<()> {
    let paths = vec!["/small.txt".to_owned()];
    let pause = Duration::from_millis(2);
    let shape = Shape { target: bed.plain(), paths, connections: CONNECTIONS, keep_alive: true, pause };
    let load = Load::start(bed.host("client")?, &shape)?;
    go_on(&load, watch)?;
    bed.agent("lb1")?.kill()?;
    let alone = go_on(&load, watch);
    // Whatever was seen, the next check needs the agent.
    bed.start_agent("lb1")?;
    bed.ready("lb1", &Silent)?;
    bed.settled(&Silent)?;
    alone?;
    go_on(&load, watch)?;
    let report = load.stop()?;
    ensure!(
        report.failures.is_empty(),
        "{} requests failed; the first: {}",
        report.failures.len(),
        report.failures[0].why
    );
    ensure!(report.opened == CONNECTIONS as u64, "{} connections were opened, not {CONNECTIONS}", report.opened);
    Ok(())
}

/// Waits for more answers and for more knocks.
fn go_on(load: &Load, watch: &Watch) -> Result<()> {
    let (answers, knocks) = (load.good() + 500, watch.knocks.load(Ordering::Relaxed) + 4);
    eventually(DEADLINE, "load and knocks go on", || {
        Ok(load.good() + load.failed() as u64 >= answers && watch.knocks.load(Ordering::Relaxed) >= knocks)
    })
}

/// Somebody who tries closed doors all the time.
#[derive(Default)]
struct Watch {
    stop: AtomicBool,
    knocks: AtomicU64,
}

impl Watch {
    fn knock(&self, bed: &Bed) -> Result<()> {
        let client = bed.host("client")?;
        let web = Host::named("web1").context("a host")?;
        let doors = [(VIP, 8081), (BALANCER, 9900), (VIP, 9900), (web.v4(), 8443)];
        for door in doors.iter().cycle().map(|door| SocketAddr::from(*door)) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let outcome = connect(client, door, SILENCE)?;
            ensure!(outcome == Outcome::Silent, "the client knocked at {door}: {outcome:?}");
            self.knocks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

const CONNECTIONS: usize = 8;
const SILENCE: Duration = Duration::from_millis(100);
const DEADLINE: Duration = Duration::from_secs(30);
