//! What the agent sets on its host beside the programs: VIP addresses, forwarding, and the checks before it starts.

pub mod requirements;
pub mod settings;
pub mod sockets;
pub mod vips;
pub mod vlans;
pub mod way;
