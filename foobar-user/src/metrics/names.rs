//! Every metric family of foobar, once. The names are frozen: dashboards and alerts of other people use them.
//!
//! A family that is not listed in [`ALL`] cannot be encoded by the agent without failing a test, and every name
//! that a rule or a panel under `deploy/` uses must be here.

use super::family::Family;

/// Packets by verdict and reason.
pub const VERDICT_PACKETS: Family =
    Family::counter("foobar_verdict_packets", &["verdict", "reason"], "Packets by verdict and its reason");
/// Bytes by verdict and reason.
pub const VERDICT_BYTES: Family =
    Family::counter("foobar_verdict_bytes", &["verdict", "reason"], "Bytes of packets by verdict and its reason");
/// Packets by rule.
pub const RULE_PACKETS: Family =
    Family::counter("foobar_rule_packets", &["rule"], "Packets that a firewall rule decided");
/// Bytes by rule.
pub const RULE_BYTES: Family =
    Family::counter("foobar_rule_bytes", &["rule"], "Bytes of packets that a firewall rule decided");
/// Packets of tunnels.
pub const TUNNEL_PACKETS: Family = Family::counter(
    "foobar_tunnel_packets",
    &["way"],
    "Packets that were put into tunnels to backends (sent), and taken out of those that end here (received)",
);
/// Bytes of tunnels.
pub const TUNNEL_BYTES: Family =
    Family::counter("foobar_tunnel_bytes", &["way"], "Bytes of these packets, of the frames as they came");
/// New connections by service.
pub const SERVICE_CONNECTIONS: Family =
    Family::counter("foobar_service_connections", &["service"], "New connections given to a backend");
/// Packets by service.
pub const SERVICE_PACKETS: Family =
    Family::counter("foobar_service_packets", &["service"], "Packets forwarded for a service");
/// Bytes by service.
pub const SERVICE_BYTES: Family =
    Family::counter("foobar_service_bytes", &["service"], "Bytes of packets forwarded for a service");
/// New connections by backend.
pub const BACKEND_CONNECTIONS: Family =
    Family::counter("foobar_backend_connections", &["service", "backend"], "New connections given to this backend");
/// Flows by backend.
pub const BACKEND_FLOWS: Family = Family::gauge(
    "foobar_backend_flows",
    &["service", "backend"],
    "Flows from the wire and connections of local sockets that this backend has now",
);
/// Connections that a backend has not taken.
pub const BACKEND_CONNECT_FAILURES: Family = Family::counter(
    "foobar_backend_connect_failures",
    &["service", "backend"],
    "Connections that this backend has not taken: refused, unreachable, or of local sockets without an answer for half a second",
);
/// Packets by backend.
pub const BACKEND_PACKETS: Family =
    Family::counter("foobar_backend_packets", &["service", "backend"], "Packets forwarded to and from this backend");
/// Bytes by backend.
pub const BACKEND_BYTES: Family = Family::counter(
    "foobar_backend_bytes",
    &["service", "backend"],
    "Bytes of packets forwarded to and from this backend",
);
/// Health by backend.
pub const BACKEND_UP: Family = Family::gauge(
    "foobar_backend_up",
    &["service", "backend"],
    "1 when every address of the backend passes its checks",
);
/// Membership by backend.
pub const BACKEND_MEMBER: Family = Family::gauge(
    "foobar_backend_member",
    &["service", "backend"],
    "1 when the kernel gives new connections to the backend: it is up and has the role that the service selects",
);
/// Ejection by backend.
pub const BACKEND_EJECTED: Family = Family::gauge(
    "foobar_backend_ejected",
    &["service", "backend"],
    "1 while an address of the backend is given no connections, because it has not taken several in a row",
);
/// Ejections by backend.
pub const BACKEND_EJECTIONS: Family = Family::counter(
    "foobar_backend_ejections",
    &["service", "backend"],
    "Times that an address of the backend was taken out, because it had not taken several connections in a row",
);
/// Replication lag in seconds, as the checks measure it.
pub const BACKEND_LAG_SECONDS: Family = Family::gauge(
    "foobar_backend_lag_seconds",
    &["service", "backend"],
    "Of a replica: age of the oldest byte of its primary's log that it has not replayed, as this server sees both",
);
/// Replication lag in bytes, as the checks measure it.
pub const BACKEND_LAG_BYTES: Family = Family::gauge(
    "foobar_backend_lag_bytes",
    &["service", "backend"],
    "Of a replica: bytes of its primary's log that it has not replayed, as this server sees both",
);
/// Replicas that are left out.
pub const BACKEND_LATE: Family = Family::gauge(
    "foobar_backend_late",
    &["service", "backend"],
    "Of a replica: 1 while it is too far behind for the service's max_lag or max_lag_bytes, and takes no reads",
);
/// Checks by backend.
pub const BACKEND_CHECKS: Family =
    Family::counter("foobar_backend_checks", &["service", "backend", "result"], "Health checks by result");
