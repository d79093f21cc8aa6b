//! An edge with its certificates and one backend.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use foobar_user::edge::{Edge, EdgeOptions};
use foobar_user::plan::{EdgeService, TlsFiles};
use tempfile::TempDir;
use tokio::process::Child;

use crate::backend::{Backend, Tls, eventually};
use crate::free_address::free_address;
use crate::pki::Ca;

pub(crate) const DOMAIN: &str = "www.foobar.com";

/// Everything of one test; the child is killed when it goes.
pub(crate) struct Bed {
    pub(crate) folder: TempDir,
    pub(crate) ca: Ca,
    pub(crate) backend: Backend,
    pub(crate) service: EdgeService,
    pub(crate) edge: Edge,
    pub(crate) child: Child,
}

impl Bed {
    /// A well-behaved site: the backend is `web1`.
    pub(crate) async fn start() -> Self {
        Self::with(|_, service| service).await
    }

    /// A site whose service was changed before the start.
    pub(crate) async fn with(change: impl FnOnce(&Ca, EdgeService) -> EdgeService) -> Self {
        Self::with_backend("web1", change).await
    }

    /// A site whose backend bears this name.
    pub(crate) async fn with_backend(name: &str, change: impl FnOnce(&Ca, EdgeService) -> EdgeService) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let ca = Ca::new(folder.path(), "ca");
        let identity = ca.issue("backend", &[name]);
        let backend = Backend::start(&Tls { ca: folder.path().join("ca.pem"), identity }).await;
        let service = change(&ca, service(folder.path(), &ca, backend.address));
        let mut edge = Edge::prepare(std::slice::from_ref(&service), options(folder.path())).expect("prepare");
        let child = edge.spawn().expect("spawn");
        let metrics = edge.metrics_path().to_owned();
        eventually("the edge serves metrics", async || foobar_user::edge::scrape(&metrics).await.is_ok()).await;
        Self { folder, ca, backend, service, edge, child }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.service.listen[0]
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) async fn metrics(&self) -> String {
        foobar_user::edge::scrape(self.edge.metrics_path()).await.expect("metrics")
    }

    /// The value of a sample, named with its labels.
    pub(crate) async fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("number"))
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id().expect("running")).expect("pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
    }
}

/// How tests start edges: as root they become nobody, else they stay who they are.
pub(crate) fn options(folder: &Path) -> EdgeOptions {
    EdgeOptions {
        user: nix::unistd::geteuid().is_root().then(|| "nobody".to_owned()),
        cgroup: None,
        executable: PathBuf::from(env!("CARGO_BIN_EXE_foobar")),
        metrics: folder.join("metrics.sock"),
    }
}

pub(crate) fn service(folder: &Path, ca: &Ca, upstream: SocketAddr) -> EdgeService {
    let (certificate, key) = ca.issue("www", &[DOMAIN, "127.0.0.1"]);
    let (own, own_key) = ca.issue("lb1", &["lb1"]);
    EdgeService {
        name: "www".into(),
        domain: DOMAIN.into(),
        listen: vec![free_address()],
        redirect: vec![free_address()],
        certificate,
        key,
        upstream,
        upstream_servers: vec!["web1".into(), "web2".into()],
        upstream_tls: Some(TlsFiles { ca: folder.join("ca.pem"), certificate: own, key: own_key }),
    }
}
