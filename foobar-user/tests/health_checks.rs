//! Health checks against servers in this process: verdicts, time-outs, mTLS, changes of what is checked.

mod pki_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foobar_user::health::{Health, HealthState, Orders, Status};
use foobar_user::plan::{
    BackendPlan, Balance, Check, CheckKind, HttpCheck, Scope, Select, ServicePlan, TlsFiles, Transport,
};
use pki_support::Pki;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

const DEADLINE: Duration = Duration::from_secs(20);

fn service(kind: CheckKind, backends: &[(&str, SocketAddr)]) -> ServicePlan {
    let backend = |(server, address): &(&str, SocketAddr)| BackendPlan {
        server: (*server).into(),
        addresses: vec![*address],
        weight: 1,
        fallback: false,
    };
    ServicePlan {
        name: "s".into(),
        protocol: Transport::Tcp,
        vips: Vec::new(),
        scope: Scope::Local,
        sources: Vec::new(),
        balance: Balance::default(),
        select: Select::Any,
        backends: backends.iter().map(backend).collect(),
        check: Check { kind, interval_ms: 250, timeout_ms: 250, rise: 2, fall: 2 },
    }
}

fn http(tls: Option<TlsFiles>) -> CheckKind {
    let (path, host) = ("/healthz".into(), "www.foobar.com".into());
    CheckKind::Http(HttpCheck { path, host, status: 200..=399, body: None, tls })
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// Answers every request on a stream with the status that `code` holds; 0 means never.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, code: &AtomicU16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    assert!(head.starts_with(b"GET /healthz HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    match code.load(Ordering::Relaxed) {
        0 => std::future::pending().await,
        code => {
            let text = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

async fn until(changes: &mut watch::Receiver<HealthState>, members: &[&str]) -> Duration {
    let begun = Instant::now();
    let wanted = |state: &HealthState| {
        state.members("s").iter().map(|member| member.server.as_str()).eq(members.iter().copied())
    };
    let seen = tokio::time::timeout(DEADLINE, changes.wait_for(wanted)).await.is_ok_and(|seen| seen.is_ok());
    assert!(seen, "members never were {members:?}: {:?}", *changes.borrow());
    begun.elapsed()
}

async fn http_server(code: Arc<AtomicU16>) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let code = Arc::clone(&code);
            tokio::spawn(async move { answer(stream, &code).await });
        }
    });
    address
}

#[tokio::test]
async fn a_backend_that_answers_wrongly_or_not_at_all_is_out_within_a_second_and_comes_back() {
    let code = Arc::new(AtomicU16::new(200));
    let other = http_server(Arc::new(AtomicU16::new(302))).await;
    let services = [service(http(None), &[("web1", http_server(Arc::clone(&code)).await), ("web2", other)])];
    let (health, mut changes) = Health::start(&services, Orders::new());
    until(&mut changes, &["web1", "web2"]).await;
    for bad in [503, 0] {
        code.store(bad, Ordering::Relaxed);
        let out = until(&mut changes, &["web2"]).await;
        assert!(out < Duration::from_secs(1), "{out:?} with {bad}");
        code.store(200, Ordering::Relaxed);
        until(&mut changes, &["web1", "web2"]).await;
    }
    let state = health.snapshot();
    let checks = state.services[0].backends[0].checks;
    assert!(checks.success >= 3 && checks.failure >= 2 && checks.timeout >= 2, "{checks:?}");
    let quiet = state.services[0].backends[1].checks;
    assert_eq!((quiet.failure, quiet.timeout), (0, 0));
}

