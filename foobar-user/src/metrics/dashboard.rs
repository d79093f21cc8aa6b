//! The queries of `deploy/`: PromQL out of a Grafana dashboard and out of a rules file, for tests that ask a
//! Prometheus, and for checking that every metric they name exists.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

/// What Grafana puts in place of its own variables, longest first.
const VARIABLES: &[(&str, &str)] = &[
    ("$__rate_interval", "1m"),
    ("${__rate_interval}", "1m"),
    ("$__interval", "15s"),
    ("${__interval}", "15s"),
    ("$__range", "1h"),
    ("${__range}", "1h"),
];

/// Every query of a dashboard, with its variables replaced: a test can send them to a Prometheus as they are.
///
/// The dashboard's own variables (`$server`, …) become `.*`, which is what "All" means.
///
/// # Errors
/// When the text is no JSON or has no panels.
pub fn dashboard_queries(json: &str) -> anyhow::Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(json).context("the dashboard is no JSON")?;
    let mut own: Vec<&str> = dashboard["templating"]["list"]
        .as_array()
        .map(|variables| variables.iter().filter_map(|variable| variable["name"].as_str()).collect())
        .unwrap_or_default();
    own.sort_by_key(|name| std::cmp::Reverse(name.len()));
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    anyhow::ensure!(!queries.is_empty(), "the dashboard has no query");
    Ok(queries.iter().map(|query| replace(query, &own)).collect())
}

fn collect(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            queries.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, queries));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, queries)),
        _ => {}
    }
}

fn replace(query: &str, own: &[&str]) -> String {
    let mut query = query.to_owned();
    for (variable, value) in VARIABLES {
        query = query.replace(variable, value);
    }
    for name in own {
        query = query.replace(&format!("${{{name}}}"), ".*").replace(&format!("${name}"), ".*");
    }
    query
}

/// Names of foobar's metrics that a text uses.
pub fn metric_names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("foobar_"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_in_nested_panels() {
        let json = r#"{"templating": {"list": [{"name": "server"}, {"name": "serverrole"}]},
            "panels": [{"panels": [{"targets": [{"expr": "rate(foobar_x_total{server=~\"$server\",r=~\"$serverrole\"}[$__rate_interval])"}]}]},
                       {"targets": [{"expr": "up{a=~\"${server}\"}"}]}]}"#;
        let expected = [r#"rate(foobar_x_total{server=~".*",r=~".*"}[1m])"#, r#"up{a=~".*"}"#];
        assert_eq!(dashboard_queries(json).unwrap(), expected);
        assert!(dashboard_queries("{}").is_err());
    }

    #[test]
    fn names_are_found() {
        let names = metric_names("sum by (server) (rate(foobar_a_total{x=\"y\"}[1m])) / foobar_b and up");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["foobar_a_total", "foobar_b"]);
    }
}
