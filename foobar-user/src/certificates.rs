//! Certificates and keys: read by the agent with messages for people, parsed by it and by its edge alike.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail, ensure};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde::{Deserialize, Serialize};

use crate::plan::TlsFiles;

/// A certificate chain and its key as PEM text.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Pem {
    /// The chain.
    pub(crate) certificate: String,
    /// The private key.
    pub(crate) key: String,
}

/// What mTLS among servers needs.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct UpstreamPem {
    /// The site's CA.
    pub(crate) ca: String,
    /// This server's certificate and key.
    pub(crate) identity: Pem,
}

/// The one cryptographic provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads a certificate chain and its key, and checks that they belong together.
pub(crate) fn load(certificate: &Path, key: &Path) -> anyhow::Result<Pem> {
    let pem = Pem { certificate: text(certificate)?, key: text(key)? };
    chain(&pem.certificate).with_context(|| format!("certificate file {}", certificate.display()))?;
    private_key(&pem.key).with_context(|| format!("key file {}", key.display()))?;
    certified_key(&pem).with_context(|| {
        format!("certificate {} and key {} cannot be used together", certificate.display(), key.display())
    })?;
    Ok(pem)
}

/// Reads what mTLS among servers needs.
pub(crate) fn load_upstream(files: &TlsFiles) -> anyhow::Result<UpstreamPem> {
    let ca = text(&files.ca)?;
    roots(&ca).with_context(|| format!("CA file {}", files.ca.display()))?;
    Ok(UpstreamPem { ca, identity: load(&files.certificate, &files.key)? })
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; `foobar pki` makes missing certificates", path.display()))
}

/// Towards a server whose certificate is of the files' CA, with this server's own.
pub(crate) fn client(
    files: &TlsFiles,
    versions: &[&'static SupportedProtocolVersion],
) -> anyhow::Result<Arc<ClientConfig>> {
    let pem = load_upstream(files)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots(&pem.ca)?)
        .with_client_auth_cert(chain(&pem.identity.certificate)?, private_key(&pem.identity.key)?)?;
    Ok(Arc::new(config))
}

/// The certificates of a PEM text; at least one.
pub(crate) fn chain(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| anyhow!("not PEM: {error}"))?;
    ensure!(!chain.is_empty(), "holds no certificate (no `-----BEGIN CERTIFICATE-----`)");
    Ok(chain)
}

/// The private key of a PEM text.
pub(crate) fn private_key(pem: &str) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("holds no private key in PEM: {error}"))
}

/// The trust anchors of a PEM text.
pub(crate) fn roots(pem: &str) -> anyhow::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots.add(certificate).context("a certificate in it cannot be a CA")?;
    }
    Ok(Arc::new(roots))
}

/// Chain and key, proved to fit.
pub(crate) fn certified_key(pem: &Pem) -> anyhow::Result<CertifiedKey> {
    let certified = CertifiedKey::from_der(chain(&pem.certificate)?, private_key(&pem.key)?, &provider());
    match certified {
        Ok(certified) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => bail!("the private key does not fit the certificate"),
        Err(error) => Err(error).context("unusable certificate or key"),
    }
}

/// When the first certificate of a PEM text ends, in seconds since 1970.
pub(crate) fn expiry(pem: &str) -> anyhow::Result<i64> {
    let chain = chain(pem)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).context("unreadable certificate")?;
    Ok(certificate.validity().not_after.timestamp())
}