/// Answers every request with a status and a body.
async fn speaking_server(code: Arc<AtomicU16>, body: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            assert!(String::from_utf8_lossy(&request[..length]).contains("host: other.example\r\n"));
            let (code, length) = (code.load(Ordering::Relaxed), body.len());
            let text = format!("HTTP/1.1 {code} X\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn status_body_and_host_are_what_the_site_says() {
    let code = Arc::new(AtomicU16::new(201));
    let check = |body: &str| {
        let (path, host, body) = ("/healthz".into(), "other.example".into(), Some(body.to_owned()));
        CheckKind::Http(HttpCheck { path, host, status: 200..=204, body, tls: None })
    };
    let fit = speaking_server(Arc::clone(&code), "all is well").await;
    let unfit = speaking_server(Arc::clone(&code), "all is lost").await;
    let services = [service(check("is well"), &[("web1", fit), ("web2", unfit)])];
    let (health, mut changes) = Health::start(&services, Orders::new());
    until(&mut changes, &["web1"]).await;
    let known = changes.wait_for(|state| state.services[0].backends[1].status == Status::Down);
    assert!(tokio::time::timeout(DEADLINE, known).await.is_ok_and(|seen| seen.is_ok()));
    let failure = health.snapshot().services[0].backends[1].failure.clone().unwrap_or_default();
    assert!(failure.contains("lacks `is well`"), "{failure}");
    code.store(302, Ordering::Relaxed);
    until(&mut changes, &[]).await;
}

#[tokio::test]
async fn a_script_decides_by_its_exit_code_and_knows_whom_it_asks() {
    let address: SocketAddr = ([127, 0, 0, 1], 4711).into();
    let script = |text: &str| CheckKind::Script(vec!["/bin/sh".into(), "-c".into(), text.into()]);
    let text = "[ $FOOBAR_SERVER = web1 ] && [ $FOOBAR_ADDRESS:$FOOBAR_PORT = 127.0.0.1:4711 ] || { echo not me >&2; exit 3; }";
    let services = [service(script(text), &[("web1", address), ("web2", address)])];
    let (health, mut changes) = Health::start(&services, Orders::new());
    until(&mut changes, &["web1"]).await;
    let known = changes.wait_for(|state| state.services[0].backends[1].status == Status::Down);
    assert!(tokio::time::timeout(DEADLINE, known).await.is_ok_and(|seen| seen.is_ok()));
    let failure = health.snapshot().services[0].backends[1].failure.clone().unwrap_or_default();
    assert!(failure.contains("exit status: 3") && failure.ends_with("not me"), "{failure}");

    let hangs = [service(script("exec sleep 60"), &[("web1", address)])];
    let (health, mut changes) = Health::start(&hangs, Orders::new());
    let known = changes.wait_for(|state| state.services[0].backends[0].checks.timeout > 0);
    assert!(tokio::time::timeout(DEADLINE, known).await.is_ok_and(|seen| seen.is_ok()));
    assert_eq!(health.snapshot().services[0].backends[0].status, Status::Down);
}

#[tokio::test]
async fn a_port_that_closes_is_out_and_one_nobody_listens_on_is_never_in() {
    let (open, address) = listener().await;
    let (closed, nobody) = listener().await;
    drop(closed);
    let services = [service(CheckKind::Tcp, &[("a", address), ("b", nobody)])];
    let (health, mut changes) = Health::start(&services, Orders::new());
    until(&mut changes, &["a"]).await;
    drop(open);
    let out = until(&mut changes, &[]).await;
    assert!(out < Duration::from_secs(1), "{out:?}");
    let state = health.snapshot();
    let failure = state.services[0].backends[0].failure.as_deref().unwrap_or_default();
    assert!(failure.contains("refused"), "{failure}");
    let known = changes.wait_for(|state| state.services[0].backends[1].status == Status::Down);
    assert!(tokio::time::timeout(DEADLINE, known).await.is_ok());
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_of_unchanged_backends() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (a_listener, a) = listener().await;
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while a_listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let (_b_listener, b) = listener().await;
    let mut slow = service(CheckKind::Tcp, &[("a", a)]);
    slow.check.interval_ms = 3_600_000;
    let (mut health, mut changes) = Health::start(&[slow.clone()], Orders::new());
    until(&mut changes, &["a"]).await;
    slow.backends.push(BackendPlan { server: "b".into(), addresses: vec![b], weight: 1, fallback: false });
    health.apply(&[slow.clone()]);
    assert_eq!(health.members("s").len(), 1, "a stays a member while b is unknown");
    until(&mut changes, &["a", "b"]).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "a was not asked anew");
    slow.backends.remove(0);
    health.apply(&[slow]);
    until(&mut changes, &["b"]).await;
    health.apply(&[]);
    until(&mut changes, &[]).await;
}

/// An HTTPS server with this server's certificate that requires one of the CA from its clients.
async fn serve(pki: &Pki, server: &str) -> SocketAddr {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let files = pki.files(server);
    let read = |path| CertificateDer::from_pem_file(path).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read(&files.ca)).expect("a CA");
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![read(&files.certificate)], PrivateKeyDer::from_pem_file(&files.key).expect("a key"))
        .expect("a pair");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, &AtomicU16::new(200)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn mtls_checks_trust_the_right_name_of_the_right_ca() {
    let ours = Pki::new(&["lb1", "web1", "web2"]);
    let foreign = Pki::new(&["web3"]);
    let backends = [
        ("web1", serve(&ours, "web1").await),
        ("web2", serve(&ours, "web1").await),
        ("web3", serve(&foreign, "web3").await),
    ];
    let mut plan = service(http(Some(ours.files("lb1"))), &backends);
    plan.check.timeout_ms = 5_000;
    let (health, mut changes) = Health::start(&[plan], Orders::new());
    let judged =
        changes.wait_for(|state| state.services[0].backends.iter().all(|backend| backend.status != Status::Unknown));
    assert!(tokio::time::timeout(DEADLINE, judged).await.is_ok());
    let state = health.snapshot();
    let servers: Vec<_> = state.members("s").into_iter().map(|member| member.server).collect();
    assert_eq!(servers, ["web1"], "{state:?}");
}
