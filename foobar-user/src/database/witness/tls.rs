//! mTLS between database servers and the witness, with the certificates that the site's CA has given each server.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::certificates;
use crate::plan::TlsFiles;

/// For the witness: whoever connects has a certificate of the site's CA.
pub(super) fn server(files: &TlsFiles) -> Result<Arc<ServerConfig>> {
    let pem = certificates::load_upstream(files)?;
    let provider = certificates::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(certificates::roots(&pem.ca)?, provider.clone())
        .build()
        .context("the site's CA")?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            certificates::chain(&pem.identity.certificate)?,
            certificates::private_key(&pem.identity.key)?,
        )?;
    Ok(Arc::new(config))
}

/// For a database server.
pub(super) fn client(files: &TlsFiles) -> Result<Arc<ClientConfig>> {
    certificates::client(files, &[&TLS13])
}

/// Which of these servers a verified certificate is for.
pub(super) fn who(certificates: Option<&[CertificateDer<'_>]>, servers: &[String]) -> Result<String> {
    let Some([own, ..]) = certificates else { bail!("no certificate") };
    let certificate = ParsedCertificate::try_from(own)?;
    let is = |name: &&String| {
        ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    };
    servers.iter().find(is).cloned().context("the certificate is of no database server of the site")
}