/// Whether SYNs are answered.
pub const SYN_COOKIES: Family = Family::gauge(
    "foobar_syn_cookies",
    &[],
    "1 while the packet path answers SYNs with cookies, because a listener has too many half-open connections",
);
/// SYN floods.
pub const SYN_FLOODS: Family =
    Family::counter("foobar_syn_floods", &[], "SYN floods since the agent's start, each answered with cookies");
/// Whether the fence is open.
pub const FENCE_OPEN: Family = Family::gauge(
    "foobar_database_fence_open",
    &[],
    "Of a database server with others beside it: 1 while the kernel lets clients in and lets PostgreSQL answer them",
);
/// When the fence goes up.
pub const FENCE_SECONDS: Family = Family::gauge(
    "foobar_database_fence_seconds",
    &[],
    "Time until the kernel does so no more, unless it is put off; 0 when it does not, +Inf when it is not to end",
);
/// Events without room.
pub const EVENTS_LOST: Family = Family::counter(
    "foobar_events_lost",
    &[],
    "Events of rules and drops for which the kernel's ring had no room; their packets were judged and counted all the same",
);
/// Flows in use.
pub const FLOWS: Family = Family::gauge(
    "foobar_flows",
    &["table", "family"],
    "Entries of a flow table in use: established and half-open TCP connections, datagrams",
);
/// Flow table's size.
pub const FLOWS_LIMIT: Family =
    Family::gauge("foobar_flows_limit", &["table", "family"], "Entries that a flow table can hold");
/// Entries for replies.
pub const FLOW_REPLIES: Family = Family::gauge(
    "foobar_flow_replies",
    &["table", "family"],
    "Flows whose replies have an entry of their own: of services with source addresses, or with more VIPs than one",
);
/// How many of them there may be.
pub const FLOW_REPLIES_LIMIT: Family =
    Family::gauge("foobar_flow_replies_limit", &["table", "family"], "Entries for replies that a table can hold");
/// Flows that are over.
pub const FLOWS_ENDED: Family = Family::counter(
    "foobar_flows_ended",
    &["table"],
    "Entries that the agent took out of a flow table, because they had finished or were silent for their time",
);
/// XDP mode.
pub const XDP_MODE: Family = Family::gauge(
    "foobar_xdp_mode",
    &["interface", "mode"],
    "1 for the mode in which the program is attached to the interface, 0 for the others",
);
/// Generation in force.
pub const GENERATION: Family = Family::gauge("foobar_generation", &[], "Number of the rule set in force");
/// Reloads by result.
pub const RELOADS: Family = Family::counter("foobar_reloads", &["result"], "Reloads of the site file by result");
/// Result of the last reload.
pub const RELOAD_LAST_SUCCESSFUL: Family =
    Family::gauge("foobar_reload_last_successful", &[], "1 when the last reload was applied, 0 when it was refused");
/// Version of the agent.
pub const BUILD: Family = Family::info("foobar_build", &["version"], "Version of the agent");
/// Sources that answered.
pub const SOURCE_UP: Family =
    Family::gauge("foobar_metrics_source_up", &["source"], "1 when this source of metrics answered in this scrape");
/// Certificate expiry.
pub const CERTIFICATE_EXPIRY: Family = Family::gauge(
    "foobar_certificate_expiry_timestamp_seconds",
    &["certificate"],
    "When the certificate expires, in seconds since 1970; 0 when it cannot be read",
);
/// Process state.
pub const PROCESS_UP: Family = Family::gauge("foobar_process_up", &["process"], "1 when the process runs");
/// Process restarts.
pub const PROCESS_RESTARTS: Family =
    Family::counter("foobar_process_restarts", &["process"], "Times that the process was started again after it died");
