//! Real PostgreSQL: a primary and a replica on loopback, rows that arrive, and data folders that are refused.

mod free_address;
mod process_support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use foobar_user::health::{DatabaseRole, Health, HealthState, Member, Orders};
use foobar_user::plan::{
    BackendPlan, Balance, Check, CheckKind, PostgresPlan, ProcessKind, ProcessPlan, Reads, Scope, Select, ServicePlan,
    Transport,
};
use foobar_user::process::{ProcessState, Supervisor, postgres};
use free_address::free_address;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_support::{DEADLINE, Place, eventually, until, until_running};
use tokio_postgres::{Client, NoTls};

const DB1: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const DB2: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const PASSWORD: &str = "it's a \\ secret";

fn process(place: &Place, server: &str, port: u16) -> ProcessPlan {
    let (own, peer) = if server == "db1" { (DB1, DB2) } else { (DB2, DB1) };
    ProcessPlan {
        name: "postgres".into(),
        kind: ProcessKind::Postgres(Box::new(PostgresPlan {
            listen: vec![own],
            port,
            server: server.into(),
            primary: "db1".into(),
            primary_address: DB1,
            // On loopback the replica's connections come from 127.0.0.1 whatever it listens on.
            peers: vec![peer, DB1],
            clients: vec!["127.0.0.0/8".parse().expect("a prefix")],
            database: "guestbook".into(),
            user: "guest".into(),
            password_file: place.write("guest.password", &format!("{PASSWORD}\n")),
            replication_password_file: place.write("replication.password", "r:e\\p\n"),
            tls: None,
            settings: BTreeMap::new(),
            failover: None,
        })),
        user: None,
        stop_signal: None,
        stop_timeout_ms: 10_000,
        after: Vec::new(),
        ready: None,
        limits: foobar_user::plan::Limits::default(),
    }
}

async fn client(address: IpAddr, port: u16) -> Option<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host(address.to_string()).port(port).user("guest").dbname("guestbook").password(PASSWORD);
    let (client, connection) = config.connect(NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}

fn installed() -> bool {
    let there = Path::new("/usr/lib/postgresql/15/bin/postgres").exists();
    if !there {
        eprintln!("SKIPPED: needs PostgreSQL 15");
    }
    there
}

fn service(place: &Place, name: &str, select: Select, port: u16) -> ServicePlan {
    let backend = |server: &str, address| BackendPlan {
        server: server.into(),
        addresses: vec![SocketAddr::new(address, port)],
        weight: 1,
        fallback: false,
    };
    ServicePlan {
        name: name.into(),
        protocol: Transport::Tcp,
        vips: Vec::new(),
        sources: Vec::new(),
        scope: Scope::Local,
        balance: Balance::default(),
        select,
        backends: vec![backend("db1", DB1), backend("db2", DB2)],
        check: Check {
            kind: CheckKind::Postgres {
                database: "guestbook".into(),
                user: "guest".into(),
                password_file: place.path().join("guest.password"),
            },
            interval_ms: 100,
            timeout_ms: 2_000,
            rise: 1,
            fall: 2,
        },
    }
}

fn servers(members: Vec<Member>) -> Vec<String> {
    members.into_iter().map(|member| member.server).collect()
}

