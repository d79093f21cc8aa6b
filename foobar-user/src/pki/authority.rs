//! The site's CA: it signs certificates of servers (both ends of mTLS) and stand-ins for public ones. ECDSA P-256 throughout.

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::{Duration, OffsetDateTime};

/// Validity of the CA.
pub const CA_DAYS: i64 = 3650;
/// Validity of a server's or a service's certificate; `foobar pki` renews it before its end.
pub const CERTIFICATE_DAYS: i64 = 90;
/// Seconds of a day.
pub(super) const DAY_S: i64 = 86_400;
/// Clocks of servers differ: a certificate counts from this long before it was made.
const BACKDATED_S: i64 = 3_600;

/// A CA that can sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Seconds since 1970.
pub(super) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// Fills a buffer from the cryptographic library's generator.
pub(super) fn fill_random(buffer: &mut [u8]) -> Result<()> {
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(buffer).map_err(|_| anyhow::anyhow!("the random generator failed"))
}

fn params(days: i64, common_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = OffsetDateTime::from_unix_timestamp(now_s()).context("this machine's clock is out of range; set it")?;
    params.not_before = now - Duration::seconds(BACKDATED_S);
    params.not_after = now + Duration::days(days);
    Ok(params)
}

fn key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

impl Authority {
    /// A new CA for a site.
    pub(super) fn make(domain: &str) -> Result<Self> {
        let mut serial = [0; 4];
        fill_random(&mut serial)?;
        // A number in the name: two CAs of one site (before and after --force) must not be taken for one another.
        // The common name is at most 64 characters long (RFC 5280, appendix A).
        let short: String = domain.chars().take(40).collect();
        let mut params = params(CA_DAYS, &format!("foobar CA {short} {:08x}", u32::from_be_bytes(serial)))?;
        // It signs leaves only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = CertifiedIssuer::self_signed(params, key()?).context("cannot sign the CA's certificate")?;
        let pem = ca.pem();
        let key = KeyPair::from_pem(&ca.key().serialize_pem()).context("cannot take the CA's key back")?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).context("cannot take the CA's certificate back")?;
        Ok(Self { issuer, pem })
    }

    /// The CA of two files.
    pub(super) fn load(certificate: &Path, key: &Path) -> Result<Self> {
        let read =
            |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        super::inspect(certificate, key).map_err(anyhow::Error::msg).context("the site's CA is not usable")?;
        let pem = read(certificate)?;
        let key = KeyPair::from_pem(&read(key)?).with_context(|| format!("{} holds no private key", key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .with_context(|| format!("{} holds no CA's certificate", certificate.display()))?;
        Ok(Self { issuer, pem })
    }

    /// Its certificate.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its private key.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Certificate and key of a server: either end of mTLS.
    pub(super) fn server(&self, name: &str, addresses: impl Iterator<Item = IpAddr>) -> Result<(String, String)> {
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(name, addresses, usages)
    }

    /// Certificate and key that stand in for a public one; it opens no backend, for it is no client's.
    pub(super) fn public(&self, domain: &str, addresses: impl Iterator<Item = IpAddr>) -> Result<(String, String)> {
        self.leaf(domain, addresses, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    fn leaf(
        &self,
        name: &str,
        addresses: impl Iterator<Item = IpAddr>,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<(String, String)> {
        let short: String = name.chars().take(64).collect();
        let mut params = params(CERTIFICATE_DAYS, &short)?;
        let dns = name.try_into().with_context(|| format!("`{name}` fits no certificate"))?;
        params.subject_alt_names.push(SanType::DnsName(dns));
        for address in addresses {
            let san = SanType::IpAddress(address);
            if !params.subject_alt_names.contains(&san) {
                params.subject_alt_names.push(san);
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = key()?;
        let certificate =
            params.signed_by(&key, &self.issuer).with_context(|| format!("cannot sign the certificate of {name}"))?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
