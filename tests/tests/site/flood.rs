//! Floods, each beside its control: the same packets to a port that nobody may reach.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use foobar_common::abi::MAX_HALF_OPEN;
use foobar_tests::client::Connection;
use foobar_tests::flood::{Flood, Kind, Shape, mac};
use foobar_tests::host::{CLIENT, SWITCH, VIP, servers};
use foobar_tests::passing::Passing;
use foobar_tests::process::{raise_file_limit, run};
use foobar_tests::wrk;
use foobar_tests::{Bed, eventually, is_long};
use tokio::task::JoinSet;

/// Part of its control's requests a second that a listener keeps under a flood.
const GOODPUT: f64 = 0.8;
/// Rounds that are measured: as many as it takes, between these.
const ROUNDS_LEAST: u32 = 2;
const ROUNDS_MOST: u32 = 5;

/// A flood of SYNs to the VIP where TLS ends: the site goes on as under the same packets to a closed port.
pub(crate) fn syns_to_a_listener(bed: &Bed) -> Result<()> {
    // A way back to the sources, as a balancer on the internet has it: without one its stack remembers no SYN.
    let route = |verb: &str| {
        let mut command = Command::new("ip");
        bed.host("lb1")?.attach(command.args(["route", verb, SOURCES, "via", &CLIENT.to_string()]));
        run(&mut command)
    };
    route("add")?;
    let outcome = goodput_under_syns(bed);
    route("del")?;
    outcome
}

fn goodput_under_syns(bed: &Bed) -> Result<()> {
    let time = Duration::from_secs(if is_long() { 5 } else { 3 });
    let url = format!("https://{VIP}/small.txt");
    let _passing = Passing::attach_but(bed.host("client")?, "eth0", FIRST)?;
    let answers = |bed: &Bed| -> Result<f64> {
        Ok(bed.metrics("lb1")?.sum("foobar_verdict_packets_total", &[("verdict", "answer")]))
    };
    let before = answers(bed)?;
    let goodput = |port: u16| -> Result<f64> {
        let packets = SYNS_PER_SECOND * (time.as_secs() + 1);
        let flood = Flood::start(bed.host("client")?, shape(bed, Kind::Syn, port, packets, SYNS_PER_SECOND)?)?;
        let figures = wrk::measure(bed, "client", &url, 16, time)?;
        let sent = flood.stop()?;
        ensure!(figures.errors == 0, "{} of {} requests failed", figures.errors, figures.requests);
        ensure!(sent > SYNS_PER_SECOND * time.as_secs() / 2, "only {sent} SYNs were sent: the machine is too busy");
        Ok(figures.rps)
    };
    let (mut open, mut control, mut rounds) = (0.0, 0.0, 0);
    // What else the machine does weighs less in more rounds.
    while rounds < ROUNDS_LEAST || (rounds < ROUNDS_MOST && (is_long() || open < GOODPUT * control)) {
        control += goodput(CLOSED)?;
        open += goodput(443)?;
        rounds += 1;
    }
    let answered = answers(bed)? - before;
    println!("\n  goodput under a SYN flood: {:.2} of the control's, {answered} SYNs answered", open / control);
    ensure!(answered > SYNS_PER_SECOND as f64, "only {answered} SYNs were answered in the packet path");
    // As long as SYNs are answered, the client's end of the cable needs its program.
    eventually(CALM, "SYNs are the stack's again", || Ok(bed.metrics("lb1")?.sum("foobar_syn_cookies", &[]) == 0.0))?;
    ensure!(
        open >= GOODPUT * control,
        "{open:.0} requests/s under the flood, {control:.0} beside it ({rounds} rounds)"
    );
    let https = bed.https()?;
    ensure!(bed.get(&https, "/small.txt")?.status == 200, "no new connection after the flood");
    Ok(())
}

/// Connections that only wait, then half-open ones at twice the size of their table: those that wait are still there.
pub(crate) fn half_open_flows_drive_out_no_idle_one(bed: &Bed) -> Result<()> {
    raise_file_limit()?;
    // SYNs that are sent on to the web servers are a flood there, too.
    let webs = || servers().filter(|host| host.role == Some("web"));
    let _passing = webs().map(|web| Passing::attach(bed.host(SWITCH)?, web.name)).collect::<Result<Vec<_>>>()?;
    let survivors = |port: u16| -> Result<usize> {
        let packets = 2 * u64::from(TABLE);
        let client = bed.host("client")?;
        let shape = shape(bed, Kind::Syn, port, packets, 100_000)?;
        client.block_on(|| async {
            let mut idle = Vec::with_capacity(IDLE);
            for _ in 0..IDLE {
                let mut connection = Connection::open(&bed.plain()).await?;
                ensure!(connection.get("/small.txt").await?.status == 200, "no answer before the flood");
                idle.push(connection);
            }
            // Nothing of the connections has to be done meanwhile: they are idle.
            ensure!(Flood::start(client, shape)?.join()? == packets, "the flood was cut short");
            // All at once: one that is gone costs a whole deadline.
            let mut asked = JoinSet::new();
            for mut connection in idle {
                asked.spawn(async move { connection.get("/small.txt").await.is_ok_and(|page| page.status == 200) });
            }
            Ok(asked.join_all().await.into_iter().filter(|answered| *answered).count())
        })?
    };
    let control = survivors(CLOSED)?;
    ensure!(control == IDLE, "{control} of {IDLE} survived packets to a closed port");
    let survivors = survivors(8080)?;
    println!("\n  {survivors} of {IDLE} idle flows survived");
    ensure!(survivors * 100 >= IDLE * 99, "only {survivors} of {IDLE} idle flows survived");
    eventually(CALM, "SYNs are the web servers' own again", || {
        webs().try_fold(true, |calm, web| Ok(calm && bed.metrics(web.name)?.sum("foobar_syn_cookies", &[]) == 0.0))
    })
}

