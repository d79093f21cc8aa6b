//! TLS parameters towards clients (one certificate a service) and towards backends (mTLS with the site's CA).

use std::sync::Arc;

use anyhow::Context;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::backend::BackendVerifier;
use crate::certificates::{self, Pem, UpstreamPem};

/// Towards clients: TLS 1.2 and 1.3, h2 and http/1.1, stateless resumption. An unknown server name gets the same
/// certificate; the host of its requests is refused.
pub(crate) fn server(identity: &Pem) -> anyhow::Result<Arc<ServerConfig>> {
    let certified = certificates::certified_key(identity)?;
    let mut config = ServerConfig::builder_with_provider(certificates::provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .context("choose TLS versions")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().context("make session ticket keys")?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Towards backends: our certificate, the site's CA, and only these servers.
pub(crate) fn client(upstream: &UpstreamPem, servers: &[String]) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = certificates::provider();
    let webpki = WebPkiServerVerifier::builder_with_provider(certificates::roots(&upstream.ca)?, provider.clone())
        .build()
        .context("the site's CA")?;
    let names = servers
        .iter()
        .map(|name| ServerName::try_from(name.clone()).with_context(|| format!("server name `{name}`")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .context("choose TLS versions")?
        // Not less but other than the default: the whole chain is verified, the name is one of a set.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BackendVerifier::new(webpki, names)))
        .with_client_auth_cert(
            certificates::chain(&upstream.identity.certificate)?,
            certificates::private_key(&upstream.identity.key)?,
        )
        .context("this balancer's certificate")?;
    Ok(Arc::new(config))
}
