//! When the certificates of this server expire, read from their files at each scrape.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{encode, names};

/// A certificate whose expiry is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Value of the label: what the certificate is for, `ca`, the server's or the service's name.
    pub name: String,
    /// A PEM file whose first certificate counts.
    pub path: PathBuf,
}

/// Expiry of certificates, in seconds since 1970; 0 for one that cannot be read, so that its alert fires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Name and expiry.
    pub expiries: Vec<(String, i64)>,
}

impl Certificates {
    /// Reads all watched files.
    pub fn read(watched: &[Watched]) -> Self {
        let expiry = |watched: &Watched| {
            let seconds = expiry(&watched.path).unwrap_or_else(|error| {
                tracing::warn!("metrics: no expiry of certificate {}: {error:#}", watched.name);
                0
            });
            (watched.name.clone(), seconds)
        };
        Self { expiries: watched.iter().map(expiry).collect() }
    }
}

impl Collector for Certificates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let samples = self.expiries.iter().map(|(name, seconds)| ([name.as_str()], *seconds));
        encode::gauge(&mut encoder, &names::CERTIFICATE_EXPIRY, samples)
    }
}

fn expiry(path: &Path) -> anyhow::Result<i64> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).with_context(|| format!("no PEM in {}", path.display()))?;
    let certificate = pem.parse_x509().with_context(|| format!("no certificate in {}", path.display()))?;
    Ok(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_read_and_a_broken_file_expires_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["www.foobar.com".to_owned()]).unwrap();
        parameters.not_after = time::OffsetDateTime::from_unix_timestamp(2_000_000_000).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let good = folder.path().join("good.pem");
        std::fs::write(&good, parameters.self_signed(&key).unwrap().pem()).unwrap();
        let broken = folder.path().join("broken.pem");
        std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();

        let watched = [("www", good), ("web1", broken), ("ca", folder.path().join("absent.pem"))]
            .map(|(name, path)| Watched { name: name.to_owned(), path });
        let expected = [("www", 2_000_000_000), ("web1", 0), ("ca", 0)];
        assert_eq!(
            Certificates::read(&watched).expiries,
            expected.map(|(name, seconds)| (name.to_owned(), seconds)).to_vec()
        );
    }
}
