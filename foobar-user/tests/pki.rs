//! The site's own PKI: chains verify in both directions, a stranger's do not, and nothing is overwritten unasked.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use common::edited;
use foobar_user::pki::{self, Fate};
use foobar_user::plan::TlsFiles;
use foobar_user::site::{Checked, Extent};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

fn site_in(folder: &Path, text: &str) -> Checked {
    std::fs::write(folder.join("site.toml"), text).expect("a site file");
    std::fs::create_dir_all(folder.join("www")).expect("a folder");
    Checked::read(&folder.join("site.toml")).unwrap_or_else(|faults| panic!("{faults}"))
}

fn made(text: &str) -> (tempfile::TempDir, Checked) {
    let folder = tempfile::tempdir().expect("a folder");
    let checked = site_in(folder.path(), text);
    pki::run(&checked.site, false).expect("a PKI");
    (folder, checked)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn roots(ca: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a root");
    Arc::new(roots)
}

fn identity(files: &TlsFiles) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_file(&files.certificate).expect("a certificate");
    (vec![certificate], PrivateKeyDer::from_pem_file(&files.key).expect("a key"))
}

/// A mutual handshake in memory: the client asks for `name` and each side believes its own CA.
fn handshake(client: &TlsFiles, server: &TlsFiles, name: &str) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = identity(client);
    let server_verifier = WebPkiServerVerifier::builder_with_provider(roots(&client.ca), provider.clone());
    let client_config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_webpki_verifier(server_verifier.build().expect("a verifier"))
        .with_client_auth_cert(chain, key)?;
    let (chain, key) = identity(server);
    let client_verifier = WebPkiClientVerifier::builder_with_provider(roots(&server.ca), provider.clone());
    let server_config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(client_verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(client_config), name)?;
    let mut server = ServerConnection::new(Arc::new(server_config))?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server.process_new_packets()?;
        wire.clear();
        server.write_tls(&mut wire).expect("memory");
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn servers_know_each_other_in_both_directions_and_by_name() {
    let (_folder, checked) = made(common::GOOD);
    let (lb1, web1) = (pki::server_files(&checked.site, "lb1"), pki::server_files(&checked.site, "web1"));
    handshake(&lb1, &web1, "web1").expect("by name");
    handshake(&lb1, &web1, "10.0.1.11").expect("by address");
    handshake(&lb1, &web1, "fd00:1::11").expect("by IPv6 address");
    handshake(&web1, &lb1, "lb1").expect("the other way round");
    assert!(handshake(&lb1, &web1, "web2").is_err(), "another server's name");
}

#[test]
fn a_stranger_is_believed_by_nobody() {
    let (_folder, checked) = made(common::GOOD);
    let (_other, foreign) = made(common::GOOD);
    let (lb1, web1) = (pki::server_files(&checked.site, "lb1"), pki::server_files(&checked.site, "web1"));
    let stranger = pki::server_files(&foreign.site, "lb1");
    assert!(handshake(&stranger, &web1, "web1").is_err());
    // Even one that believes our CA: the web server still refuses it.
    let believing = TlsFiles { ca: lb1.ca.clone(), ..stranger.clone() };
    assert!(handshake(&believing, &web1, "web1").is_err());
    let impostor = TlsFiles { ca: lb1.ca.clone(), ..pki::server_files(&foreign.site, "web1") };
    assert!(handshake(&lb1, &impostor, "web1").is_err());
    assert!(pki::verify(&lb1.ca, &stranger.certificate).is_err());
}

#[test]
fn the_public_certificate_opens_no_backend() {
    let (folder, checked) = made(common::GOOD);
    let web1 = pki::server_files(&checked.site, "web1");
    let public = TlsFiles {
        ca: web1.ca.clone(),
        certificate: folder.path().join("www.pem"),
        key: folder.path().join("www.key"),
    };
    assert!(handshake(&public, &web1, "web1").is_err(), "it is no client's");
    let facts = pki::inspect(&public.certificate, &public.key).expect("facts");
    assert!(facts.names("www.foobar.com") && facts.names("203.0.113.10") && !facts.names("foobar.com"));
    let days = (facts.not_after - facts.not_before) / 86_400;
    assert_eq!(days, pki::CERTIFICATE_DAYS);
}