/// Process CPU.
pub const PROCESS_CPU: Family =
    Family::counter("foobar_process_cpu_seconds", &["process"], "CPU time of the process and its children");
/// Process memory.
pub const PROCESS_MEMORY: Family =
    Family::gauge("foobar_process_memory_bytes", &["process"], "Memory of the process and its children");
/// Process stopped by order.
pub const PROCESS_STOPPED: Family = Family::gauge(
    "foobar_process_stopped",
    &["process"],
    "1 when the process does not run because an operator, or the agent for the database, wants that",
);
/// Process throttling, in periods.
pub const PROCESS_THROTTLED_PERIODS: Family = Family::counter(
    "foobar_process_cpu_throttled_periods",
    &["process"],
    "Periods of 100 ms in which its CPU limit held the process up",
);
/// Process throttling, in time.
pub const PROCESS_THROTTLED: Family = Family::counter(
    "foobar_process_cpu_throttled_seconds",
    &["process"],
    "Time for which its CPU limit held the process up, over all CPUs",
);
/// Process OOM kills.
pub const PROCESS_OOM_KILLS: Family = Family::counter(
    "foobar_process_oom_kills",
    &["process"],
    "Processes of it that the kernel killed because its memory limit, or the host's memory, was used up",
);
/// Host CPU.
pub const HOST_CPU: Family =
    Family::counter("foobar_host_cpu_seconds", &["mode"], "CPU time of the host by mode, all CPUs together");
/// Host CPUs.
pub const HOST_CPUS: Family = Family::gauge("foobar_host_cpus", &[], "CPUs of the host that are online");
/// Host memory.
pub const HOST_MEMORY: Family = Family::gauge("foobar_host_memory_bytes", &["state"], "Memory of the host");
/// Host load.
pub const HOST_LOAD1: Family = Family::gauge("foobar_host_load1", &[], "Load average over one minute");
/// Host boot time.
pub const HOST_BOOT_TIME: Family =
    Family::gauge("foobar_host_boot_time_seconds", &[], "When the host booted, in seconds since 1970");
/// Received bytes.
pub const HOST_RECEIVE_BYTES: Family =
    Family::counter("foobar_host_network_receive_bytes", &["interface"], "Bytes received by the interface");
/// Sent bytes.
pub const HOST_TRANSMIT_BYTES: Family =
    Family::counter("foobar_host_network_transmit_bytes", &["interface"], "Bytes sent by the interface");
/// Received packets.
pub const HOST_RECEIVE_PACKETS: Family =
    Family::counter("foobar_host_network_receive_packets", &["interface"], "Packets received by the interface");
/// Sent packets.
pub const HOST_TRANSMIT_PACKETS: Family =
    Family::counter("foobar_host_network_transmit_packets", &["interface"], "Packets sent by the interface");
/// Receive drops.
pub const HOST_RECEIVE_DROPS: Family = Family::counter(
    "foobar_host_network_receive_drops",
    &["interface"],
    "Received packets that the kernel or the card dropped outside of foobar",
);
/// Send drops.
pub const HOST_TRANSMIT_DROPS: Family =
    Family::counter("foobar_host_network_transmit_drops", &["interface"], "Packets dropped before they were sent");
/// Disk.
pub const HOST_FILESYSTEM: Family =
    Family::gauge("foobar_host_filesystem_bytes", &["state"], "Size of the file system that holds the agent's state");
/// nginx answered.
pub const NGINX_UP: Family = Family::gauge("foobar_nginx_up", &[], "1 when nginx's status page answered");
/// nginx connections.
pub const NGINX_CONNECTIONS: Family =
    Family::gauge("foobar_nginx_connections", &["state"], "Connections of nginx; active counts the other states");
/// nginx accepted.
pub const NGINX_ACCEPTED: Family =
    Family::counter("foobar_nginx_connections_accepted", &[], "Connections that nginx accepted");
/// nginx handled.
pub const NGINX_HANDLED: Family =
    Family::counter("foobar_nginx_connections_handled", &[], "Connections that nginx handled");
