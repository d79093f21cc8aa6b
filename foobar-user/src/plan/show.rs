//! A plan for people: aligned tables, one line a rule, service, process.

pub(crate) mod rules;

use std::fmt::{Display, Write};

use super::{CheckKind, Plan, ProcessKind, Scope, Select, ServicePlan, SetPlan, Transport};

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
        ("seen as", list(&plan.sources)),
        ("metrics", list(&plan.metrics)),
        ("handshakes", handshakes(plan)),
        ("sources", if plan.reverse_path { "dropped when not routed back".to_owned() } else { String::new() }),
    ];
    for (head, value) in heads.iter().filter(|(_, value)| !value.is_empty()) {
        line(&mut out, format_args!("{head:<12}{value}"));
    }
    table(&mut out, &rules::HEAD, &rules::rows(plan));
    line(
        &mut out,
        format_args!("{:>2}  {}", "", "what no rule allows is denied, but for replies to this host's own connections"),
    );
    table(&mut out, &["set", "prefixes here", "and those in"], &sets(plan));
    table(&mut out, &["service", "reached at", "hook", "select", "check", "backends"], &services(plan));
    table(&mut out, &["edge", "listens on", "redirects from", "upstream", "mTLS to", "certificate"], &edge(plan));
    table(&mut out, &["process", "kind", "user", "after", "limits", "what"], &processes(plan));
    out
}

fn handshakes(plan: &Plan) -> String {
    match plan.syn_cookies {
        0 => "left to the kernel, its own SYN cookies included".to_owned(),
        half_open => format!("SYNs answered with cookies above {half_open} half-open connections of a listener"),
    }
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

/// Rows under a head; columns that are empty in every row are left out.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let filled: Vec<bool> = (0..head.len()).map(|column| rows.iter().any(|row| !row[column].is_empty())).collect();
    let widths: Vec<usize> = head
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([head.chars().count()]).max().unwrap_or(0).min(CELL_MAX)
        })
        .collect();
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(&widths).zip(&filled).filter(|(_, filled)| **filled);
        let padded: Vec<String> = cells.map(|((cell, width), _)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    line(out, "");
    line(out, format_args!("{:>2}  {}", "", row(&mut head.iter().copied())));
    for (index, cells) in rows.iter().enumerate() {
        line(out, format_args!("{:>2}  {}", index + 1, row(&mut cells.iter().map(String::as_str))));
    }
}

fn sets(plan: &Plan) -> Vec<Vec<String>> {
    let row = |set: &SetPlan| {
        let file = set.file.as_ref().map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        vec![set.name.clone(), set.prefixes.len().to_string(), file]
    };
    plan.sets.iter().map(row).collect()
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
                Scope::Nat if !service.sources.is_empty() => {
                    format!("XDP (from {}) and connect()", list(&service.sources))
                }
                Scope::Nat => "XDP and connect()".to_owned(),
                Scope::Direct => "XDP (direct) and connect()".to_owned(),
                Scope::Tunnel => "XDP (tunnel) and connect()".to_owned(),
                Scope::Local => "connect()".to_owned(),
            },
            match service.select {
                Select::Any => "any".to_owned(),
                Select::Primary => "primary".to_owned(),
                Select::Replica(_) => "replica".to_owned(),
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
        CheckKind::Tls(_) => "tls (mTLS)".to_owned(),
        CheckKind::Http(http) if http.tls.is_some() => format!("https (mTLS) {}", http.path),
        CheckKind::Http(http) => format!("http {}", http.path),
        CheckKind::Script(command) => format!("script {}", command.first().map_or("", String::as_str)),
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
                let failover = postgres.failover.as_ref();
                let follows = failover.and_then(|failover| failover.follows.get(&postgres.server));
                let follows = follows.map_or_else(String::new, |other| format!(", follows {other}"));
                ("postgres", format!("port {}, {role}{follows}, database {}", postgres.port, postgres.database))
            }
            ProcessKind::Prometheus(prometheus) => {
                ("prometheus", format!("{}, {} targets", prometheus.listen, prometheus.targets.len()))
            }
        };
        let user = process.user.clone().unwrap_or_else(|| "-".to_owned());
        let limits = process.limits.to_string();
        vec![process.name.clone(), kind.to_owned(), user, process.after.join(", "), limits, what]
    };
    plan.processes.iter().map(row).collect()
}