#[test]
fn secrets_are_for_their_owner_only() {
    let (folder, _checked) = made(common::GOOD);
    for secret in
        ["pki/ca.key", "pki/web1.key", "www.key", "secrets/guestbook.password", "secrets/replication.password"]
    {
        assert_eq!(mode(&folder.path().join(secret)), 0o600, "{secret}");
    }
    assert_eq!(mode(&folder.path().join("pki/ca.pem")), 0o644);
    assert_eq!(mode(&folder.path().join("secrets")), 0o700);
    let password = std::fs::read_to_string(folder.path().join("secrets/guestbook.password")).expect("a password");
    assert_eq!(password.trim().len(), 43);
    let names = std::fs::read_dir(folder.path().join("pki"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".tmp")));
}

#[test]
fn a_second_run_keeps_everything_and_force_keeps_passwords() {
    let (folder, checked) = made(common::GOOD);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("a file");
    let files = ["pki/ca.pem", "pki/ca.key", "pki/web1.pem", "pki/web1.key", "www.pem", "secrets/guestbook.password"];
    let before = files.map(read);
    let items = pki::run(&checked.site, false).expect("a PKI");
    assert!(items.iter().all(|item| item.fate == Fate::Kept), "{items:?}");
    assert_eq!(before, files.map(read));
    let items = pki::run(&checked.site, true).expect("a PKI");
    let after = files.map(read);
    for (index, name) in files.iter().enumerate() {
        assert_eq!(before[index] == after[index], name.ends_with("password"), "{name}");
    }
    assert_eq!(items.iter().filter(|item| item.fate == Fate::Kept).count(), 2, "{items:?}");
    let (lb1, web1) = (pki::server_files(&checked.site, "lb1"), pki::server_files(&checked.site, "web1"));
    handshake(&lb1, &web1, "web1").expect("the new ones fit each other");
}

#[test]
fn a_bought_certificate_is_never_replaced() {
    let (folder, checked) = made(common::GOOD);
    let (other, _foreign) = made(common::GOOD);
    for name in ["www.pem", "www.key"] {
        std::fs::copy(other.path().join(name), folder.path().join(name)).expect("a copy");
    }
    let before = std::fs::read(folder.path().join("www.pem")).expect("a file");
    pki::run(&checked.site, true).expect("a PKI");
    assert_eq!(before, std::fs::read(folder.path().join("www.pem")).expect("a file"));
    std::fs::remove_file(folder.path().join("www.key")).expect("removed");
    let error = pki::run(&checked.site, false).expect_err("half a pair");
    assert!(error.to_string().contains("put it back"), "{error}");
}

#[test]
fn half_a_ca_is_refused() {
    let (folder, checked) = made(common::GOOD);
    std::fs::remove_file(folder.path().join("pki/ca.key")).expect("removed");
    let error = pki::run(&checked.site, false).expect_err("half a CA");
    assert!(error.to_string().contains("only one of ca.pem and ca.key"), "{error}");
}

#[test]
fn a_made_site_has_no_fault_in_its_files() {
    let (_folder, checked) = made(common::GOOD);
    for extent in [Extent::Site, Extent::Server("db1"), Extent::Server("lb1")] {
        let faults = checked.check_files(extent);
        assert!(faults.is_empty(), "{extent:?}: {faults}");
    }
}

