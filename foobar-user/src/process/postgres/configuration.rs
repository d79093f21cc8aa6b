//! `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf`: wholly ours, beside the data folder, the same on every server.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, bail};
use ipnet::IpNet;

use super::super::account::Account;
use super::super::files;
use super::grip::{FOLLOW_FILE, SYNC_FILE};
use super::{REPLICATOR, tls};
use crate::plan::PostgresPlan;

/// Longest path of a unix socket, in bytes.
const SOCKET_PATH_BYTES: usize = 107;
/// WAL that a slot may hold back for a replica that is away; beyond it the replica must be copied anew.
const SLOT_WAL: &str = "4GB";

/// Writes the three files into `folder`; returns the fingerprint of their content.
pub(super) fn write(plan: &PostgresPlan, folder: &Path, sockets: &Path, account: &Account) -> Result<String> {
    let socket = sockets.join(format!(".s.PGSQL.{}", plan.port));
    if socket.as_os_str().len() > SOCKET_PATH_BYTES {
        bail!(
            "the socket's path {} is longer than {SOCKET_PATH_BYTES} bytes: choose a shorter --run-dir",
            socket.display()
        );
    }
    let texts = [
        ("postgresql.conf", settings(plan, folder, sockets)?),
        ("pg_hba.conf", access(plan)?),
        ("pg_ident.conf", identities(account)?),
    ];
    for (name, text) in &texts {
        files::write_if_changed(&folder.join(name), text, 0o644, None)?;
    }
    Ok(files::fingerprint(texts.iter().map(|(_, text)| text.as_bytes())))
}

fn settings(plan: &PostgresPlan, folder: &Path, sockets: &Path) -> Result<String> {
    let listen: Vec<String> = plan.listen.iter().map(ToString::to_string).collect();
    let mut text = String::from("# Written by foobar agent from the site file; changes here are lost.\n");
    let strings = [
        ("listen_addresses", listen.join(",")),
        ("unix_socket_directories", sockets.display().to_string()),
        ("hba_file", folder.join("pg_hba.conf").display().to_string()),
        ("ident_file", folder.join("pg_ident.conf").display().to_string()),
        ("log_line_prefix", "%m [%p] %q%u@%d ".to_owned()),
    ];
    for (name, value) in strings {
        writeln!(text, "{name} = {}", quoted(&value))?;
    }
    writeln!(text, "port = {}", plan.port)?;
    if plan.tls.is_some() {
        let tls = tls::Paths::of(folder);
        for (name, path) in [("ssl_ca_file", tls.ca), ("ssl_cert_file", tls.certificate), ("ssl_key_file", tls.key)] {
            writeln!(text, "{name} = {}", quoted(&path.display().to_string()))?;
        }
        text.push_str("ssl = on\nssl_min_protocol_version = 'TLSv1.3'\n");
    }
    write!(
        text,
        "max_connections = 100\nshared_buffers = 128MB\n\
         password_encryption = scram-sha-256\n\
         restart_after_crash = off\nwal_level = replica\nwal_log_hints = on\nmax_wal_senders = 10\nmax_replication_slots = 10\n\
         wal_keep_size = 64MB\nmax_slot_wal_keep_size = {SLOT_WAL}\n\
         hot_standby = on\nhot_standby_feedback = on\nrecovery_init_sync_method = syncfs\n\
         wal_sender_timeout = 5s\nwal_receiver_timeout = 5s\nwal_retrieve_retry_interval = 500ms\n\
         wal_receiver_status_interval = 1s\n\
         tcp_keepalives_idle = 10\ntcp_keepalives_interval = 2\ntcp_keepalives_count = 3\n\
         log_destination = stderr\nlogging_collector = off\nlog_timezone = 'UTC'\ntimezone = 'UTC'\n"
    )?;
    for (name, value) in &plan.settings {
        writeln!(text, "{name} = {}", quoted(value))?;
    }
    // Without a keeper nobody would ever change whom commits wait for.
    let kept = plan.failover.is_some().then_some(SYNC_FILE);
    for file in kept.into_iter().chain([FOLLOW_FILE]) {
        writeln!(text, "include_if_exists = {}", quoted(&folder.join(file).display().to_string()))?;
    }
    Ok(text)
}

/// Who may log in: root and the account over the socket, the app's role from its clients, replicas; nobody else.
fn access(plan: &PostgresPlan) -> Result<String> {
    let mut text = String::from("local all postgres peer map=foobar\n");
    for client in &plan.clients {
        writeln!(text, "host {} {} {client} scram-sha-256", quote(&plan.database)?, quote(&plan.user)?)?;
    }
    // Replicas copy and stream, and ask the leader for what they rewind.
    let (kind, proof) = if plan.tls.is_some() { ("hostssl", " clientcert=verify-ca") } else { ("host", "") };
    for peer in &plan.peers {
        for database in ["replication", "postgres"] {
            writeln!(text, "{kind} {database} {REPLICATOR} {} scram-sha-256{proof}", IpNet::from(*peer))?;
        }
    }
    Ok(text)
}

/// A value of a setting.
pub(super) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn identities(account: &Account) -> Result<String> {
    Ok(format!("foobar root postgres\nfoobar {} postgres\n", quote(&account.name)?))
}

fn quote(name: &str) -> Result<String> {
    if name.contains(['"', '\n', '\r', '\0']) {
        bail!("{name:?} cannot be named in pg_hba.conf: choose a name without quotes and line ends");
    }
    Ok(format!("\"{name}\""))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plan::TlsFiles;

    #[test]
    fn only_the_derived_ones_may_log_in() {
        let plan = PostgresPlan {
            listen: vec![[10, 0, 1, 31].into()],
            port: 5432,
            server: "db1".into(),
            primary: "db1".into(),
            primary_address: [10, 0, 1, 31].into(),
            peers: vec![[10, 0, 1, 32].into()],
            clients: vec!["10.0.1.21/32".parse().expect("a prefix")],
            database: "guestbook".into(),
            user: "guest".into(),
            password_file: "/p".into(),
            replication_password_file: "/r".into(),
            tls: Some(TlsFiles { ca: "/ca".into(), certificate: "/c".into(), key: "/k".into() }),
            settings: BTreeMap::new(),
            failover: None,
        };
        assert_eq!(
            access(&plan).expect("names are fine"),
            "local all postgres peer map=foobar\n\
             host \"guestbook\" \"guest\" 10.0.1.21/32 scram-sha-256\n\
             hostssl replication replicator 10.0.1.32/32 scram-sha-256 clientcert=verify-ca\n\
             hostssl postgres replicator 10.0.1.32/32 scram-sha-256 clientcert=verify-ca\n"
        );
    }
}
