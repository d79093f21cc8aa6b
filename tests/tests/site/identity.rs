//! A web server's encrypted port wants a certificate of the site's own CA.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use foobar_tests::Bed;
use foobar_tests::client::{Target, get, tls};
use foobar_tests::host::Host;
use foobar_tests::process::run;
use foobar_tests::site::Binaries;

/// The balancer's certificate is taken; none, and one with the same name from another CA, are refused.
pub(crate) fn client_certificates(bed: &Bed) -> Result<()> {
    let pki = bed.site().pki();
    let foreign = foreign_pki(bed)?;
    let accepted = ask(bed, tls(&pki, Some("lb1"))?)?;
    ensure!(accepted, "the balancer's own certificate was refused");
    ensure!(!ask(bed, tls(&pki, None)?)?, "no certificate was accepted");
    // The foreign identity, but the site's own trust: otherwise it is we who refuse.
    fs::copy(pki.join("ca.pem"), foreign.join("ca.pem")).context("cannot copy the CA")?;
    ensure!(!ask(bed, tls(&foreign, Some("lb1"))?)?, "a foreign certificate was accepted");
    Ok(())
}

/// Whether web1 serves a page; nginx refuses with 400 after the handshake, or breaks it off.
fn ask(bed: &Bed, tls: Arc<rustls::ClientConfig>) -> Result<bool> {
    let web = Host::named("web1").context("a host")?;
    let target = Target { address: SocketAddr::from((web.v4(), 8443)), host: "web1".to_owned(), tls: Some(tls) };
    match get(bed.host("lb1")?, &target, "/small.txt") {
        Ok(response) if response.status == 200 => Ok(true),
        Ok(response) if response.status == 400 => Ok(false),
        Ok(response) => bail!("web1 answers {}", response.status),
        Err(error) if format!("{error:#}").contains("cannot connect") => Err(error),
        Err(_) => Ok(false),
    }
}

/// Certificates with the same names from a CA of their own.
fn foreign_pki(bed: &Bed) -> Result<std::path::PathBuf> {
    let folder = bed.folder().join("foreign");
    copy_folder(bed.site().folder(), &folder)?;
    let file = folder.join("site.toml");
    run(Command::new(Binaries::find()?.foobar).args(["pki", "--site"]).arg(file)).context("foobar pki")?;
    Ok(folder.join("pki"))
}

/// What a site file needs beside it, without the certificates.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, entry) = (entry.file_name(), entry.path());
        if ["pki", "bin"].iter().any(|skipped| name == *skipped) || name.to_string_lossy().starts_with("www.") {
            continue;
        }
        if entry.is_dir() {
            copy_folder(&entry, &to.join(name))?;
        } else {
            fs::copy(&entry, to.join(name))?;
        }
    }
    Ok(())
}
