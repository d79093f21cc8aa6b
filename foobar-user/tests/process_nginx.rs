//! Real nginx: starts from its plan, shows its load, reloads in place, keeps the old configuration when the new is bad.

mod free_address;
mod pki_support;
mod process_support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use foobar_user::health::{BackendHealth, Health, Orders};
use foobar_user::plan::{
    BackendPlan, Balance, Check, CheckKind, HttpCheck, NginxListener, NginxPlan, ProcessKind, ProcessPlan, Scope,
    Select, ServicePlan, TlsFiles, Transport,
};
use foobar_user::process::{Supervisor, nginx};
use free_address::free_address;
use pki_support::Pki;
use process_support::{Place, eventually, until_running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

fn plan(place: &Place, port: u16) -> NginxPlan {
    place.write("www/index.html", "<p>hello</p>\n");
    let make_walkable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(place.path().join("www"), make_walkable).expect("the folder is ours");
    NginxPlan {
        domain: "www.foobar.com".into(),
        root: place.path().join("www"),
        listeners: vec![NginxListener { address: ([127, 0, 0, 1], port).into(), tls: false }],
        dynamic: vec!["/guestbook".into()],
        upstream: None,
        tls: TlsFiles { ca: "/pki/ca.pem".into(), certificate: "/pki/web1.pem".into(), key: "/pki/web1.key".into() },
        balancers: vec![[127, 0, 0, 1].into()],
    }
}

fn process(nginx: NginxPlan) -> ProcessPlan {
    ProcessPlan {
        name: "nginx".into(),
        kind: ProcessKind::Nginx(nginx),
        user: None,
        stop_signal: None,
        stop_timeout_ms: 3_000,
        after: Vec::new(),
        ready: None,
        limits: foobar_user::plan::Limits::default(),
    }
}

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str, more: &str) -> Option<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: www.foobar.com\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    (!text.is_empty()).then_some(text)
}

async fn get(port: u16, path: &str) -> Option<String> {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.ok()?;
    exchange(stream, path, "X-Forwarded-For: 203.0.113.50\r\nX-Forwarded-Proto: https\r\n").await
}

fn installed() -> bool {
    let there = Path::new("/usr/sbin/nginx").exists();
    if !there {
        eprintln!("SKIPPED: needs nginx");
    }
    there
}

#[tokio::test]
async fn nginx_serves_reloads_and_survives_a_bad_configuration() {
    let Some(place) = Place::new().filter(|_| installed()) else { return };
    let (port, second) = (free_address().port(), free_address().port());
    let folders = place.folders("web1");
    let mut good = plan(&place, port);
    let supervisor = Supervisor::start(vec![process(good.clone())], folders.clone()).expect("starts");
    let page = eventually("the page", || get(port, "/")).await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<p>hello</p>"), "{page}");
    assert!(page.contains("X-Served-By: web1"), "{page}");
    let health = get(port, "/healthz").await.expect("an answer");
    assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
    let socket = UnixStream::connect(nginx::status_address(&folders)).await.expect("the status socket");
    let load = exchange(socket, "/status", "").await.expect("an answer");
    assert!(load.contains("Active connections:"), "{load}");
    let pid = until_running(&supervisor, "nginx").await.pid;

    good.listeners.push(NginxListener { address: ([127, 0, 0, 1], second).into(), tls: false });
    supervisor.apply(vec![process(good.clone())]).await.expect("a good configuration");
    eventually("the new listener", || get(second, "/")).await;
    assert_eq!(until_running(&supervisor, "nginx").await.pid, pid, "reloaded in place");

    let mut bad = good.clone();
    bad.listeners.push(NginxListener { address: ([127, 0, 0, 1], free_address().port()).into(), tls: true });
    let error = supervisor.apply(vec![process(bad)]).await.expect_err("there are no certificates");
    let message = format!("{error:#}");
    assert!(message.contains("/pki/web1.pem") && message.contains("old configuration"), "{message}");
    assert!(get(port, "/").await.is_some() && get(second, "/").await.is_some());

    // A new agent adopts it; then its workers, which hold the ports, do not outlive a killed master.
    drop(supervisor);
    let supervisor = Supervisor::start(vec![process(good)], folders).expect("starts");
    let adopted = until_running(&supervisor, "nginx").await;
    assert_eq!((adopted.pid, adopted.adopted), (pid, true));
    let master = nix::unistd::Pid::from_raw(pid.expect("a pid"));
    nix::sys::signal::kill(master, nix::sys::signal::Signal::SIGKILL).expect("it lives");
    process_support::until(&supervisor, "nginx", |status| status.pid.is_some_and(|new| Some(new) != pid)).await;
    eventually("the page again", || get(port, "/")).await;
    supervisor.stop().await;
    assert!(place.population().is_empty());
}

