//! A real Prometheus scrapes the endpoint: it accepts every line, and answers every query of the dashboard.

mod free_address;
mod metrics_support;

use std::process::{Command, Stdio};
use std::sync::Arc;

use foobar_user::metrics::{Listeners, Metrics, dashboard_queries};
use free_address::free_address;
use metrics_support::{Process, eventually, full_sources, repository};
use nix::sys::signal::Signal;

/// The result of an instant query, or `None` while Prometheus does not answer.
fn query(address: &str, query: &str) -> Option<String> {
    let arguments = ["query", "instant", &format!("http://{address}"), query];
    let output = Command::new("promtool").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_takes_it_all() {
    let present = Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success());
    if !present {
        assert!(std::env::var_os("CI").is_none(), "prometheus is missing: apt-get install prometheus");
        return eprintln!("SKIPPED: prometheus is missing: apt-get install prometheus");
    }
    let listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let target = listeners.addresses()[0];
    let serving = tokio::spawn(listeners.serve(Arc::new(Metrics::new(full_sources())).renderer()));

    let folder = tempfile::tempdir().unwrap();
    let configuration = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n  - job_name: foobar\n    \
         static_configs:\n      - {{targets: ['{target}'], labels: {{server: web1, role: web}}}}\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
    let free = free_address().to_string();
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={free}")).stdin(Stdio::null()).stderr(Stdio::null());
    let prometheus = Process { child: command.spawn().unwrap(), stop: Signal::SIGTERM };

    let up = async || query(&free, "up == 1").filter(|answer| answer.contains("server=\"web1\""));
    eventually("the target is up", up).await;
    let text = Metrics::new(full_sources()).render().await.unwrap();
    let own = text.lines().filter(|line| !line.starts_with('#')).count();
    let stored = query(&free, "scrape_samples_scraped{job=\"foobar\"}").unwrap();
    assert!(stored.contains(&format!("=> {own} @")), "{own} series were told, Prometheus has {stored}");
    let drops = query(&free, "foobar_verdict_packets_total{reason=\"default_deny\"}").unwrap();
    assert!(drops.contains("=> 7 @"), "{drops}");

    let dashboard = std::fs::read_to_string(repository("deploy/grafana/foobar.json")).unwrap();
    for expression in dashboard_queries(&dashboard).unwrap() {
        assert!(query(&free, &expression).is_some(), "Prometheus refuses {expression}");
    }
    drop(prometheus);
    serving.abort();
}
