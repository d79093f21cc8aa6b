//! What a certificate says, whether it fits its key, and whether a CA signed it. Errors say what a person can do.

use std::path::Path;

use rustls::RootCertStore;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Valid from, seconds since 1970.
    pub not_before: i64,
    /// Valid until, seconds since 1970.
    pub not_after: i64,
    certificate: CertificateDer<'static>,
}

impl Facts {
    /// Whether the certificate is one for this host name.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let Ok(certificate) = ParsedCertificate::try_from(&self.certificate) else { return false };
        ServerName::try_from(host).is_ok_and(|host| verify_server_name(&certificate, &host).is_ok())
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("cannot read certificates from {}: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{} holds no certificate; it must be PEM (`-----BEGIN CERTIFICATE-----`)", path.display()));
    }
    Ok(certificates)
}

/// Reads a certificate chain and its key, and checks that they belong together; not whether they are in date.
///
/// # Errors
/// A file cannot be read or holds something else, or the key is another certificate's.
pub fn inspect(certificate: &Path, key: &Path) -> Result<Facts, String> {
    let chain = chain(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| format!("cannot read a private key from {}: {error}; it must be PEM", key.display()))?;
    let first = chain[0].clone();
    CertifiedKey::from_der(chain, private, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => format!(
            "the key {} does not fit the certificate {}; put the pair that belongs together there",
            key.display(),
            certificate.display()
        ),
        other => format!("{} with {} cannot be used: {other}", certificate.display(), key.display()),
    })?;
    let (_, parsed) = X509Certificate::from_der(&first)
        .map_err(|error| format!("{} cannot be understood: {error}", certificate.display()))?;
    let validity = parsed.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok(Facts { not_before, not_after, certificate: first })
}

/// The CAs of a file; at least one.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn authorities(ca: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in chain(ca)? {
        roots.add(root).map_err(|error| format!("{} is no CA's certificate: {error}", ca.display()))?;
    }
    Ok(roots)
}

/// Whether a CA's certificate signed the first of a file, and both are in date.
///
/// # Errors
/// What is wrong with either.
pub fn verify(ca: &Path, certificate: &Path) -> Result<(), String> {
    let roots = authorities(ca)?;
    let chain = chain(certificate)?;
    let unusable = |error| format!("{} is not of the CA {}: {error}", certificate.display(), ca.display());
    let parsed = ParsedCertificate::try_from(&chain[0]).map_err(unusable)?;
    let algorithms = default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &chain[1..], UnixTime::now(), algorithms)
        .map_err(unusable)
}
