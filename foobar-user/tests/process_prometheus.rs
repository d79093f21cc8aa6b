//! Real Prometheus: starts from its plan, keeps a good configuration when rules are bad.

mod free_address;
mod process_support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use foobar_user::plan::{ProcessKind, ProcessPlan, PrometheusPlan, PrometheusTarget, Role};
use foobar_user::process::Supervisor;
use free_address::free_address;
use process_support::{Place, eventually, until_running};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

fn process(listen: SocketAddr, rules: PathBuf) -> ProcessPlan {
    let targets = vec![PrometheusTarget { server: "monitor".into(), role: Role::Monitor, address: listen }];
    ProcessPlan {
        name: "prometheus".into(),
        kind: ProcessKind::Prometheus(PrometheusPlan { listen, targets, rules: Some(rules) }),
        user: None,
        stop_signal: None,
        stop_timeout_ms: 10_000,
        after: Vec::new(),
        ready: None,
        limits: foobar_user::plan::Limits::default(),
    }
}

#[tokio::test]
async fn prometheus_scrapes_its_targets_and_survives_bad_rules() {
    let Some(place) = Place::new() else { return };
    if !Path::new("/usr/bin/prometheus").exists() {
        eprintln!("SKIPPED: needs prometheus");
        return;
    }
    let port = free_address();
    let good = "groups:\n- name: a\n  rules:\n  - alert: Missing\n    expr: up == 0\n";
    let plan = process(port, place.write("site/rules.yml", good));
    let supervisor = Supervisor::start(vec![plan.clone()], place.folders("monitor")).expect("starts");
    let up = "/api/v1/query?query=up%7Bjob%3D%22foobar%22%2Cserver%3D%22monitor%22%2Crole%3D%22monitor%22%7D";
    eventually("the target is up", || async {
        get(port, up).await.filter(|text| text.contains("\"value\":[") && text.contains(",\"1\"]"))
    })
    .await;
    assert!(get(port, "/api/v1/rules").await.is_some_and(|text| text.contains("Missing")));
    let pid = until_running(&supervisor, "prometheus").await.pid;

    place.write("site/rules.yml", "groups: 7\n");
    let error = supervisor.apply(vec![plan.clone()]).await.expect_err("bad rules");
    assert!(format!("{error:#}").contains("Prometheus is refused"), "{error:#}");
    place.write("site/rules.yml", &good.replace("Missing", "Absent"));
    supervisor.apply(vec![plan]).await.expect("good rules");
    eventually("the new rule", || async { get(port, "/api/v1/rules").await.filter(|text| text.contains("Absent")) })
        .await;
    assert_eq!(until_running(&supervisor, "prometheus").await.pid, pid);
    supervisor.stop().await;
    assert!(place.population().is_empty());
}
