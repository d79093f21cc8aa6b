//! Reachability: what the site file says about who may reach whom, and everybody trying every door at once.
//!
//! ```text
//!   site file ─► doors ─┬─► policy: who may pass, by the file's words alone (the derived rules are not looked at)
//!                       └─► knock: what came back in the bed
//! ```

mod door;
mod knock;
mod policy;

pub use door::{Door, Knock, doors};
pub use knock::knock_all;
pub use policy::admits;
