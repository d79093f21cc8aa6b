//! `foobar pki`: the site's own CA, a certificate for each server, and what else the site file names and nobody brought.
//!
//! The CA carries no name constraints: they would have to list every server's name and address, and a server that joins
//! later could then be given no certificate without replacing the CA on all others.

mod authority;
mod inspect;
mod store;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::plan::TlsFiles;
use crate::site::{Forward, Server, Service, Site, Tls};
use authority::Authority;
pub use authority::{CA_DAYS, CERTIFICATE_DAYS};
pub use inspect::{Facts, authorities, inspect, verify};

/// A server certificate with less time left is renewed by the next `foobar pki`.
pub const RENEW_DAYS: i64 = 30;
/// Bytes of a generated password before its text form.
const PASSWORD_BYTES: usize = 32;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not there.
    Made,
    /// It was there and was replaced.
    Renewed,
    /// It was there and stays.
    Kept,
}

/// One thing that `foobar pki` looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: String,
    /// Its files.
    pub paths: Vec<PathBuf>,
    /// What became of them.
    pub fate: Fate,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self.fate {
            Fate::Made => "made",
            Fate::Renewed => "renewed",
            Fate::Kept => "kept",
        };
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        write!(f, "{fate:<8} {:<32} {}", self.what, paths.join(" "))
    }
}

/// Where a server's certificate, its key and the CA are.
#[must_use]
pub fn server_files(site: &Site, server: &str) -> TlsFiles {
    let pki = &site.pki.value;
    TlsFiles {
        ca: pki.join("ca.pem"),
        certificate: pki.join(format!("{server}.pem")),
        key: pki.join(format!("{server}.key")),
    }
}

/// Makes what is missing; with `force` also makes the CA and all that it signed anew, but never a password.
///
/// Returns every thing looked after, in order, for printing.
///
/// # Errors
/// A file cannot be read or written, or half of a pair is missing whose other half cannot be replaced.
pub fn run(site: &Site, force: bool) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let folder = &site.pki.value;
    store::folder(folder, 0o755)?;
    // Before the CA changes: which certificates of services it made, and may make anew.
    let old_ca = folder.join("ca.pem");
    let ours: Vec<bool> = site.services.iter().map(|service| made_here(&old_ca, service)).collect();
    let authority = ca(folder, site, force, &mut items)?;
    for server in &site.servers {
        items.push(server_certificate(site, server, &authority, force)?);
    }
    for (service, ours) in site.services.iter().zip(ours) {
        if let Forward::Tls(tls) = &service.forward {
            items.push(service_certificate(site, service, tls, &authority, ours, force)?);
        }
    }
    if let Some(database) = &site.database {
        items.push(password("password of the database's owner", &database.password_file)?);
        items.push(password("password of replication", &database.replication_password_file)?);
    }
    Ok(items)
}

fn made_here(ca: &Path, service: &Service) -> bool {
    matches!(&service.forward, Forward::Tls(tls) if verify(ca, &tls.certificate).is_ok())
}

fn ca(folder: &Path, site: &Site, force: bool, items: &mut Vec<Item>) -> Result<Authority> {
    let (certificate, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    let existed = (certificate.exists(), key.exists());
    let (authority, fate) = match existed {
        (true, true) if !force => (Authority::load(&certificate, &key)?, Fate::Kept),
        (true, false) | (false, true) if !force => bail!(
            "{} has only one of ca.pem and ca.key; put the other back, or make a new CA with --force",
            folder.display()
        ),
        _ => {
            let authority = Authority::make(&site.domain)?;
            store::write(&key, authority.key_pem().as_bytes(), 0o600)?;
            store::write(&certificate, authority.pem().as_bytes(), 0o644)?;
            (authority, if existed == (false, false) { Fate::Made } else { Fate::Renewed })
        }
    };
    items.push(Item { what: "the site's CA".to_owned(), paths: vec![certificate, key], fate });
    Ok(authority)
}

fn server_certificate(site: &Site, server: &Server, authority: &Authority, force: bool) -> Result<Item> {
    let files = server_files(site, &server.name);
    let existed = files.certificate.exists() || files.key.exists();
    let fate = if existed && !force && is_good(&files) {
        Fate::Kept
    } else {
        let (certificate, key) = authority.server(&server.name, server.addresses())?;
        pair(&files.certificate, &certificate, &files.key, &key)?;
        if existed { Fate::Renewed } else { Fate::Made }
    };
    let what = format!("certificate of server {}", server.name.value);
    Ok(Item { what, paths: vec![files.certificate, files.key], fate })
}

/// Fits its key, is of this CA, and has time left.
fn is_good(files: &TlsFiles) -> bool {
    let lasting = |facts: Facts| facts.not_after > authority::now_s() + RENEW_DAYS * authority::DAY_S;
    inspect(&files.certificate, &files.key).is_ok_and(lasting) && verify(&files.ca, &files.certificate).is_ok()
}

fn service_certificate(
    site: &Site,
    service: &Service,
    tls: &Tls,
    authority: &Authority,
    ours: bool,
    force: bool,
) -> Result<Item> {
    let existed = (tls.certificate.exists(), tls.key.exists());
    let fate = match existed {
        (false, false) => Fate::Made,
        (true, true) if ours && force => Fate::Renewed,
        (true, true) => Fate::Kept,
        (certificate, _) => {
            let (there, lacks) = if certificate { (&tls.certificate, &tls.key) } else { (&tls.key, &tls.certificate) };
            bail!(
                "{} is there and {} is not; put it back, or remove the first and run `foobar pki` again",
                there.display(),
                lacks.display()
            );
        }
    };
    if fate != Fate::Kept {
        let (certificate, key) = authority.public(&site.domain, service.listen.iter().map(|listen| listen.ip()))?;
        pair(&tls.certificate, &certificate, &tls.key, &key)?;
    }
    let what = format!("certificate of service {}", service.name.value);
    Ok(Item { what, paths: vec![tls.certificate.value.clone(), tls.key.value.clone()], fate })
}

/// Key first: a certificate that is there means that its key is.
fn pair(certificate: &Path, certificate_pem: &str, key: &Path, key_pem: &str) -> Result<()> {
    store::write(key, key_pem.as_bytes(), 0o600)?;
    store::write(certificate, certificate_pem.as_bytes(), 0o644)
}

/// Never made anew: PostgreSQL has it stored, and everybody would be locked out.
fn password(what: &str, path: &Path) -> Result<Item> {
    let fate = if path.exists() {
        Fate::Kept
    } else {
        let mut bytes = [0; PASSWORD_BYTES];
        authority::fill_random(&mut bytes).context("the system gives no random bytes")?;
        store::write(path, format!("{}\n", store::base64url(&bytes)).as_bytes(), 0o600)?;
        Fate::Made
    };
    Ok(Item { what: what.to_owned(), paths: vec![path.to_owned()], fate })
}