/// nginx requests.
pub const NGINX_REQUESTS: Family = Family::counter("foobar_nginx_requests", &[], "Requests that nginx received");
/// PostgreSQL answered.
pub const POSTGRES_UP: Family = Family::gauge("foobar_postgres_up", &[], "1 when PostgreSQL answered");
/// PostgreSQL role.
pub const POSTGRES_IN_RECOVERY: Family =
    Family::gauge("foobar_postgres_in_recovery", &[], "1 on a replica, 0 on a primary");
/// PostgreSQL connections.
pub const POSTGRES_CONNECTIONS: Family =
    Family::gauge("foobar_postgres_connections", &["state"], "Clients' connections by state");
/// PostgreSQL connection limit.
pub const POSTGRES_CONNECTIONS_LIMIT: Family =
    Family::gauge("foobar_postgres_connections_limit", &[], "The most connections that PostgreSQL accepts");
/// PostgreSQL transactions.
pub const POSTGRES_TRANSACTIONS: Family =
    Family::counter("foobar_postgres_transactions", &["result"], "Transactions of all databases by result");
/// PostgreSQL rows.
pub const POSTGRES_TUPLES: Family =
    Family::counter("foobar_postgres_tuples", &["operation"], "Rows of all databases by operation");
/// PostgreSQL size.
pub const POSTGRES_DATABASE_SIZE: Family =
    Family::gauge("foobar_postgres_database_size_bytes", &["database"], "Size of a database on disk");
/// Replication lag in bytes.
pub const POSTGRES_LAG_BYTES: Family = Family::gauge(
    "foobar_postgres_replication_lag_bytes",
    &["replica"],
    "On the primary: write-ahead log that a replica has not yet replayed",
);
/// Replication lag in seconds.
pub const POSTGRES_LAG_SECONDS: Family = Family::gauge(
    "foobar_postgres_replication_lag_seconds",
    &[],
    "On a replica: age of the last replayed transaction while received log waits to be replayed, else 0",
);
/// Replication connected.
pub const POSTGRES_RECEIVING: Family = Family::gauge(
    "foobar_postgres_receiving",
    &[],
    "On a replica: 1 while it streams from its primary, 0 when it is cut off and its data grows old",
);
/// Settings that are not in force.
pub const POSTGRES_PENDING_RESTART: Family = Family::gauge(
    "foobar_postgres_pending_restart",
    &[],
    "Settings of PostgreSQL that were changed in the site file and take effect at its next start",
);
/// Epoch of the lease.
pub const DATABASE_EPOCH: Family = Family::gauge(
    "foobar_database_epoch",
    &[],
    "Epoch of the database's lease as this server knows it: it grows by one with every change of the leader",
);
/// Who leads.
pub const DATABASE_LEADS: Family = Family::gauge(
    "foobar_database_leads",
    &[],
    "1 on the server that holds the lease of the database, and so may be written; 0 on the others",
);
/// Who may take over.
pub const DATABASE_IN_SYNC: Family = Family::gauge(
    "foobar_database_in_sync",
    &[],
    "Servers, beside the leader, that have every acknowledged commit, and so may take over; at 0 nobody does",
);
/// Age of what is known.
pub const DATABASE_STORE_AGE: Family = Family::gauge(
    "foobar_database_store_age_seconds",
    &[],
    "Time since this server last read the store of the lease; a leader that cannot for as long as the lease lasts is fenced",
);
/// What only this server had.
pub const DATABASE_DIVERGED: Family = Family::gauge(
    "foobar_database_diverged_transactions",
    &[],
    "Transactions that only this server had committed and its data no longer has; their rows, or else the data of before, are kept in its \
     state folder until somebody removes the files; at least one for each time that not all could be saved",
);
/// Promotions.
pub const DATABASE_PROMOTIONS: Family =
    Family::counter("foobar_database_promotions", &[], "Times that this server began to lead the database");
/// Time of a promotion.
pub const DATABASE_PROMOTION_SECONDS: Family = Family::gauge(
    "foobar_database_promotion_seconds",
    &[],
    "Time from the lease to the first client that is let in, the last time that this server began to lead",
);
/// Edge requests.
pub const EDGE_REQUESTS: Family =
    Family::counter("foobar_edge_requests", &["service", "code"], "Requests answered by the edge by status code");
/// Edge latency.
pub const EDGE_REQUEST_DURATION: Family =
    Family::histogram("foobar_edge_request_duration_seconds", &["service"], "Time from request to whole response");
