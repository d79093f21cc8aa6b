//! Patroni's settings: its last safe ones, and PostgreSQL's as ours.

use std::path::Path;

use foobar_user::plan::Endpoint;
use serde_json::{Value, json};

use crate::failover::address;

/// Name of the cluster.
pub(super) const SCOPE: &str = "bench";
/// Port of its HTTP API.
pub(super) const API: u16 = 8008;
/// Seconds: the least of each by its documentation. Since 3.2 its code takes no less; 3.0 does, without being safe.
pub(super) const TTL: u32 = 20;
/// See [`TTL`].
pub(super) const LOOP_WAIT: u32 = 1;
/// See [`TTL`].
pub(super) const RETRY_TIMEOUT: u32 = 3;
/// Who replicates.
pub(super) const REPLICATOR: &str = "replicator";

/// The settings of a server whose files are in `folder`, in JSON, which is YAML too.
pub(super) fn of(server: &str, folder: &Path, data: &Path, password: &str, store: &[Endpoint]) -> Value {
    let address = address(server);
    let file = |name: &str| folder.join(name).display().to_string();
    let hosts: Vec<String> = store.iter().map(Endpoint::authority).collect();
    json!({
        "scope": SCOPE,
        "name": server,
        "log": { "level": "INFO", "format": "%(created)f %(levelname)s: %(message)s" },
        "restapi": { "listen": format!("{address}:{API}"), "connect_address": format!("{address}:{API}") },
        "etcd3": {
            "hosts": hosts,
            "protocol": "https",
            "cacert": file("ca.pem"),
            "cert": file("own.pem"),
            "key": file("own.key"),
        },
        "bootstrap": {
            "dcs": {
                "ttl": TTL,
                "loop_wait": LOOP_WAIT,
                "retry_timeout": RETRY_TIMEOUT,
                "maximum_lag_on_failover": 1 << 20,
                // As ours in its default mode: commits wait for a replica while there is one, and only such a one takes over.
                "synchronous_mode": true,
                "postgresql": { "use_pg_rewind": true, "use_slots": true, "parameters": parameters() },
            },
            "initdb": [{ "encoding": "UTF8" }],
        },
        "postgresql": {
            "listen": format!("{address}:5432"),
            "connect_address": format!("{address}:5432"),
            "data_dir": data,
            "bin_dir": "/usr/lib/postgresql/15/bin",
            "pgpass": file("pgpass"),
            "authentication": {
                "superuser": { "username": "postgres", "password": password },
                "replication": { "username": REPLICATOR, "password": password },
            },
            "pg_hba": [
                "local all postgres trust",
                "host all all 10.0.1.0/24 scram-sha-256",
                format!("host replication {REPLICATOR} 10.0.1.0/24 scram-sha-256"),
            ],
            "parameters": { "unix_socket_directories": folder },
            "basebackup": [{ "checkpoint": "fast" }],
        },
    })
}

/// As our agent writes them.
fn parameters() -> Value {
    json!({
        "max_connections": 100,
        "shared_buffers": "128MB",
        "password_encryption": "scram-sha-256",
        "max_wal_senders": 10,
        "max_replication_slots": 10,
        "wal_keep_size": "64MB",
        "max_slot_wal_keep_size": "4GB",
        "hot_standby_feedback": "on",
        "recovery_init_sync_method": "syncfs",
        "wal_sender_timeout": "5s",
        "wal_receiver_timeout": "5s",
        "wal_retrieve_retry_interval": "500ms",
        "wal_receiver_status_interval": "1s",
        "tcp_keepalives_idle": 10,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 3,
        "log_timezone": "UTC",
        "timezone": "UTC",
    })
}
