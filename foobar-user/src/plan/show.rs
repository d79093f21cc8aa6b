//! A plan for people: aligned tables, one line a rule, service, process.

use std::fmt::{Display, Write};
use std::ops::RangeInclusive;

use foobar_common::rules::{Action, Protocol};

use super::{CheckKind, Origin, Plan, ProcessKind, Scope, Select, ServicePlan, Transport};

/// Widest cell of a table's last but one columns; longer ones push their line.
const CELL_MAX: usize = 44;

/// The plan as text, with a line break at its end.
#[must_use]
pub fn show(plan: &Plan) -> String {
    let mut out = String::new();
    let heads = [
        ("server", format!("{} ({} of {})", plan.server, plan.role.as_str(), plan.domain)),
        ("addresses", list(&plan.addresses)),
        ("interfaces", list(&plan.interfaces)),
        ("VIPs", list(&plan.vips)),
        ("metrics", list(&plan.metrics)),
    ];
    for (head, value) in heads.iter().filter(|(_, value)| !value.is_empty()) {
        line(&mut out, format_args!("{head:<12}{value}"));
    }
    table(&mut out, &["rule", "action", "protocol", "from", "to", "because of"], &rules(plan));
    line(
        &mut out,
        format_args!("{:>2}  {}", "", "what no rule allows is denied, but for replies to this host's own connections"),
    );
    table(&mut out, &["service", "reached at", "hook", "select", "check", "backends"], &services(plan));
    table(&mut out, &["edge", "listens on", "redirects from", "upstream", "mTLS to", "certificate"], &edge(plan));
    table(&mut out, &["process", "kind", "user", "what"], &processes(plan));
    out
}

fn line(out: &mut String, text: impl Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

fn list<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A list, or a word for the empty one.
fn list_or<T: Display>(items: &[T], empty: &str) -> String {
    if items.is_empty() { empty.to_owned() } else { list(items) }
}

fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head.chars().count()]).max().unwrap_or(0).min(CELL_MAX)
        })
        .collect();
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    line(out, "");
    line(out, format_args!("{:>2}  {}", "", row(&mut head.iter().copied())));
    for (index, cells) in rows.iter().enumerate() {
        line(out, format_args!("{:>2}  {}", index + 1, row(&mut cells.iter().map(String::as_str))));
    }
}

fn rules(plan: &Plan) -> Vec<Vec<String>> {
    let row = |planned: &super::PlannedRule| {
        let rule = &planned.rule;
        vec![
            rule.name.clone(),
            match rule.action {
                Action::Allow => "allow".to_owned(),
                _ => "deny".to_owned(),
            },
            protocol(&rule.protocol),
            list_or(&rule.sources.prefixes, "any"),
            list_or(&rule.destinations.prefixes, "any"),
            match &planned.origin {
                Origin::Line(line) => format!("line {line}"),
                Origin::Derived(from) => from.clone(),
            },
        ]
    };
    plan.rules.iter().map(row).collect()
}

fn protocol(protocol: &Protocol) -> String {
    let port = |range: &RangeInclusive<u16>| {
        if range.start() == range.end() {
            range.start().to_string()
        } else {
            format!("{}-{}", range.start(), range.end())
        }
    };
    let ports = |name: &str, ranges: &[RangeInclusive<u16>]| {
        format!("{name} {}", ranges.iter().map(port).collect::<Vec<_>>().join(",")).trim_end().to_owned()
    };
    match protocol {
        Protocol::Any => "any".to_owned(),
        Protocol::Tcp(ranges) => ports("tcp", ranges),
        Protocol::Udp(ranges) => ports("udp", ranges),
        Protocol::Icmp(types) => format!("icmp {}", list(types).replace(' ', "")).trim_end().to_owned(),
        Protocol::Icmpv6(types) => format!("icmpv6 {}", list(types).replace(' ', "")).trim_end().to_owned(),
        Protocol::Number(number) => format!("protocol {number}"),
    }
}

fn services(plan: &Plan) -> Vec<Vec<String>> {
    let row = |service: &ServicePlan| {
        let transport = match service.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        let backend = |backend: &super::BackendPlan| format!("{} ({})", backend.server, list(&backend.addresses));
        vec![
            service.name.clone(),
            format!("{transport} {}", list(&service.vips)),
            match service.scope {
                Scope::Nat => "XDP and connect()".to_owned(),
                Scope::Local => "connect()".to_owned(),
            },
            match service.select {
                Select::Any => "any".to_owned(),
                Select::Primary => "primary".to_owned(),
                Select::Replica => "replica".to_owned(),
            },
            check(service),
            service.backends.iter().map(backend).collect::<Vec<_>>().join(", "),
        ]
    };
    plan.services.iter().map(row).collect()
}

fn check(service: &ServicePlan) -> String {
    let check = &service.check;
    let kind = match &check.kind {
        CheckKind::Tcp => "tcp".to_owned(),
        CheckKind::Http { path, tls: Some(_), .. } => format!("https (mTLS) {path}"),
        CheckKind::Http { path, tls: None, .. } => format!("http {path}"),
        CheckKind::Postgres { .. } => "postgres".to_owned(),
    };
    format!("{kind}, every {} ms", check.interval_ms)
}

fn edge(plan: &Plan) -> Vec<Vec<String>> {
    let row = |edge: &super::EdgeService| {
        vec![
            edge.name.clone(),
            list(&edge.listen),
            list_or(&edge.redirect, "-"),
            edge.upstream.to_string(),
            if edge.upstream_tls.is_some() { list(&edge.upstream_servers) } else { "- (plain text)".to_owned() },
            edge.certificate.display().to_string(),
        ]
    };
    plan.edge.iter().map(row).collect()
}

fn processes(plan: &Plan) -> Vec<Vec<String>> {
    let row = |process: &super::ProcessPlan| {
        let (kind, what) = match &process.kind {
            ProcessKind::Command { command, .. } => ("command", command.join(" ")),
            ProcessKind::Nginx(nginx) => {
                let listeners = nginx
                    .listeners
                    .iter()
                    .map(|listener| format!("{}{}", listener.address, if listener.tls { " (mTLS)" } else { "" }));
                ("nginx", listeners.collect::<Vec<_>>().join(", "))
            }
            ProcessKind::Postgres(postgres) => {
                let role = if postgres.primary == postgres.server { "first primary" } else { "first a replica" };
                ("postgres", format!("port {}, {role}, database {}", postgres.port, postgres.database))
            }
            ProcessKind::Prometheus(prometheus) => {
                ("prometheus", format!("{}, {} targets", prometheus.listen, prometheus.targets.len()))
            }
        };
        vec![process.name.clone(), kind.to_owned(), process.user.clone().unwrap_or_else(|| "-".to_owned()), what]
    };
    plan.processes.iter().map(row).collect()
}