#[tokio::test]
async fn nginx_forwards_what_balancers_say_of_the_client() {
    let Some(place) = Place::new().filter(|_| installed()) else { return };
    let upstream = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = free_address().port();
    let mut plan = plan(&place, port);
    plan.upstream = Some(upstream.local_addr().expect("its address"));
    let app = tokio::spawn(async move {
        let (mut stream, _) = upstream.accept().await.expect("nginx connects");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a whole head"));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.expect("nginx reads");
        String::from_utf8(head).expect("text")
    });
    let supervisor = Supervisor::start(vec![process(plan)], place.folders("web1")).expect("starts");
    let page = eventually("the dynamic page", || get(port, "/guestbook/1")).await;
    assert!(page.ends_with("hi"), "{page}");
    let head = app.await.expect("the upstream");
    assert!(head.starts_with("GET /guestbook/1 HTTP/1.1"), "{head}");
    assert!(
        head.contains("X-Forwarded-For: 203.0.113.50\r\n") && head.contains("X-Forwarded-Proto: https\r\n"),
        "{head}"
    );
    supervisor.stop().await;
}

#[tokio::test]
async fn a_tls_listener_wants_a_certificate_of_the_sites_ca() {
    let Some(place) = Place::new().filter(|_| installed()) else { return };
    let (ours, foreign) = (Pki::new(&["web1", "lb1"]), Pki::new(&["web1", "lb1"]));
    let port = free_address().port();
    let mut plan = plan(&place, port);
    plan.listeners[0].tls = true;
    plan.tls = ours.files("web1");
    let supervisor = Supervisor::start(vec![process(plan)], place.folders("web1")).expect("starts");
    until_running(&supervisor, "nginx").await;
    let service = |name: &str, tls: TlsFiles| ServicePlan {
        name: name.into(),
        protocol: Transport::Tcp,
        vips: Vec::new(),
        sources: Vec::new(),
        scope: Scope::Local,
        balance: Balance::default(),
        select: Select::Any,
        backends: vec![BackendPlan {
            server: "web1".into(),
            addresses: vec![([127, 0, 0, 1], port).into()],
            weight: 1,
            fallback: false,
        }],
        check: Check {
            kind: CheckKind::Http(HttpCheck {
                path: "/healthz".into(),
                host: "www.foobar.com".into(),
                status: 200..=399,
                body: None,
                tls: Some(tls),
            }),
            interval_ms: 50,
            timeout_ms: 2_000,
            rise: 1,
            fall: 2,
        },
    };
    // A client that trusts our CA, with a certificate of another.
    let stranger = TlsFiles { ca: ours.files("lb1").ca, ..foreign.files("lb1") };
    let (health, mut changes) =
        Health::start(&[service("ours", ours.files("lb1")), service("stranger", stranger)], Orders::new());
    let up = changes.wait_for(|state| state.members("ours").len() == 1);
    assert!(tokio::time::timeout(process_support::DEADLINE, up).await.is_ok(), "{:?}", health.snapshot());
    let answered = |backend: &BackendHealth| backend.failure.as_ref().is_some_and(|why| why.contains("400"));
    eventually("a refusal", || async { answered(&health.snapshot().services[1].backends[0]).then_some(()) }).await;
    assert!(health.members("stranger").is_empty());
    supervisor.stop().await;
}
