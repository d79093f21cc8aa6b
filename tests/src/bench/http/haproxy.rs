//! HAProxy in the balancer's namespace: the same certificates, backends, ciphers and headers as the edge.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bed::Bed;
use crate::eventually::eventually;
use crate::host::{VIP, servers};
use crate::probe::{Outcome, connect};
use crate::process::Process;

/// Port at the VIP.
pub(super) const PORT: u16 = 8444;

/// A running HAProxy. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Haproxy {
    _process: Process,
}

impl Haproxy {
    /// Starts it and waits until it lets the client in.
    pub(super) fn start(bed: &Bed) -> Result<Self> {
        if !Path::new(PROGRAM).exists() {
            bail!("{PROGRAM} is missing: apt-get install --no-install-recommends haproxy");
        }
        let folder = bed.folder().join("haproxy");
        fs::create_dir(&folder).context("cannot make HAProxy's folder")?;
        let pki = bed.site().pki();
        let (public, own) = (folder.join("public.pem"), folder.join("own.pem"));
        // HAProxy wants a certificate and its key in one file.
        join(&[bed.site().folder().join("www.pem"), bed.site().folder().join("www.key")], &public)?;
        join(&[pki.join("lb1.pem"), pki.join("lb1.key")], &own)?;
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration(&public, &own, &pki.join("ca.pem"))).context("cannot write haproxy.cfg")?;
        let log = fs::File::create(folder.join("log")).context("cannot make HAProxy's log")?;
        let mut command = Command::new(PROGRAM);
        command.args(["-db", "-q", "-f"]).arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = bed.spawn("lb1", &mut command)?;
        let address = SocketAddr::from((VIP, PORT));
        eventually(START_TIMEOUT, "HAProxy lets the client in", || {
            if let Some(status) = process.ended()? {
                let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("HAProxy ended with {status}: {}", said.trim());
            }
            Ok(connect(bed.host("client")?, address, CONNECT_TIMEOUT)? == Outcome::Open)
        })?;
        Ok(Self { _process: process })
    }
}

/// Writes the files one after the other into `to`, readable by root alone.
fn join(files: &[PathBuf], to: &Path) -> Result<()> {
    let mut whole = Vec::new();
    for path in files {
        whole.extend(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let mut file = match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!("{} exists already", to.display()),
        opened => opened.with_context(|| format!("cannot make {}", to.display()))?,
    };
    std::io::Write::write_all(&mut file, &whole).with_context(|| format!("cannot write {}", to.display()))
}

/// As many threads as the edge has; one pool of backend connections for all requests of a thread; TLS tickets as they are.
fn configuration(public: &Path, own: &Path, ca: &Path) -> String {
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (public, own, ca) = (public.display(), own.display(), ca.display());
    let mut text = format!(
        "global\n  nbthread {threads}\n  maxconn 8192\n  user nobody\n  group nogroup\n\
         \x20 ssl-default-bind-ciphersuites {CIPHER}\n  ssl-default-server-ciphersuites {CIPHER}\n\
         \x20 ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  mode http\n  http-reuse always\n  option forwardfor\n\
         \x20 timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
         frontend public\n  bind {VIP}:{PORT} ssl crt {public} alpn h2,http/1.1\n\
         \x20 http-request set-header X-Forwarded-Proto https\n\
         \x20 http-request set-header X-Forwarded-Host %[req.hdr(Host)]\n  default_backend web\n\
         backend web\n  balance roundrobin\n"
    );
    for host in servers().filter(|host| host.role == Some("web")) {
        let (name, address) = (host.name, host.v4());
        text += &format!(
            "  server {name} {address}:8443 ssl verify required ca-file {ca} crt {own} verifyhost {name} alpn http/1.1\n"
        );
    }
    text
}

const PROGRAM: &str = "/usr/sbin/haproxy";
/// What the edge and nginx agree on by themselves, so that both proxies compute the same.
const CIPHER: &str = "TLS_AES_256_GCM_SHA384";
const START_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