/// Edge handshakes.
pub const EDGE_HANDSHAKES: Family =
    Family::counter("foobar_edge_handshakes", &["version", "result"], "TLS handshakes by version and result");
/// Edge connections.
pub const EDGE_CONNECTIONS: Family = Family::gauge("foobar_edge_connections", &[], "Open connections of clients");
/// Edge upstream errors.
pub const EDGE_UPSTREAM_ERRORS: Family =
    Family::counter("foobar_edge_upstream_errors", &["reason"], "Failed exchanges with backends by reason");

/// Expiry of the certificate that the edge shows.
pub const EDGE_CERTIFICATE_EXPIRY: Family = Family::gauge(
    "foobar_edge_certificate_expiry_timestamp_seconds",
    &["service"],
    "When the certificate that the edge shows expires, in seconds since 1970",
);

/// Every family of an agent.
pub const ALL: &[Family] = &[
    VERDICT_PACKETS,
    VERDICT_BYTES,
    RULE_PACKETS,
    RULE_BYTES,
    TUNNEL_PACKETS,
    TUNNEL_BYTES,
    SERVICE_CONNECTIONS,
    SERVICE_PACKETS,
    SERVICE_BYTES,
    BACKEND_CONNECTIONS,
    BACKEND_FLOWS,
    BACKEND_CONNECT_FAILURES,
    BACKEND_PACKETS,
    BACKEND_BYTES,
    BACKEND_UP,
    BACKEND_MEMBER,
    BACKEND_EJECTED,
    BACKEND_EJECTIONS,
    BACKEND_LAG_SECONDS,
    BACKEND_LAG_BYTES,
    BACKEND_LATE,
    BACKEND_CHECKS,
    FLOWS,
    FLOWS_LIMIT,
    FLOW_REPLIES,
    FLOW_REPLIES_LIMIT,
    FLOWS_ENDED,
    SYN_COOKIES,
    SYN_FLOODS,
    FENCE_OPEN,
    FENCE_SECONDS,
    EVENTS_LOST,
    XDP_MODE,
    GENERATION,
    RELOADS,
    RELOAD_LAST_SUCCESSFUL,
    BUILD,
    SOURCE_UP,
    CERTIFICATE_EXPIRY,
    PROCESS_UP,
    PROCESS_RESTARTS,
    PROCESS_CPU,
    PROCESS_MEMORY,
    PROCESS_STOPPED,
    PROCESS_THROTTLED_PERIODS,
    PROCESS_THROTTLED,
    PROCESS_OOM_KILLS,
    HOST_CPU,
    HOST_CPUS,
    HOST_MEMORY,
    HOST_LOAD1,
    HOST_BOOT_TIME,
    HOST_RECEIVE_BYTES,
    HOST_TRANSMIT_BYTES,
    HOST_RECEIVE_PACKETS,
    HOST_TRANSMIT_PACKETS,
    HOST_RECEIVE_DROPS,
    HOST_TRANSMIT_DROPS,
    HOST_FILESYSTEM,
    NGINX_UP,
    NGINX_CONNECTIONS,
    NGINX_ACCEPTED,
    NGINX_HANDLED,
    NGINX_REQUESTS,
    POSTGRES_UP,
    POSTGRES_IN_RECOVERY,
    POSTGRES_CONNECTIONS,
    POSTGRES_CONNECTIONS_LIMIT,
    POSTGRES_TRANSACTIONS,
    POSTGRES_TUPLES,
    POSTGRES_DATABASE_SIZE,
    POSTGRES_LAG_BYTES,
    POSTGRES_LAG_SECONDS,
    POSTGRES_RECEIVING,
    POSTGRES_PENDING_RESTART,
    DATABASE_EPOCH,
    DATABASE_LEADS,
    DATABASE_IN_SYNC,
    DATABASE_STORE_AGE,
    DATABASE_DIVERGED,
    DATABASE_PROMOTIONS,
    DATABASE_PROMOTION_SECONDS,
    EDGE_REQUESTS,
    EDGE_REQUEST_DURATION,
    EDGE_HANDSHAKES,
    EDGE_CONNECTIONS,
    EDGE_UPSTREAM_ERRORS,
    EDGE_CERTIFICATE_EXPIRY,
];

/// Names of every series of an agent, as queries use them.
pub fn series() -> impl Iterator<Item = String> {
    ALL.iter().flat_map(Family::series)
}