/// What is over leaves the tables within its time and one walk, whether somebody needs the room or not; what is not stays.
pub(crate) fn tables_are_drained(bed: &Bed) -> Result<()> {
    let client = bed.host("client")?;
    client.block_on(|| async {
        eventually(OVER, "datagrams' flows are taken out", || Ok(used(bed, "datagrams")? < 10.0))?;
        eventually(OVER, "most half-open flows are taken out", || {
            Ok(used(bed, "half_open")? < f64::from(TABLE) / 16.0)
        })?;
        // Not earlier: nginx itself ends a connection that has been idle for a minute, and SYN-ACKs that a web server sends again
        // keep some half-open flows for half a minute more.
        let mut idle = Connection::open(&bed.plain()).await?;
        ensure!(idle.get("/small.txt").await?.status == 200, "no answer");
        eventually(OVER, "half-open flows are taken out", || Ok(used(bed, "half_open")? < 10.0))?;
        ensure!(idle.get("/small.txt").await?.status == 200, "an idle flow was taken out with them");
        anyhow::Ok(())
    })??;
    let ended = bed.metrics("lb1")?.sum("foobar_flows_ended_total", &[("table", "datagrams")]);
    ensure!(ended > f64::from(TABLE) / 2.0, "only {ended} flows of datagrams were taken out");
    Ok(())
}

/// Entries of a table of lb1.
fn used(bed: &Bed, table: &str) -> Result<f64> {
    Ok(bed.metrics("lb1")?.sum("foobar_flows", &[("table", table), ("family", "ipv4")]))
}

/// More datagram flows than their table holds: nobody is refused, who was silent longest gives way, each is counted once.
pub(crate) fn a_full_table_refuses_nobody(bed: &Bed) -> Result<()> {
    let fill = |port: u16| -> Result<(u64, Counted)> {
        let before = Counted::read(bed)?;
        let packets = u64::from(TABLE) * 5 / 4;
        let shape = shape(bed, Kind::Datagram, port, packets, 50_000)?;
        let sent = Flood::start(bed.host("client")?, shape)?.join()?;
        Ok((sent, Counted::read(bed)?.since(&before)))
    };
    let (_, control) = fill(CLOSED)?;
    ensure!(control.connections == 0.0, "packets to a closed port became {control:?}");
    let (sent, full) = fill(7007)?;
    println!("\n  {sent} datagrams of as many sources: {full:?}");
    ensure!(full.connections > f64::from(TABLE), "{full:?} of {sent}: the table was not full");
    ensure!(full.connections == full.allowed, "{full:?}: each packet is a flow of its own");
    ensure!(full.refused == 0.0, "{full:?}: the table refused flows");
    let limit = bed.metrics("lb1")?.sum("foobar_flows_limit", &[("table", "datagrams"), ("family", "ipv4")]);
    eventually(CALM, "the alert's condition holds", || Ok(used(bed, "datagrams")? > 0.8 * limit))?;
    // The table is still full: a flow that begins now gets its place, and an answer.
    let answered = bed.in_namespace("client", || -> Result<bool> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect((VIP, 7007))?;
        socket.send(b"late")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(answer[..length].ends_with(b" late"))
    })??;
    ensure!(answered, "a wrong answer");
    Ok(())
}

/// What the balancer counted of datagram flows.
#[derive(Clone, Copy, Debug)]
struct Counted {
    connections: f64,
    allowed: f64,
    refused: f64,
}

impl Counted {
    fn read(bed: &Bed) -> Result<Self> {
        let metrics = bed.metrics("lb1")?;
        Ok(Self {
            connections: metrics.sum("foobar_service_connections_total", &[("service", "echo")]),
            allowed: metrics.sum("foobar_rule_packets_total", &[("rule", "vip-echo")]),
            refused: metrics.sum("foobar_verdict_packets_total", &[("reason", "flow_table")]),
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            allowed: self.allowed - before.allowed,
            refused: self.refused - before.refused,
        }
    }
}

fn shape(bed: &Bed, kind: Kind, port: u16, packets: u64, rate: u64) -> Result<Shape> {
    let macs = [mac(bed.host("lb1")?, "eth1")?, mac(bed.host("client")?, "eth0")?];
    let to: (Ipv4Addr, u16) = (VIP, port);
    Ok(Shape { kind, to, macs, packets, rate, first: u32::from(port) << 12 })
}

/// Entries of the tables of half-open connections and of datagrams.
const TABLE: u32 = MAX_HALF_OPEN;
/// Time for which half-open flows are kept, the longest of those that this waits for, and some walks.
const OVER: Duration = Duration::from_secs(90);
const IDLE: usize = 1000;
/// Where the packets of a flood say that they come from.
const SOURCES: &str = "11.0.0.0/8";
/// Their first byte.
const FIRST: u8 = 11;
/// A flood is over when nothing has been seen of it for five seconds.
const CALM: Duration = Duration::from_secs(30);
/// A port of the VIP that nobody may reach.
const CLOSED: u16 = 8444;
const SYNS_PER_SECOND: u64 = 50_000;
