//! The PostgreSQL source against a real primary and its replica, on unix sockets.
//!
//! ```text
//!   exporter ──unix──► primary ◄──streaming over the same socket── replica ◄──unix── exporter
//! ```

mod metrics_support;

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use foobar_user::metrics::postgres::{Exporter, Postgres, Status, Target};
use foobar_user::metrics::{Metrics, Sources, names};
use metrics_support::{Process, assert_whole, eventually, value};
use nix::sys::signal::Signal;

const PORT: u16 = 5432;

/// A PostgreSQL program, as `postgres` when we are root, which PostgreSQL refuses to be.
fn program(name: &str) -> Command {
    let folders = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: apt-get install postgresql");
    let newest = folders.filter_map(|folder| Some(folder.ok()?.path())).max().expect("no version of PostgreSQL");
    let mut command = Command::new(newest.join("bin").join(name));
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").unwrap().expect("no user postgres");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?} ended with {status}");
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// A folder that `postgres` can write to.
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("foobar-metrics-").tempdir_in("/tmp").unwrap();
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres").unwrap().expect("no user postgres");
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        Self(folder)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

fn start(data: &Path, sockets: &Path) -> Process {
    let mut command = program("postgres");
    command.arg("-D").arg(data).arg("-p").arg(PORT.to_string()).arg("-k").arg(sockets);
    command.args([
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        "max_connections=17",
        "-c",
        "shared_buffers=16MB",
    ]);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    // Fast shutdown: the smart one of SIGTERM waits for the exporter, which keeps its connection.
    Process { child, stop: Signal::SIGINT }
}

async fn status(exporter: &Exporter, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
    eventually(what, async || exporter.read().await.0.filter(&condition)).await
}

#[tokio::test]
async fn a_real_primary_and_its_replica_are_read() {
    let folder = Folder::new();
    let [data1, data2] = [folder.join("data1"), folder.join("data2")];
    let [sockets1, sockets2] = ["sockets1", "sockets2"].map(|name| folder.join(name));
    for sockets in [&sockets1, &sockets2] {
        run(Command::new("install").args(["-d", "-m", "0777"]).arg(sockets));
    }
    run(program("initdb").args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(&data1));
    let exporter1 = Exporter::new(Target { socket_dir: sockets1.clone(), port: PORT });
    assert_eq!(exporter1.read().await, Postgres(None), "nobody listens yet");

    let primary = start(&data1, &sockets1);
    let first = status(&exporter1, "the primary answers", |_| true).await;
    assert!(!first.in_recovery && first.replicas.is_empty());
    assert_eq!(first.connections_limit, 17);
    assert_eq!(first.connections.iter().map(|(_, n)| n).sum::<u64>(), 1, "our own, kept: {first:?}");
    assert!(first.databases.iter().any(|(name, bytes)| name == "postgres" && *bytes > 1_000_000), "{first:?}");
    assert!(!first.databases.iter().any(|(name, _)| name.starts_with("template")));

    let source = format!("host={} port={PORT} user=postgres application_name=db2", sockets1.display());
    run(program("pg_basebackup").args(["-R", "-c", "fast", "-d", &source, "-D"]).arg(&data2));
    let replica = start(&data2, &sockets2);
    let target2 = Target { socket_dir: sockets2, port: PORT };
    let exporter2 = Exporter::new(target2.clone());
    let streaming = status(&exporter2, "the replica streams", |status| status.receiving).await;
    assert!(streaming.in_recovery && streaming.lag_seconds >= 0.0);
    let named = status(&exporter1, "the primary names its replica", |status| !status.replicas.is_empty()).await;
    assert_eq!(named.replicas[0].0, "db2");

    let (client, connection) = connect(&sockets1).await;
    client.batch_execute("CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)").await.unwrap();
    client.batch_execute("BEGIN; DELETE FROM t; ROLLBACK").await.unwrap();
    let grew =
        |status: &Status| status.transactions[1] > first.transactions[1] && status.tuples[2] >= first.tuples[2] + 1000;
    assert_eq!(first.pending_restart, 0);
    client.batch_execute("ALTER SYSTEM SET max_wal_senders = 20").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    drop(client);
    connection.await.unwrap();
    status(&exporter1, "a setting waits for a restart", |status| status.pending_restart > 0).await;
    status(&exporter1, "transactions and rows are counted", grew).await;
    status(&exporter1, "the replica has replayed all", |status| status.replicas.iter().all(|(_, lag)| *lag == 0)).await;

    let metrics = Metrics::new(Sources { postgres: Some(target2), ..Sources::default() });
    let text = metrics.render().await.unwrap();
    assert_eq!(value(&text, "foobar_postgres_in_recovery"), Some(1.0), "{text}");
    // A replica and a primary have families of their own: together they have all.
    let target1 = Target { socket_dir: sockets1.clone(), port: PORT };
    let primary_text = Metrics::new(Sources { postgres: Some(target1), ..Sources::default() }).render().await.unwrap();
    assert_whole(&primary_text, "foobar_postgres_replication_lag_bytes");
    assert_whole(&text, "foobar_postgres_replication_lag_seconds");
    let both: BTreeSet<_> = [&text, &primary_text].into_iter().flat_map(|text| families(text)).collect();
    let all = names::ALL.iter().map(|family| family.name).filter(|name| name.starts_with("foobar_postgres_"));
    assert_eq!(both, all.collect());
    assert_eq!(value(&text, "foobar_postgres_replication_lag_seconds"), Some(0.0), "{text}");

    drop(primary);
    assert_eq!(exporter1.read().await, Postgres(None), "a stopped server is down");
    status(&exporter2, "the replica is cut off", |status| !status.receiving).await;
    let primary = start(&data1, &sockets1);
    status(&exporter1, "the exporter connects again", |_| true).await;
    drop((replica, primary));
}

fn families(text: &str) -> impl Iterator<Item = &str> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    names.filter(|name| name.starts_with("foobar_postgres_"))
}

async fn connect(sockets: &Path) -> (tokio_postgres::Client, tokio::task::JoinHandle<()>) {
    let mut configuration = tokio_postgres::Config::new();
    configuration.host_path(sockets).port(PORT).user("postgres").dbname("postgres");
    let (client, connection) = configuration.connect(tokio_postgres::NoTls).await.unwrap();
    let task = tokio::spawn(async move {
        let _ended = connection.await;
    });
    (client, task)
}
