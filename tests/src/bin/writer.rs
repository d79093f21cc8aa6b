//! `writer`: writes numbered rows through a VIP until its standard input ends, and logs each acknowledgement.
//!
//! A line for each row that was acknowledged: writer, number, the server that took it, its timeline, and the two times between which it did,
//! in microseconds of the boot-time clock. A line `seen` for a writer's newest row, as a reader sees it; a line `fault` for each row that was not, with the reason.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use foobar_tests::failover::now_us;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, NoTls};

/// Time that a log-in may take: less than a failover.
const LOGIN: Duration = Duration::from_secs(1);
/// Time that one row may take; writes may wait for a replica for longer than a failover takes.
const ROW: Duration = Duration::from_secs(20);
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Time between two rows: what is measured is a failover, and not how much a machine can write.
const BREATH: Duration = Duration::from_millis(2);

#[derive(Parser)]
struct Arguments {
    /// How PostgreSQL is reached
    #[arg(long)]
    to: String,
    /// File with the password
    #[arg(long)]
    password_file: PathBuf,
    /// Writers at once
    #[arg(long, default_value_t = 8)]
    writers: u32,
    /// File of acknowledgements
    #[arg(long)]
    log: PathBuf,
}

type Log = Arc<Mutex<std::fs::File>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let password = std::fs::read_to_string(&arguments.password_file)?;
    let mut config: tokio_postgres::Config = arguments.to.parse()?;
    config.password(password.trim()).connect_timeout(LOGIN);
    let log = Arc::new(Mutex::new(std::fs::File::options().append(true).open(&arguments.log)?));
    let mut writers: Vec<_> =
        (0..arguments.writers).map(|writer| tokio::spawn(write(config.clone(), writer, Arc::clone(&log)))).collect();
    writers.push(tokio::spawn(read(config, Arc::clone(&log))));
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

async fn write(config: tokio_postgres::Config, writer: u32, log: Log) {
    let mut number = 0_u64;
    loop {
        if let Err(fault) = session(&config, writer, &mut number, &log).await {
            let why = format!("{fault:#}").replace('\n', "; ");
            tell(&log, &format!("fault {writer} {number} {} {why}", now_us()));
        }
        // What was not acknowledged may have been written: its number is not used again.
        number += 1;
        sleep(PAUSE).await;
    }
}

async fn session(config: &tokio_postgres::Config, writer: u32, number: &mut u64, log: &Log) -> Result<()> {
    let (client, connection) = timeout(LOGIN, config.connect(NoTls)).await.context("no log-in in time")??;
    let connection = tokio::spawn(connection);
    let done = rows(&client, writer, number, log).await;
    connection.abort();
    done
}

async fn rows(client: &Client, writer: u32, number: &mut u64, log: &Log) -> Result<()> {
    let insert = "insert into acknowledged values ($1, $2) \
                  returning host(inet_server_addr()), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";
    let insert = timeout(LOGIN, client.prepare(insert)).await.context("no answer in time")??;
    loop {
        let began = now_us();
        let (by, row) = (i64::from(writer), i64::try_from(*number)?);
        let row =
            timeout(ROW, client.query_one(&insert, &[&by, &row])).await.context("no acknowledgement in time")??;
        let (server, timeline): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        tell(log, &format!("row {writer} {number} {server} {timeline} {began} {}", now_us()));
        *number += 1;
        sleep(BREATH).await;
    }
}

/// Looks again and again at the newest row of each writer.
async fn read(config: tokio_postgres::Config, log: Log) {
    loop {
        // What keeps a reader away keeps writers away, who tell it.
        let _ = looks(&config, &log).await;
        sleep(PAUSE).await;
    }
}

async fn looks(config: &tokio_postgres::Config, log: &Log) -> Result<()> {
    let (client, connection) = timeout(LOGIN, config.connect(NoTls)).await.context("no log-in in time")??;
    let connection = tokio::spawn(connection);
    let newest = "select writer::bigint, (select max(number) from acknowledged where acknowledged.writer = of.writer) \
                  from generate_series(0, 63) as of (writer)";
    let looked = async {
        loop {
            for row in timeout(LOGIN, client.query(newest, &[])).await.context("no answer in time")?? {
                if let (writer, Some(number)) = (row.try_get::<_, i64>(0)?, row.try_get::<_, Option<i64>>(1)?) {
                    tell(log, &format!("seen {writer} {number}"));
                }
            }
            sleep(PAUSE).await;
        }
    };
    let looked: Result<()> = looked.await;
    connection.abort();
    looked
}

fn tell(log: &Log, line: &str) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    // A disk that does not take it fails the test that reads it.
    let _ = writeln!(log, "{line}");
}
