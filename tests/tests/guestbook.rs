//! The guest book against a PostgreSQL of its own, and against none.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use foobar_tests::client::{Body, Response, Target, request};
use foobar_tests::host::Host;
use foobar_tests::process::{Process, run};
use foobar_tests::{Network, Silent, eventually};
use http::Method;
use nix::sys::signal::Signal;
use nix::unistd::User;

/// Without a database: alive, a clear 503; with one: written and read; without again: 503; bad requests are told apart.
#[test]
fn the_guest_book_outlives_its_database() -> Result<()> {
    let network = Network::create(&Silent)?;
    let mut book = guestbook(&network)?;
    let get = |path: &str| ask(&network, Method::GET, path, Body::Empty);
    let post = |fields: &[(&str, &str)]| ask(&network, Method::POST, "/guestbook", Body::Form(fields));
    eventually(DEADLINE, "it serves", || Ok(get("/healthz")?.status == 200))?;
    let away = get("/guestbook")?;
    ensure!(away.status == 503 && away.header("retry-after") == "1", "{away:?}");
    ensure!(post(&[("author", "a"), ("message", "b")])?.status == 503, "a write without a database");

    let mut postgres = postgres(&network)?;
    eventually(DEADLINE, "the table is made", || Ok(get("/guestbook")?.status == 200))?;
    let posted = post(&[("author", "Ada <a>"), ("message", "über & out")])?;
    ensure!(posted.status == 303 && posted.header("location") == "/guestbook", "{posted:?}");
    let page = get("/guestbook")?.text();
    ensure!(page.contains("Ada &lt;a&gt;") && page.contains("über &amp; out"), "{page}");
    ensure!(page.contains("<b id=\"database\">10.0.1.31</b>"), "{page}");

    ensure!(post(&[("author", ""), ("message", "b")])?.status == 400, "an empty name");
    ensure!(post(&[("author", "a"), ("message", &"x".repeat(20_000))])?.status == 413, "a huge form");
    ensure!(ask(&network, Method::POST, "/guestbook", Body::Empty)?.status == 415, "no form");
    let refused = ask(&network, Method::DELETE, "/guestbook", Body::Empty)?;
    ensure!(refused.status == 405 && refused.header("allow").contains("POST"), "{refused:?}");
    ensure!(get("/elsewhere")?.status == 404, "an unknown page");

    postgres.signal(Signal::SIGINT)?;
    postgres.wait(DEADLINE)?;
    ensure!(get("/guestbook")?.status == 503 && get("/healthz")?.status == 200, "after the database's end");
    book.signal(Signal::SIGTERM)?;
    ensure!(book.wait(DEADLINE)?.success(), "it did not stop cleanly");
    let left = network.close();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn ask(network: &Network, method: Method, path: &str, body: Body<'_>) -> Result<Response> {
    let app = Host::named("app1").context("a host")?;
    let target = Target { address: SocketAddr::from((app.v4(), 8000)), host: "app".to_owned(), tls: None };
    request(network.namespace("web1")?, &target, method, path, body)
}

fn guestbook(network: &Network) -> Result<Process> {
    let database = "host=10.0.1.31 port=5432 dbname=postgres user=postgres";
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestbook"));
    command.args(["--listen", "10.0.1.21:8000", "--server", "app1"]);
    command.env_clear().env("DATABASE_WRITE", database).env("DATABASE_READ", database);
    network.place("app1", "guestbook", command.stderr(Stdio::null()))?;
    Process::spawn("the guest book", &mut command)
}

/// A PostgreSQL on db1 that trusts the bed's servers.
fn postgres(network: &Network) -> Result<Process> {
    let folder = network.run().folder().join("postgres");
    let user = User::from_name("postgres")?.context("no user postgres; `cargo xtask setup` installs PostgreSQL")?;
    fs::create_dir(&folder)?;
    chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    let data = folder.join("data");
    let program = |name: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--reset-env"]);
        command.arg(format!("/usr/lib/postgresql/15/bin/{name}")).arg("-D").arg(&data).current_dir(&folder);
        command
    };
    run(program("initdb").args(["--auth=trust", "--no-sync"]))?;
    fs::write(data.join("pg_hba.conf"), "host all all 10.0.1.0/24 trust\n")?;
    let mut server = program("postgres");
    server.args(["-c", "listen_addresses=10.0.1.31", "-c", "unix_socket_directories=", "-c", "fsync=off"]);
    network.place("db1", "postgres", server.stderr(Stdio::null()))?;
    Process::spawn("postgres", &mut server)
}

const DEADLINE: Duration = Duration::from_secs(20);
