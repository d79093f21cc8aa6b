//! The test bed: a whole site in network namespaces of one machine, with an agent of its own for each server.
//!
//! ```text
//!   client                    lb1                          switch (a bridge)
//!   203.0.113.50 ──veth── eth1 203.0.113.2        ┌───────┬───────┬───────┬───────┬───────┬─────────┐
//!   2001:db8::50          2001:db8::2             │       │       │       │       │       │         │
//!                         eth0 10.0.1.1 ──────────┤     web1    web2    app1    app2    db1, db2   monitor
//!   VIPs, on lb1's lo:         fd00:1::1                10.0.1.11    .12     .21     .22   .31, .32       .41
//!   203.0.113.10, 2001:db8::10                          fd00:1::11  ::12    ::21    ::22  ::31, ::32     ::41
//!
//!   db3 (.33, ::33) is at the switch, too: no server of the site, but of clusters with a site file of their own.
//!
//!   https ─► edge on lb1 ─mTLS─► nginx on web ─► guestbook on app ─► PostgreSQL on db1 (writes), db2 (reads)
//!   :8080 ─► XDP NAT on lb1 ───► nginx on web
//!   :7007/udp ─► XDP NAT on lb1 ► echo on web
//! ```
//!
//! Each name above is a namespace `foobar-<run id>-<name>`. Everything that a run makes carries its run id, is removed when
//! its guard is dropped, and is found and removed by the next run when a crash prevented that ([`Bed::sweep`]).

pub mod agent;
pub mod bed;
pub mod bench;
pub(crate) mod bpf;
pub mod bpffs;
pub mod capture;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod console;
pub mod datagram;
pub mod echo;
pub mod eventually;
pub mod failover;
pub mod flood;
pub mod guestbook;
pub mod heartbeat;
pub mod host;
pub mod leftovers;
pub mod load;
pub mod lone;
pub mod metrics;
pub mod namespace;
pub mod network;
pub mod packets;
pub mod passing;
pub mod probe;
pub mod process;
pub mod progress;
pub mod prometheus;
pub mod reach;
pub mod router;
pub mod run;
pub mod site;
pub mod tcp_info;
pub mod transfer;
pub mod wrk;

/// Whether the long forms of tests are asked for: `cargo xtask test --long`.
pub fn is_long() -> bool {
    std::env::var_os("FOOBAR_LONG").is_some()
}

pub use bed::{Bed, Options};
pub use eventually::{eventually, obtained};
pub use host::Host;
pub use network::Network;
pub use progress::{Progress, Silent};
