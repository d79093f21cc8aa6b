//! What `deploy/` tells Prometheus and Grafana: promtool accepts it, and every metric in it exists.

mod metrics_support;

use std::collections::BTreeSet;
use std::process::Command;

use foobar_user::metrics::dashboard::metric_names;
use foobar_user::metrics::{dashboard_queries, names};
use metrics_support::{assert_clean, promtool_present, repository};

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

fn assert_known(path: &str, used: &BTreeSet<String>) {
    let known: BTreeSet<_> = names::series().collect();
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{path} uses metrics that no agent has: {unknown:?}");
}

fn queries() -> Vec<String> {
    dashboard_queries(&read("deploy/grafana/foobar.json")).unwrap()
}

#[test]
fn the_rules_pass_promtool() {
    if !promtool_present() {
        return;
    }
    let folder = repository("deploy/prometheus");
    for arguments in [["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(&folder).output().unwrap();
        assert_clean(&arguments.join(" "), &output);
    }
}

#[test]
fn every_alert_fires_and_is_silent_in_a_test_and_says_what_to_do() {
    let rules = read("deploy/prometheus/rules.yml");
    let tests = read("deploy/prometheus/rules.test.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 14, "{alerts:?}");
    for alert in &alerts {
        for case in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {case}\n")), "no test in which {alert} {case}");
        }
    }
    for field in ["severity: ", "summary: ", "description: "] {
        assert_eq!(rules.matches(field).count(), alerts.len(), "each alert has one {field:?}");
    }
}

#[test]
fn the_rules_use_metrics_that_exist() {
    for path in ["deploy/prometheus/rules.yml", "deploy/prometheus/rules.test.yml"] {
        assert_known(path, &metric_names(&read(path)));
    }
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    let used = queries().iter().flat_map(|query| metric_names(query)).collect();
    assert_known("the dashboard", &used);
}

#[test]
fn every_query_of_the_dashboard_parses() {
    if !promtool_present() {
        return;
    }
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (number, query) in queries().iter().enumerate() {
        assert!(!query.contains('$'), "a variable is left: {query}");
        let quoted = query.replace('\'', "''");
        rules.push_str(&format!("      - record: dashboard:query_{number}\n        expr: '{quoted}'\n"));
    }
    let file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    std::fs::write(file.path(), &rules).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(file.path()).output().unwrap();
    assert_clean(&rules, &output);
}

#[test]
fn the_dashboard_shows_every_part_of_the_site() {
    let dashboard: serde_json::Value = serde_json::from_str(&read("deploy/grafana/foobar.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let of = |kind: &str| -> Vec<&str> {
        panels.iter().filter(|panel| panel["type"] == kind).filter_map(|panel| panel["title"].as_str()).collect()
    };
    assert_eq!(of("row"), ["Site", "Balancing", "Firewall", "Flows", "Web", "Database", "Processes", "Hosts"]);
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "an id is there twice: {panel}");
        let (x, width) = (panel["gridPos"]["x"].as_u64().unwrap(), panel["gridPos"]["w"].as_u64().unwrap());
        assert!(x + width <= 24, "too wide: {panel}");
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        }
    }
}
