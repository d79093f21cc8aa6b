//! nginx: its configuration written from the plan, tested before it replaces the old one.
//!
//! The master runs as root, for it reads the TLS key and binds ports; its workers, which parse requests, do not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::account::Account;
use super::kind::Surroundings;
use super::launch::{self, Launch};
use super::{Folders, files};
use crate::plan::{NginxPlan, ProcessPlan};

const PROGRAM: &str = "/usr/sbin/nginx";
const WORKER_ACCOUNT: &str = "www-data";
/// How often the upstream's VIP is tried: the kernel chooses another backend for each connection.
const UPSTREAM_TRIES: usize = 3;

/// Unix socket on which nginx answers `GET /status` with its `stub_status` page.
#[must_use]
pub fn status_address(folders: &Folders) -> PathBuf {
    folders.run.join("nginx-status.sock")
}

fn folder(folders: &Folders) -> PathBuf {
    folders.state.join("nginx")
}

/// Removes what a killed nginx left: it does not bind a unix socket whose file exists.
pub(super) fn initialise(folders: &Folders) -> Result<()> {
    let socket = status_address(folders);
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the old socket {}", socket.display()))
        }
        _ => Ok(()),
    }
}

/// Writes and tests `nginx.conf` and says how to start nginx.
pub(super) async fn configure(nginx: &NginxPlan, plan: &ProcessPlan, around: &Surroundings) -> Result<Launch> {
    if !Path::new(PROGRAM).exists() {
        bail!("{PROGRAM} is missing: apt-get install --no-install-recommends nginx-light");
    }
    let workers = Account::named(plan.user.as_deref().unwrap_or(WORKER_ACCOUNT))?;
    let folder = folder(&around.folders);
    files::walkable_folder(&folder)?;
    let scratch = folder.join("scratch");
    files::owned_folder(&scratch, 0o700, &workers)?;
    if !nginx.root.is_dir() {
        bail!("the folder of static files {} does not exist: make it or correct `root`", nginx.root.display());
    }
    workers.can_reach(&nginx.root)?;
    let text = configuration(nginx, &workers.name, &folder, &around.folders)?;
    let path = folder.join("nginx.conf");
    let trial = folder.join("nginx.conf.trial");
    files::write_if_changed(&trial, &text, 0o644, None)?;
    let mut test = launch::helper(Path::new(PROGRAM), None, &around.cgroup)?;
    test.args(["-q", "-t", "-e", "stderr", "-p"]).arg(&folder).arg("-c").arg(&trial);
    launch::run(test).await.context("nginx refuses its configuration")?;
    files::write_if_changed(&path, &text, 0o644, None)?;
    Ok(Launch {
        program: PROGRAM.into(),
        arguments: vec!["-e".into(), "stderr".into(), "-p".into(), folder.into(), "-c".into(), path.into()],
        environment: BTreeMap::new(),
        folder: None,
        account: None,
        stop_signal: Signal::SIGQUIT,
        reload_signal: Some(Signal::SIGHUP),
        configuration: fingerprint(nginx, &text)?,
        identity: String::new(),
    })
}

