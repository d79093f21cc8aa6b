//! TLS check, and mTLS of others: the site's CA in one direction, this server's certificate in the other.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::probe;
use crate::plan::TlsFiles;

/// Shakes hands with one address; the certificate must be the server's, of the site's CA.
pub(super) struct TlsProbe {
    address: SocketAddr,
    server: String,
    files: TlsFiles,
    /// Kept for session resumption; read again after a failure, for certificates are renewed.
    config: Option<Arc<ClientConfig>>,
}

impl TlsProbe {
    pub(super) fn new(address: SocketAddr, server: &str, files: &TlsFiles) -> Self {
        Self { address, server: server.to_owned(), files: files.clone(), config: None }
    }

    pub(super) fn forget(&mut self) {
        self.config = None;
    }

    pub(super) async fn ask(&mut self) -> Result<TlsStream<TcpStream>> {
        let config = match &self.config {
            Some(config) => Arc::clone(config),
            None => Arc::clone(self.config.insert(client(&self.files)?)),
        };
        let stream = probe::connect(self.address).await?;
        let name = ServerName::try_from(self.server.clone())
            .with_context(|| format!("{} cannot be a certificate's name", self.server))?;
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .with_context(|| format!("TLS with {} at {} failed", self.server, self.address))
    }
}

/// Reads the files and makes a client configuration of them.
fn client(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).with_context(|| format!("{} is no CA certificate", files.ca.display()))?;
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the key {}", files.key.display()))?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .context("the TLS versions are not supported")?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&files.certificate)?, key)
        .with_context(|| format!("{} does not fit {}", files.key.display(), files.certificate.display()))?;
    Ok(Arc::new(config))
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read the certificates {}", path.display()))
}
