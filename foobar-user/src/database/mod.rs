//! Who of the database servers may be written: a lease with an epoch, kept by one store for all, and what each server does by it.
//!
//! Each server's [`Keeper`] reads the store, looks at its own PostgreSQL, decides ([`decide`], a pure function) and acts. A
//! lease ends by itself: its holder fences itself by its own clock *before* another server's clock lets that one take it.

mod any;
pub mod decide;
mod duty;
pub mod etcd;
mod keeper;
mod local;
mod promote;
mod report;
pub mod state;
mod store;
pub mod sync;
mod upstream;
pub mod witness;

pub use any::AnyStore;
pub use duty::{Duties, Duty};
pub use keeper::{Fencing, Keeper, Post};
pub use local::Socket;
pub use promote::promote;
pub use report::{DatabaseReport, MemberReport};
pub use state::{Member, State};
pub use store::{Snapshot, Store};
pub use upstream::Follows;