/// Of the text and of the certificates: renewed ones must be loaded too.
fn fingerprint(nginx: &NginxPlan, text: &str) -> Result<String> {
    let mut parts = vec![text.as_bytes().to_vec()];
    if nginx.listeners.iter().any(|listener| listener.tls) {
        for path in [&nginx.tls.ca, &nginx.tls.certificate, &nginx.tls.key] {
            parts.push(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(files::fingerprint(parts.iter().map(Vec::as_slice)))
}

/// The text of `nginx.conf`.
fn configuration(nginx: &NginxPlan, workers: &str, folder: &Path, folders: &Folders) -> Result<String> {
    let scratch = folder.join("scratch");
    let mut text = format!(
        "# Written by foobar agent from the site file; changes here are lost.\n\
         daemon off;\nuser {workers};\nworker_processes 2;\nworker_rlimit_nofile 16384;\n\
         pid {pid};\nerror_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         include /etc/nginx/mime.types;\ndefault_type application/octet-stream;\n\
         access_log off;\nserver_tokens off;\nsendfile on;\ntcp_nopush on;\n\
         keepalive_timeout 60s;\nkeepalive_requests 100000;\nreset_timedout_connection on;\n\
         client_header_timeout 10s;\nclient_body_timeout 10s;\nsend_timeout 10s;\nclient_max_body_size 10m;\n",
        pid = quote(&folder.join("nginx.pid"))?,
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{kind}_temp_path {};", quote(&scratch.join(kind))?)?;
    }
    if let Some(server) = nginx.tls.certificate.file_stem() {
        writeln!(text, "add_header X-Served-By {} always;", quote(Path::new(server))?)?;
    }
    forwarding(&mut text, nginx)?;
    if let Some(upstream) = nginx.upstream {
        text.push_str("upstream foobar_dynamic {\n");
        for _ in 0..UPSTREAM_TRIES {
            writeln!(text, "server {upstream} max_fails=0;")?;
        }
        // The kernel chooses an app server for each connection: short lives let the load follow.
        text.push_str("keepalive 32;\nkeepalive_timeout 5s;\nkeepalive_time 5s;\n}\n");
    }
    servers(&mut text, nginx)?;
    let status = status_address(folders);
    let status = status.display().to_string();
    // Every writer of a unix socket may connect: nginx opens it to all, the run folder is the door.
    writeln!(
        text,
        "server {{\nlisten {};\nlocation = /status {{ stub_status; }}\nlocation / {{ return 404; }}\n}}\n}}",
        quote(Path::new(&format!("unix:{status}")))?
    )?;
    Ok(text)
}

/// Whose word about the client is believed: the balancers', and nobody else's.
fn forwarding(text: &mut String, nginx: &NginxPlan) -> Result<()> {
    text.push_str("real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n");
    for balancer in &nginx.balancers {
        writeln!(text, "set_real_ip_from {balancer};")?;
    }
    text.push_str("geo $realip_remote_addr $from_balancer {\ndefault 0;\n");
    for balancer in &nginx.balancers {
        writeln!(text, "{balancer} 1;")?;
    }
    text.push_str(
        "}\n\
         map $from_balancer $forwarded_proto { 1 $http_x_forwarded_proto; default $scheme; }\n\
         map $from_balancer $forwarded { 1 $http_forwarded; default ''; }\n",
    );
    Ok(())
}

fn servers(text: &mut String, nginx: &NginxPlan) -> Result<()> {
    for listener in &nginx.listeners {
        let tls = if listener.tls { " ssl" } else { "" };
        // IPv6 listeners stay IPv6 only, which is nginx's default.
        writeln!(text, "server {{\nlisten {}{tls};\nserver_name _;", listener.address)?;
        if listener.tls {
            writeln!(
                text,
                "ssl_certificate {};\nssl_certificate_key {};\nssl_client_certificate {};\n\
                 ssl_verify_client on;\nssl_verify_depth 2;\nssl_protocols TLSv1.2 TLSv1.3;\n\
                 ssl_session_cache shared:foobar:2m;\nssl_session_timeout 10m;",
                quote(&nginx.tls.certificate)?,
                quote(&nginx.tls.key)?,
                quote(&nginx.tls.ca)?
            )?;
        }
        text.push_str("location = /healthz { default_type text/plain; return 200 \"ok\\n\"; }\n");
        writeln!(text, "location / {{ root {}; index index.html; }}", quote(&nginx.root)?)?;
        if nginx.upstream.is_some() {
            for prefix in &nginx.dynamic {
                dynamic(text, prefix)?;
            }
        }
        text.push_str("}\n");
    }
    Ok(())
}

fn dynamic(text: &mut String, prefix: &str) -> Result<()> {
    writeln!(
        text,
        "location {} {{\nproxy_pass http://foobar_dynamic;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection '';\nproxy_set_header Host $host;\n\
         proxy_set_header X-Forwarded-For $remote_addr;\nproxy_set_header X-Forwarded-Proto $forwarded_proto;\n\
         proxy_set_header Forwarded $forwarded;\nproxy_set_header X-Real-IP '';\n\
         proxy_connect_timeout 1s;\nproxy_send_timeout 10s;\nproxy_read_timeout 15s;\n\
         proxy_next_upstream error timeout;\nproxy_next_upstream_tries {UPSTREAM_TRIES};\n\
         proxy_next_upstream_timeout 5s;\n}}",
        quote(Path::new(prefix))?
    )?;
    Ok(())
}

/// A quoted parameter; nginx knows no way to write a dollar sign in one.
fn quote(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8, nginx cannot be told of it", path.display()))?;
    if text.contains('$') || text.chars().any(char::is_control) {
        bail!("{text:?} holds a dollar sign or a control character, which nginx cannot be told of: rename it");
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_quoted_or_refused() {
        assert_eq!(quote(Path::new("/a b\"c")).ok().as_deref(), Some("\"/a b\\\"c\""));
        assert!(quote(Path::new("/a$b")).is_err());
        assert!(quote(Path::new("/a\nb")).is_err());
    }
}