/// What was done to the files, the fault's line begins so, fragments of what is said.
#[test]
fn faults_of_files_are_told_at_the_line_that_names_them() {
    type Harm = fn(&Path);
    let cases: &[(&str, Harm, &str, &str)] = &[
        (
            "no certificate",
            |f| std::fs::remove_file(f.join("www.pem")).expect("removed"),
            "tls = ",
            "is not on this machine",
        ),
        ("not PEM", |f| std::fs::write(f.join("www.pem"), "x").expect("written"), "tls = ", "holds no certificate"),
        (
            "another key",
            |f| {
                std::fs::copy(f.join("pki/web1.key"), f.join("www.key")).expect("a copy");
            },
            "tls = ",
            "does not fit",
        ),
        (
            "no password",
            |f| std::fs::remove_file(f.join("secrets/guestbook.password")).expect("removed"),
            "password_file = ",
            "is not on this machine",
        ),
        (
            "empty password",
            |f| std::fs::write(f.join("secrets/guestbook.password"), "\n").expect("written"),
            "password_file = ",
            "is empty",
        ),
        (
            "open password",
            |f| {
                std::fs::set_permissions(f.join("secrets/guestbook.password"), PermissionsExt::from_mode(0o644))
                    .expect("changed");
            },
            "password_file = ",
            "warning: ",
        ),
        (
            "no server's key",
            |f| std::fs::remove_file(f.join("pki/web2.key")).expect("removed"),
            "pki = ",
            "server `web2` needs it",
        ),
        ("no static files", |f| std::fs::remove_dir(f.join("www")).expect("removed"), "root = ", "is no folder"),
    ];
    for (name, harm, line, message) in cases {
        let (folder, checked) = made(common::GOOD);
        harm(folder.path());
        let text = checked.check_files(Extent::Site).to_string();
        let number = common::GOOD.lines().position(|text| text.starts_with(line)).expect("a line") + 1;
        assert!(text.contains(&format!("site.toml:{number}:")) && text.contains(message), "{name}: {text}");
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let (folder, checked) = made(common::GOOD);
    let mut params = rcgen::CertificateParams::new(vec!["www.foobar.com".to_owned()]).expect("parameters");
    let now = time::OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - time::Duration::days(90), now - time::Duration::hours(36));
    let key = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(folder.path().join("www.pem"), params.self_signed(&key).expect("signed").pem()).expect("written");
    std::fs::write(folder.path().join("www.key"), key.serialize_pem()).expect("written");
    let faults = checked.check_files(Extent::Site);
    assert!(faults.errors() == 1 && faults.to_string().contains("expired 2 days ago; renew it"), "{faults}");
}

#[test]
fn a_certificate_for_another_domain_is_warned_about() {
    let (folder, _checked) = made(common::GOOD);
    let moved = site_in(folder.path(), &edited("www.foobar.com", "www.example.com"));
    let faults = moved.check_files(Extent::Site);
    assert_eq!(faults.errors(), 0, "{faults}");
    assert!(faults.to_string().contains("does not name `www.example.com`"), "{faults}");
}

#[test]
fn files_for_etcd_are_looked_at_on_database_servers() {
    let etcd = "primary = \"db1\"\netcd = { endpoints = [\"https://10.0.1.51:2379\"], ca = \"e.pem\", certificate = \"db.pem\", \
                key = \"db.key\" }";
    let text = edited("primary = \"db1\"", etcd);
    let line = text.lines().position(|line| line.starts_with("etcd = ")).expect("a line") + 1;
    let (folder, checked) = made(&text);
    let told = |extent: Extent<'_>| checked.check_files(extent).to_string();
    let missing = told(Extent::Server("db1"));
    for what in ["the CA of etcd", "the certificate for etcd", "the private key"] {
        assert!(missing.contains(&format!("site.toml:{line}:")) && missing.contains(what), "{what}: {missing}");
    }
    assert_eq!(told(Extent::Server("web1")), "");
    let put = |from: &str, to: &str| std::fs::copy(folder.path().join(from), folder.path().join(to)).expect("a copy");
    put("pki/ca.pem", "e.pem");
    put("pki/db1.pem", "db.pem");
    put("pki/db2.key", "db.key");
    assert!(told(Extent::Server("db1")).contains("does not fit"), "{}", told(Extent::Server("db1")));
    put("pki/db1.key", "db.key");
    assert_eq!(told(Extent::Server("db1")), "");
    std::fs::write(folder.path().join("e.pem"), "x").expect("written");
    assert!(told(Extent::Server("db1")).contains("holds no certificate"), "{}", told(Extent::Server("db1")));
}