#[tokio::test]
async fn rows_reach_the_replica_and_roles_are_seen() {
    let Some(place) = Place::new().filter(|_| installed()) else { return };
    let port = free_address().port();
    let second = Supervisor::start(vec![process(&place, "db2", port)], place.folders("db2")).expect("starts");
    let waiting = until(&second, "postgres", |status| status.state == ProcessState::Waiting).await;
    assert!(waiting.message.is_some_and(|message| message.contains("waiting for the leader db1")));

    // What a crash in the middle of a first start leaves.
    place.write("db1/state/postgres/data.new/PG_VERSION", "15\n");
    let first = Supervisor::start(vec![process(&place, "db1", port)], place.folders("db1")).expect("starts");
    let pid = until_running(&first, "postgres").await.pid;
    let primary = client(DB1, port).await.expect("the app logs in");
    primary
        .batch_execute("create table entries (text text); insert into entries values ('hello')")
        .await
        .expect("writes");
    until_running(&second, "postgres").await;
    eventually("the row on the replica", || async {
        let replica = client(DB2, port).await?;
        let row = replica.query_one("select text from entries", &[]).await.ok()?;
        (row.get::<_, String>(0) == "hello").then_some(())
    })
    .await;
    let replica = client(DB2, port).await.expect("the app logs in");
    assert!(replica.batch_execute("insert into entries values ('no')").await.is_err(), "a replica takes no writes");

    let services = [
        service(&place, "write", Select::Primary, port),
        service(&place, "read", Select::Replica(Reads::default()), port),
    ];
    let (health, mut changes) = Health::start(&services, Orders::new());
    let both = changes
        .wait_for(|state| servers(state.members("write")) == ["db1"] && servers(state.members("read")) == ["db2"]);
    assert!(tokio::time::timeout(DEADLINE, both).await.is_ok_and(|seen| seen.is_ok()), "{:?}", health.snapshot());
    assert!(matches!(health.snapshot().services[1].backends[1].role, Some(DatabaseRole::Replica { .. })));

    let replica = until_running(&second, "postgres").await.pid.expect("a postmaster");
    who_lags_leaves_and_comes_back(&place, port, &primary, replica).await;

    // A second agent adopts the postmaster; there are never two on a data folder.
    drop(first);
    let first = Supervisor::start(vec![process(&place, "db1", port)], place.folders("db1")).expect("starts");
    assert_eq!(until_running(&first, "postgres").await.pid, pid);

    // Not even for an agent that knows nothing of it: here its record is lost, and its cgroup is another's.
    let mut stranger = place.folders("db1");
    fs::remove_file(stranger.state.join("processes.json")).expect("a record");
    stranger.cgroup = place.folders("stranger").cgroup;
    let third = Supervisor::start(vec![process(&place, "db1", port)], stranger).expect("starts");
    let refused = until(&third, "postgres", |status| status.state == ProcessState::Backoff).await;
    assert!(refused.message.is_some_and(|message| message.contains("a postmaster that this agent did not start")));
    third.stop().await;
    assert_eq!(until_running(&first, "postgres").await.pid, pid);

    second.stop().await;
    let fallen = changes.wait_for(|state| servers(state.members("read")) == ["db1"]);
    assert!(tokio::time::timeout(DEADLINE, fallen).await.is_ok_and(|seen| seen.is_ok()), "reads fall back");

    // The replica comes back from its data folder, and the slot has kept what it missed.
    primary.batch_execute("insert into entries values ('missed')").await.expect("writes");
    let second = Supervisor::start(vec![process(&place, "db2", port)], place.folders("db2")).expect("starts");
    eventually("the missed row", || async {
        let rows = client(DB2, port).await?.query("select text from entries", &[]).await.ok()?;
        (rows.len() == 2).then_some(())
    })
    .await;
    let log = fs::read_to_string(place.folders("db1").logs.join("postgres.log")).expect("a log");
    assert!(!log.contains("secret"), "passwords are never logged: {log}");
    second.stop().await;
    first.stop().await;
    assert!(place.population().is_empty());
}

/// Replay on the replica stands still while the primary writes.
async fn who_lags_leaves_and_comes_back(place: &Place, port: u16, primary: &Client, postmaster: i32) {
    let limited =
        |fallback_to_primary| Select::Replica(Reads { max_lag_s: Some(1), max_lag_bytes: None, fallback_to_primary });
    let services = [service(place, "lax", limited(true), port), service(place, "strict", limited(false), port)];
    let (health, mut changes) = Health::start(&services, Orders::new());
    let mut members = async |lax: &[&str], strict: &[&str]| {
        let wanted =
            |state: &HealthState| servers(state.members("lax")) == lax && servers(state.members("strict")) == strict;
        let seen = tokio::time::timeout(DEADLINE, changes.wait_for(wanted)).await.is_ok_and(|seen| seen.is_ok());
        assert!(seen, "members never were {lax:?} and {strict:?}: {:?}", health.snapshot());
    };
    members(&["db2"], &["db2"]).await;
    let replay = child(postmaster, "startup");
    kill(replay, Signal::SIGSTOP).expect("a process");
    primary.batch_execute("create table later (n int); insert into later values (1)").await.expect("writes");
    members(&["db1"], &[]).await;
    kill(replay, Signal::SIGCONT).expect("a process");
    members(&["db2"], &["db2"]).await;
    primary.batch_execute("drop table later").await.expect("writes");
}

/// The child of a postmaster that calls itself so.
fn child(postmaster: i32, name: &str) -> Pid {
    let of = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<i32>().ok()?;
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        (parent == postmaster && title.contains(name)).then_some(Pid::from_raw(pid))
    };
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find_map(of).expect("the process")
}

#[tokio::test]
async fn a_data_folder_of_another_version_is_refused() {
    let Some(place) = Place::new().filter(|_| installed()) else { return };
    let folders = place.folders("db1");
    let data = postgres::data_folder(&folders);
    fs::create_dir_all(&data).expect("a folder");
    fs::write(data.join("PG_VERSION"), "13\n").expect("a file");
    let supervisor = Supervisor::start(vec![process(&place, "db1", free_address().port())], folders).expect("starts");
    let status = until(&supervisor, "postgres", |status| status.state == ProcessState::CrashLoop).await;
    let message = status.message.expect("a reason");
    assert!(message.contains("PostgreSQL 13") && message.contains("pg_upgrade"), "{message}");
    fs::write(data.join("PG_VERSION"), "15\n").expect("a file");
    let owner = |status: &foobar_user::process::ProcessStatus| {
        status.message.as_ref().is_some_and(|message| message.contains("belongs to uid 0"))
    };
    until(&supervisor, "postgres", owner).await;
    supervisor.stop().await;
}
