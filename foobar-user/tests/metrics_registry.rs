//! The text of a whole agent: right values, known names, bounded series, no fault found by promtool.

mod metrics_support;

use std::collections::BTreeSet;
use std::sync::Arc;

use foobar_user::metrics::family::Kind;
use foobar_user::metrics::{Metrics, Sources, names, postgres, text};
use metrics_support::{assert_clean, full_sources, promtool, promtool_present, value};
use tokio::io::AsyncWriteExt;

const EDGE: &str = "# HELP foobar_edge_requests Requests answered.\n# TYPE foobar_edge_requests counter\n\
    foobar_edge_requests_total{service=\"www\",code=\"200\"} 5\n\
    # HELP foobar_edge_request_duration_seconds Time.\n# TYPE foobar_edge_request_duration_seconds histogram\n\
    foobar_edge_request_duration_seconds_sum{service=\"www\"} 0.5\n\
    foobar_edge_request_duration_seconds_count{service=\"www\"} 5\n\
    foobar_edge_request_duration_seconds_bucket{le=\"0.1\",service=\"www\"} 4\n\
    foobar_edge_request_duration_seconds_bucket{le=\"+Inf\",service=\"www\"} 5\n\
    foobar_verdict_packets_total{verdict=\"drop\",reason=\"forged\"} 1\n# EOF\n";

#[tokio::test]
async fn values_are_the_sources_own_and_same_names_are_summed() {
    let text = Metrics::new(full_sources()).render().await.unwrap();
    let expected = [
        ("foobar_verdict_packets_total{verdict=\"drop\",reason=\"default_deny\"}", 7.0),
        ("foobar_rule_packets_total{rule=\"metrics\"}", 3.0),
        ("foobar_rule_bytes_total{rule=\"metrics\"}", 180.0),
        ("foobar_tunnel_packets_total{way=\"sent\"}", 8.0),
        ("foobar_tunnel_bytes_total{way=\"sent\"}", 9.0),
        ("foobar_backend_up{service=\"www\",backend=\"web1\"}", 0.0),
        ("foobar_backend_flows{service=\"www\",backend=\"web1\"}", 7.0),
        ("foobar_backend_member{service=\"www\",backend=\"web1\"}", 1.0),
        ("foobar_backend_checks_total{service=\"www\",backend=\"web1\",result=\"failure\"}", 11.0),
        ("foobar_flows{table=\"established\",family=\"ipv4\"}", 10.0),
        ("foobar_flows{table=\"datagrams\",family=\"ipv6\"}", 3.0),
        ("foobar_flows_limit{table=\"datagrams\",family=\"ipv4\"}", 50.0),
        ("foobar_flows_ended_total{table=\"established\"}", 7.0),
        ("foobar_syn_cookies", 1.0),
        ("foobar_syn_floods_total", 3.0),
        ("foobar_events_lost_total", 5.0),
        ("foobar_xdp_mode{interface=\"eth0\",mode=\"native\"}", 1.0),
        ("foobar_xdp_mode{interface=\"eth0\",mode=\"generic\"}", 0.0),
        ("foobar_xdp_mode{interface=\"eth\\\"1\",mode=\"generic\"}", 1.0),
        ("foobar_generation", 12.0),
        ("foobar_reloads_total{result=\"refused\"}", 1.0),
        ("foobar_reload_last_successful", 0.0),
        ("foobar_process_cpu_seconds_total{process=\"nginx\"}", 1.5),
        ("foobar_certificate_expiry_timestamp_seconds{certificate=\"www\"}", 0.0),
        ("foobar_metrics_source_up{source=\"datapath\"}", 1.0),
        (concat!("foobar_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ];
    for (series, number) in expected {
        assert_eq!(value(&text, series), Some(number), "{series} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn every_family_of_the_agent_is_told_and_no_other() {
    let text = Metrics::new(full_sources()).render().await.unwrap();
    let told: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // The families of other processes need these: they have tests of their own.
    let elsewhere = ["foobar_nginx_", "foobar_postgres_", "foobar_edge_", "foobar_host_network_"];
    let here = |name: &&str| !elsewhere.iter().any(|start| name.starts_with(start));
    let expected: BTreeSet<_> = names::ALL.iter().map(|family| family.name).filter(here).collect();
    assert_eq!(told.into_iter().filter(here).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn names_follow_the_conventions() {
    let mut seen = BTreeSet::new();
    for family in names::ALL {
        assert!(seen.insert(family.name), "{} is there twice", family.name);
        assert!(family.name.starts_with("foobar_") && !family.name.ends_with("_total"), "{}", family.name);
        assert!(!family.help.is_empty() && !family.help.ends_with('.'), "{}", family.name);
        assert!(family.kind != Kind::Info || !family.name.ends_with("_info"), "{}", family.name);
    }
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    if !promtool_present() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("edge.sock");
    let edge = tokio::net::UnixListener::bind(&socket).unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = edge.accept().await.unwrap();
        stream.write_all(EDGE.as_bytes()).await.unwrap();
    });
    let sources = Sources { edge: Some(socket), ..full_sources() };
    let open_metrics = Metrics::new(sources).render().await.unwrap();
    serving.await.unwrap();
    assert_eq!(value(&open_metrics, "foobar_edge_requests_total{service=\"www\",code=\"200\"}"), Some(5.0));
    assert!(!open_metrics.contains("forged"), "the edge spoke for the firewall");
    assert_eq!(open_metrics.matches("# EOF").count(), 1);
    let prometheus = text::to_prometheus(&open_metrics);
    assert_clean(&prometheus, &promtool(&["check", "metrics"], &prometheus));
}

#[tokio::test]
async fn a_failing_source_takes_nothing_else_with_it() {
    let absent = std::path::PathBuf::from("/nonexistent/socket");
    let sources = Sources {
        datapath: Some(Arc::new(|| anyhow::bail!("the map is gone"))),
        health: Some(Arc::new(|| panic!("a fault in a source"))),
        nginx: Some(absent.clone()),
        postgres: Some(postgres::Target { socket_dir: absent.clone(), port: 5432 }),
        edge: Some(absent),
        ..full_sources()
    };
    let text = Metrics::new(sources).render().await.unwrap();
    let down = ["datapath", "health", "nginx", "postgres", "edge"];
    for source in down {
        assert_eq!(value(&text, &format!("foobar_metrics_source_up{{source=\"{source}\"}}")), Some(0.0), "{text}");
    }
    assert_eq!(value(&text, "foobar_nginx_up"), Some(0.0));
    assert_eq!(value(&text, "foobar_postgres_up"), Some(0.0));
    assert_eq!(value(&text, "foobar_process_up{process=\"nginx\"}"), Some(1.0));
}

#[tokio::test]
async fn a_hanging_source_is_late_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nginx.sock");
    let _accepts_and_says_nothing = tokio::net::UnixListener::bind(&socket).unwrap();
    let sources = Sources { nginx: Some(socket), ..full_sources() };
    let start = std::time::Instant::now();
    let text = Metrics::new(sources).render().await.unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(value(&text, "foobar_nginx_up"), Some(0.0));
    assert_eq!(value(&text, "foobar_generation"), Some(12.0));
}

#[tokio::test]
async fn series_do_not_grow_with_scrapes() {
    let metrics = Metrics::new(full_sources());
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    let first = series(&metrics.render().await.unwrap());
    for _ in 0..100 {
        assert_eq!(series(&metrics.render().await.unwrap()), first);
    }
    metrics.replace(Sources::default()).await;
    assert_eq!(series(&metrics.render().await.unwrap()), 1, "only the version is left");
}
