//! `[database]`: what PostgreSQL is initialised with.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Reader, etcd};
use crate::database::sync::Mode;
use crate::process::postgres::REPLICATOR;
use crate::sets::ttl;
use crate::site::at::At;
use crate::site::model::Database;
use crate::site::section::Section;
use crate::site::text;

/// Leases that make sense, in milliseconds: shorter ones end by a busy machine, longer ones keep everybody waiting.
const LEASE_MS: RangeInclusive<u64> = 1_000..=60_000;
const LEASE_MS_DEFAULT: u64 = 2_000;
const WITNESS_PORT: u16 = 9901;
const DEGRADE_DEFAULT: Duration = Duration::from_secs(5);
const DEGRADE_MAX: Duration = Duration::from_secs(86_400);
/// Settings that are written from the plan.
const OURS: [&str; 28] = [
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "hba_file",
    "ident_file",
    "config_file",
    "data_directory",
    "log_line_prefix",
    "log_destination",
    "logging_collector",
    "password_encryption",
    "wal_level",
    "wal_log_hints",
    "full_page_writes",
    "fsync",
    "synchronous_commit",
    "synchronous_standby_names",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    "restart_after_crash",
    "hot_standby",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "ssl_min_protocol_version",
    "recovery_init_sync_method",
];

pub(super) fn read(reader: &Reader<'_>, mut section: Section<'_>) -> Option<Database> {
    let name = section.parse("name", "a string", text::account);
    let name = section.need("name", name, "name = \"guestbook\"");
    let user = section.parse("user", "a string", |word| match text::account(word)? {
        user if user == "postgres" || user == REPLICATOR => {
            Err(format!("`{user}` is PostgreSQL's own; name another owner"))
        }
        user => Ok(user),
    });
    let user = section.need("user", user, "user = \"guestbook\"");
    let password_file = reader.path(&mut section, "password_file");
    let password_file = section.need("password_file", password_file, "password_file = \"secrets/site.password\"");
    let replication = reader.path(&mut section, "replication_password_file");
    let replication = section.need(
        "replication_password_file",
        replication,
        "replication_password_file = \"secrets/replication.password\"",
    );
    if let (Some(owner), Some(replication)) = (&password_file, &replication)
        && owner == replication
    {
        section.faults.error(replication.span, "the owner and replication share one password file; name two files");
    }
    let primary = section.parse("primary", "a server's name", text::name);
    let primary = section.need("primary", primary, "primary = \"db1\"");
    let mode = mode(&mut section);
    let lease_ms = section.integer("lease_ms", LEASE_MS).map_or(LEASE_MS_DEFAULT, |lease| lease.value);
    let witness_port = section.port("witness_port", 1024).unwrap_or(At { value: WITNESS_PORT, span: section.span });
    let etcd = match section.table("etcd", "etcd = { endpoints = [\"https://10.0.1.51:2379\"] }") {
        Some(table) => {
            section.refuse("witness_port", "with `etcd` there is no witness; leave it out");
            Some(etcd::read(reader, table)?)
        }
        None => None,
    };
    let settings = section.table("settings", "settings = { shared_buffers = \"1GB\" }");
    let settings = settings.map(read_settings).unwrap_or_default();
    section.finish();
    Some(Database {
        name: name?.value,
        user: user?.value,
        password_file: password_file?,
        replication_password_file: replication?,
        primary: primary?,
        mode,
        lease_ms,
        witness_port,
        etcd,
        settings,
    })
}

fn mode(section: &mut Section<'_>) -> Mode {
    let strict = section.parse("mode", "\"available\" or \"strict\"", |word| match word {
        "available" => Ok(false),
        "strict" => Ok(true),
        other => Err(format!("`{other}` is no mode: \"available\" or \"strict\"")),
    });
    if strict.is_some_and(|strict| strict.value) {
        section.refuse("degrade_after", "with `mode = \"strict\"` writes always wait for a replica; leave it out");
        return Mode::Strict;
    }
    let after = section.parse("degrade_after", "a time such as \"5s\"", |text| {
        let after = ttl::parse(text)?;
        if after > DEGRADE_MAX { Err(format!("`{text}` is longer than 1d, which is the limit")) } else { Ok(after) }
    });
    let after = after.map_or(DEGRADE_DEFAULT, |after| after.value);
    Mode::Available { degrade_after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }
}

/// PostgreSQL knows what they mean; what foobar sets is refused here.
fn read_settings(settings: Section<'_>) -> BTreeMap<String, String> {
    let faults = settings.faults;
    let mut read = BTreeMap::new();
    for (name, value) in settings.strings() {
        let word = name.value.as_str();
        let is_name =
            word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte));
        if OURS.contains(&word) {
            let message = format!("`{word}` follows from the rest of the site file; leave it out");
            faults.error(name.span, message);
        } else if !is_name || word.is_empty() {
            faults.error(name.span, format!("`{word}` is no setting of PostgreSQL: small letters, digits and `_`"));
        } else if value.value.contains(['\n', '\0']) {
            faults.error(value.span, "a setting is one line".to_owned());
        } else {
            read.insert(name.value, value.value);
        }
    }
    read
}
