//! The files that a site names, as they are on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use super::{limits, sets};
use crate::pki;
use crate::plan::Role;
use crate::site::at::{At, Span};
use crate::site::model::{Forward, Server, Service, Site, SiteCheckKind, SiteProcess, Tls};
use crate::site::read::files::templates;
use crate::site::section::Collector;
use crate::site::text;

/// Whose files are looked at.
#[derive(Clone, Copy, Debug)]
pub enum Extent<'a> {
    /// Every file of the site: where the site is made.
    Site,
    /// What this server needs: on the server itself.
    Server(&'a str),
}

/// How long before its end a certificate is worth a warning.
const EXPIRY_WARNING_DAYS: i64 = 14;

pub(in crate::site) fn check(site: &Site, extent: Extent<'_>, faults: &Collector) {
    let mine = |server: &&Server| match extent {
        Extent::Site => true,
        Extent::Server(name) => *server.name == name,
    };
    let servers: Vec<&Server> = site.servers.iter().filter(mine).collect();
    if servers.iter().any(|server| server.role == Role::Balancer) {
        for service in &site.services {
            if let Forward::Tls(tls) = &service.forward {
                public(site, service, tls, faults);
            }
        }
    }
    if needs_own_ca(site) {
        for server in &servers {
            own(site, server, faults);
        }
    }
    etcd(site, &servers, faults);
    passwords(site, &servers, faults);
    sets::check_files(site, extent, &servers, faults);
    processes(site, &servers, faults);
    limits::check_machine(site, &servers, faults);
}

/// Whether any service speaks mTLS.
fn needs_own_ca(site: &Site) -> bool {
    site.services.iter().any(|service| matches!(&service.forward, Forward::Tls(tls) if tls.encrypt))
}

/// A service's certificate: there, fitting its key, in date, for the domain.
fn public(site: &Site, service: &Service, tls: &Tls, faults: &Collector) {
    if !present(&tls.certificate, "the certificate", faults) | !present(&tls.key, "the private key", faults) {
        return;
    }
    open_to_others(&tls.key, tls.key.span, faults);
    let subject = format!("the certificate of service `{}`", service.name.value);
    pair(&subject, &tls.certificate, &tls.key, tls.certificate.span, Some(&site.domain), faults);
}

/// A server's certificate of the site's own CA.
fn own(site: &Site, server: &Server, faults: &Collector) {
    let files = pki::server_files(site, &server.name);
    for path in [&files.ca, &files.certificate, &files.key] {
        if !path.exists() {
            let message = format!(
                "{} is not there, and server `{}` needs it; run `foobar pki`",
                path.display(),
                server.name.value
            );
            faults.error(site.pki.span, message);
            return;
        }
    }
    open_to_others(&files.key, site.pki.span, faults);
    let subject = format!("the certificate of server `{}`", server.name.value);
    pair(&subject, &files.certificate, &files.key, site.pki.span, None, faults);
    if let Err(why) = pki::verify(&files.ca, &files.certificate) {
        faults.error(site.pki.span, format!("{subject}: {why}; `foobar pki --force` makes it anew"));
    }
}

