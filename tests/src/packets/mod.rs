//! Packets through the packet path: on the host and in the kernel, against what tables say, each other and a model.
//!
//! ```text
//!   client .50, client2 .51, edge .60          balancer lb1                     web1 .11, web2 .12, web3 .13
//!   203.0.113.0/24 ───────────────── front .2 ┌───────────┐ back .1 ─────────── 10.0.1.0/24
//!   2001:db8::/64                             │ VIP .10   │                     fd00:1::/64
//!   office 198.51.100.0/24 (no route back)    └───────────┘                     admin .41, silent .99, narrow .98
//! ```

pub mod answer;
pub mod case;
pub mod chain;
pub mod check;
pub mod core;
pub mod counters;
pub mod differential;
pub mod everything;
pub mod fence;
pub mod frame;
pub mod handshakes;
pub mod hosts;
pub mod kernel;
pub mod members;
pub mod model;
pub mod network;
pub mod own;
pub mod random;
pub mod seeds;
pub mod seen;
pub mod session;
pub mod shell;
pub mod stack;
pub mod tables;
pub mod verified;
pub mod walks;
pub mod world;
