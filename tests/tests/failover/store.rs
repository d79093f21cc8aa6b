//! What the lease needs of a store, asked of the real etcd, whose members die and hang meanwhile.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use foobar_tests::cluster::{Cluster, server};
use foobar_tests::failover::etcd::{self, Etcd};
use foobar_tests::process::run;
use foobar_tests::site::Binaries;
use foobar_user::database::etcd::Client;
use foobar_user::database::state::{Member, State};
use foobar_user::database::{Snapshot, Store as _};
use foobar_user::plan::{Endpoint, TlsFiles};
use nix::sys::signal::Signal;

/// Time of one question, and what a busy machine adds.
const QUESTION: Duration = Duration::from_millis(400 + 400);
/// Time in which other members go on after one of them.
const ELECTION: Duration = Duration::from_secs(10);

fn state(epoch: u64) -> State {
    State { epoch, leader: "db1".into(), held: true, ..State::default() }
}

/// Reads; however it goes, it must not take longer than a question may.
async fn read(client: &Client) -> Result<Snapshot> {
    let began = Instant::now();
    let answer = client.read().await;
    ensure!(began.elapsed() < QUESTION, "a question took {:?}", began.elapsed());
    answer
}

/// Reads until somebody answers.
async fn read_again(client: &Client) -> Result<Snapshot> {
    let began = Instant::now();
    loop {
        match read(client).await {
            Ok(snapshot) => return Ok(snapshot),
            Err(error) if began.elapsed() > ELECTION => return Err(error),
            Err(_) => {}
        }
    }
}

#[test]
fn etcd_compares_before_it_swaps_and_answers_with_a_member_gone() -> Result<()> {
    let servers = [server("app1", "app", &["eth0"])?, server(etcd::HOST, "monitor", &["eth0"])?].concat();
    let site = format!("[site]\ndomain = \"www.foobar.com\"\nadmin = [\"10.0.1.41/32\"]\npki = \"pki\"\n\n{servers}");
    let cluster = Cluster::new(&site, &[])?;
    let folder = cluster.folder().to_owned();
    run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(folder.join("site.toml")))?;
    let mut etcd = Etcd::start(&cluster)?;
    let pki = folder.join("pki");
    let files = TlsFiles { ca: pki.join("ca.pem"), certificate: pki.join("app1.pem"), key: pki.join("app1.key") };
    let client = || Client::new(etcd::members(), "/foobar/www.foobar.com/".into(), files.clone());
    cluster.namespace("app1")?.block_on(|| async {
        swaps(&client()).await?;
        tells(&client()).await?;
        survives(&client(), &mut etcd, &cluster).await?;
        refuses(&files).await
    })?
}

async fn swaps(client: &Client) -> Result<()> {
    let nothing = client.read().await?;
    ensure!(nothing.state.is_none() && nothing.members.is_empty(), "{nothing:?}");
    let first = client.swap(nothing.version, &state(1)).await?.context("nobody else is there")?;
    ensure!(client.swap(nothing.version, &state(2)).await?.is_none(), "it was swapped although a state was there");
    let seen = client.read().await?;
    ensure!(seen.version == first && seen.state == Some(state(1)), "{seen:?}");
    let renewed = client.swap(first, &state(1)).await?.context("a renewal")?;
    ensure!(renewed != first && client.read().await?.version == renewed, "a renewal moves the version");
    ensure!(client.swap(first, &state(3)).await?.is_none(), "an old version was swapped");
    Ok(())
}

async fn tells(client: &Client) -> Result<()> {
    let before = client.read().await?;
    let word = Member { count: 7, note: "a word".into(), ..Member::default() };
    client.tell("db1", &word).await?;
    client.tell("db2", &word).await?;
    let after = client.read().await?;
    ensure!(after.version == before.version, "a word moves no version");
    ensure!(after.members.keys().eq(["db1", "db2"]) && after.members["db2"] == word, "{after:?}");
    Ok(())
}

async fn survives(client: &Client, etcd: &mut Etcd, cluster: &Cluster) -> Result<()> {
    let before = client.read().await?;
    for member in 0..etcd::members().len() {
        etcd.signal(member, Signal::SIGSTOP)?;
        let seen = read_again(client).await;
        etcd.signal(member, Signal::SIGCONT)?;
        ensure!(seen.with_context(|| format!("with member {member} stopped"))? == before, "another snapshot");
    }
    etcd.kill_leader(cluster)?;
    ensure!(read_again(client).await.context("with the leader killed")? == before, "another snapshot");
    let later = client.swap(before.version, &state(4)).await?.context("a swap by two members")?;
    etcd.kill_all()?;
    let told = format!("{:#}", read(client).await.expect_err("nobody is there"));
    ensure!(etcd::members().iter().all(|member| told.contains(&member.to_string())), "{told}");
    etcd.start_missing(cluster)?;
    let seen = read_again(client).await?;
    ensure!(seen.version == later && seen.state == Some(state(4)), "{seen:?}");
    Ok(())
}

/// In plain text, by a certificate that another CA has signed, and where it cannot prove itself.
async fn refuses(files: &TlsFiles) -> Result<()> {
    let ask = |members, files| async { read(&Client::new(members, "/foobar/www.foobar.com/".into(), files)).await };
    let plain = etcd::members().into_iter().map(|member| Endpoint { tls: false, ..member }).collect();
    ensure!(ask(plain, files.clone()).await.is_err(), "it answers in plain text");
    let folder = tempfile::tempdir()?;
    let site = folder.path().join("site.toml");
    let server = server("app1", "app", &["eth0"])?;
    std::fs::write(&site, format!("[site]\ndomain = \"www.foobar.com\"\nadmin = []\npki = \"pki\"\n\n{server}"))?;
    run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(&site))?;
    let other = |name: &str| folder.path().join("pki").join(name);
    let stranger = TlsFiles { ca: files.ca.clone(), certificate: other("app1.pem"), key: other("app1.key") };
    ensure!(ask(etcd::members(), stranger).await.is_err(), "it answers a stranger");
    let unproved = TlsFiles { ca: other("ca.pem"), ..files.clone() };
    let told = ask(etcd::members(), unproved).await.expect_err("its CA is unknown");
    ensure!(format!("{told:#}").contains("no TLS with it"), "{told:#}");
    Ok(())
}