fn pair(subject: &str, certificate: &Path, key: &Path, span: Span, domain: Option<&str>, faults: &Collector) {
    let facts = match pki::inspect(certificate, key) {
        Ok(facts) => facts,
        Err(why) => return faults.error(span, format!("{subject}: {why}")),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let days = (facts.not_after - now).div_euclid(86_400);
    if facts.not_after <= now {
        faults.error(span, format!("{subject} expired {} days ago; renew it", -days));
    } else if facts.not_before > now {
        faults.error(span, format!("{subject} is not valid yet; check this machine's clock"));
    } else if days < EXPIRY_WARNING_DAYS {
        faults.warning(span, format!("{subject} expires in {days} days; renew it"));
    }
    if let Some(domain) = domain
        && !facts.names(domain)
    {
        faults.warning(span, format!("{subject} does not name `{domain}`: browsers will refuse it"));
    }
}

/// What database servers and the etcd cluster that keeps their lease prove themselves with.
fn etcd(site: &Site, servers: &[&Server], faults: &Collector) {
    let Some(etcd) = site.database.as_ref().and_then(|database| database.etcd.as_ref()) else { return };
    let mut asking = servers.iter().filter(|server| server.role == Role::Database).peekable();
    if asking.peek().is_none() {
        return;
    }
    if let Some(ca) = &etcd.ca
        && present(ca, "the CA of etcd", faults)
        && let Err(why) = pki::authorities(ca)
    {
        faults.error(ca.span, why);
    }
    match &etcd.identity {
        Some((certificate, key))
            if present(certificate, "the certificate for etcd", faults) & present(key, "the private key", faults) =>
        {
            open_to_others(key, key.span, faults);
            pair("the certificate for etcd", certificate, key, certificate.span, None, faults);
        }
        None if etcd.endpoints.iter().any(|endpoint| endpoint.tls) && !needs_own_ca(site) => {
            asking.for_each(|server| own(site, server, faults));
        }
        Some(_) | None => {}
    }
}

/// Passwords: where PostgreSQL runs and where it is logged in to.
fn passwords(site: &Site, servers: &[&Server], faults: &Collector) {
    let Some(database) = &site.database else { return };
    let logs_in = |server: &&Server| {
        let checks = |service: &&Service| service.check.kind == SiteCheckKind::Postgres;
        site.services.iter().filter(checks).any(|service| crate::plan::serves(site, service, server))
    };
    let runs = |server: &&Server| server.role == Role::Database;
    if servers.iter().any(|server| logs_in(server) || runs(server)) {
        password(&database.password_file, faults);
    }
    if servers.iter().any(runs) {
        password(&database.replication_password_file, faults);
    }
}

fn password(file: &At<std::path::PathBuf>, faults: &Collector) {
    if !present(file, "the password file", faults) {
        return;
    }
    open_to_others(file, file.span, faults);
    match std::fs::read_to_string(&file.value) {
        Ok(text) if text.trim().is_empty() => {
            faults.error(file.span, format!("{} is empty; remove it and run `foobar pki`", file.display()));
        }
        Ok(_) => {}
        Err(error) => faults.error(file.span, format!("cannot read {}: {error}", file.display())),
    }
}

/// Folders and files that processes are given.
fn processes(site: &Site, servers: &[&Server], faults: &Collector) {
    for process in &site.processes {
        if !servers.iter().any(|server| process.runs_on(server)) {
            continue;
        }
        match &process.kind {
            SiteProcess::Nginx { root, .. } if !root.is_dir() => {
                faults.error(root.span, format!("{} is no folder on this machine; make it", root.display()));
            }
            SiteProcess::Prometheus { rules: Some(rules), .. } if !rules.is_file() => {
                faults.error(rules.span, format!("{} is no file on this machine", rules.display()));
            }
            SiteProcess::Command { folder, files, .. } => {
                if let Some(folder) = folder
                    && !folder.is_dir()
                {
                    faults.error(folder.span, format!("{} is no folder on this machine; make it", folder.display()));
                }
                templates(files).for_each(|path| template(path, faults));
            }
            _ => {}
        }
    }
}

/// A template: there, a text, with no placeholder that nobody fills.
fn template(path: &At<std::path::PathBuf>, faults: &Collector) {
    match std::fs::read_to_string(&path.value) {
        Ok(text) => {
            if let Err(why) = text::template(&text) {
                faults.error(path.span, format!("{}: {why}", path.display()));
            }
        }
        Err(error) => faults.error(path.span, format!("cannot read the template {}: {error}", path.display())),
    }
}

fn present(path: &At<std::path::PathBuf>, what: &str, faults: &Collector) -> bool {
    match std::fs::metadata(&path.value) {
        Ok(metadata) if metadata.is_file() => true,
        Ok(_) => {
            faults.error(path.span, format!("{what} {} is no file", path.display()));
            false
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message =
                format!("{what} {} is not on this machine; put it there, or let `foobar pki` make it", path.display());
            faults.error(path.span, message);
            false
        }
        Err(error) => {
            faults.error(path.span, format!("cannot look at {what} {}: {error}", path.display()));
            false
        }
    }
}

fn open_to_others(path: &Path, span: Span, faults: &Collector) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o007 != 0
    {
        let message = format!("{0} is open to everybody on this machine; run `chmod o= {0}`", path.display());
        faults.warning(span, message);
    }
}
