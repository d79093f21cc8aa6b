//! The text of the bed's `site.toml`.

use std::path::Path;

use crate::host::{DOMAIN, VIP, VIP6, servers};

/// Port of every agent's metrics.
pub const METRICS_PORT: u16 = 9900;
/// Port of Prometheus.
pub const PROMETHEUS_PORT: u16 = 9090;

/// The site file of a site in `folder`.
pub(super) fn text(folder: &Path, rules: bool) -> String {
    let rules = if rules { "rules = \"rules.yml\"\n" } else { "" };
    [
        format!("[site]\ndomain = \"{DOMAIN}\"\nadmin = [\"10.0.1.41/32\", \"fd00:1::41/128\"]\npki = \"pki\"\n"),
        format!("metrics_port = {METRICS_PORT}\n\n"),
        servers().map(server).collect(),
        services(),
        DATABASE.to_owned(),
        processes(&folder.display().to_string()),
        format!("[process.prometheus]\non = [\"monitor\"]\nkind = \"prometheus\"\nport = {PROMETHEUS_PORT}\n{rules}"),
    ]
    .concat()
}

fn server(host: &crate::Host) -> String {
    let interfaces = if host.name == "lb1" { r#"["eth0", "eth1"]"# } else { r#"["eth0"]"# };
    let (name, role, v4, v6) = (host.server, host.role.unwrap_or_default(), host.v4(), host.v6());
    format!(
        "[[server]]\nname = \"{name}\"\nrole = \"{role}\"\naddress = \"{v4}\"\naddress6 = \"{v6}\"\n\
         interfaces = {interfaces}\n\n"
    )
}

fn services() -> String {
    format!(
        r#"[service.www]
listen = ["{VIP}:443", "[{VIP6}]:443"]
tls = {{ certificate = "www.pem", key = "www.key" }}
to = "web:8443"
encrypt = true
check = {{ kind = "http", path = "/healthz", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }}

[service.plain]
listen = ["{VIP}:8080", "[{VIP6}]:8080"]
to = "web:8080"
forward = "nat"
check = {{ kind = "http", path = "/healthz", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }}

[service.echo]
listen = "{VIP}:7007"
protocol = "udp"
to = "web:7007"
forward = "nat"
check = {{ kind = "tcp", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }}

[service.app]
listen = "10.0.9.10:8000"
to = "app:8000"
from = ["web"]
check = {{ kind = "http", path = "/healthz", interval_ms = 250, timeout_ms = 250, rise = 2, fall = 2 }}

[service.db-write]
listen = "10.0.9.20:5432"
to = "database:5432"
select = "primary"
from = ["app"]

[service.db-read]
listen = "10.0.9.21:5432"
to = "database:5432"
select = "replica"
from = ["app"]

"#
    )
}

fn processes(folder: &str) -> String {
    format!(
        r#"[process.nginx]
on = ["web"]
kind = "nginx"
root = "www"
dynamic = ["/guestbook"]
upstream = "app"

[process.echo]
on = ["web"]
command = ["{folder}/bin/echo", "--listen", "[::]:7007", "--server", "{{server}}"]
user = "nobody"

[process.guestbook]
on = ["app"]
command = ["{folder}/bin/guestbook", "--listen", "[::]:8000", "--server", "{{server}}"]
user = "nobody"

[process.guestbook.environment]
DATABASE_WRITE = "host=10.0.9.20 port=5432 dbname=guestbook user=guestbook"
DATABASE_READ = "host=10.0.9.21 port=5432 dbname=guestbook user=guestbook"
DATABASE_PASSWORD_FILE = "{folder}/app/guestbook.password"

[process.postgres]
on = ["database"]
kind = "postgres"

"#
    )
}

const DATABASE: &str = r#"[database]
name = "guestbook"
user = "guestbook"
password_file = "secrets/guestbook.password"
replication_password_file = "secrets/replication.password"
primary = "db1"

"#;
