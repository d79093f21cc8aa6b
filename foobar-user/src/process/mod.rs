//! Children of the agent: starts, restarts, reloads, adopts and stops what the plan names; leaves no orphan.
//!
//! Each process has its own session, account, log file and cgroup. Children go on when the agent is killed; the next
//! agent finds them in `<state>/processes.json` and adopts them.

mod account;
mod backoff;
mod board;
mod cgroup;
mod command;
mod controllers;
mod files;
mod folders;
mod hold;
mod kind;
mod launch;
mod limits;
mod log;
mod main_process;
mod ready;
mod record;
mod spec;
mod stopped;
mod supervisor;
mod task;
mod templates;

pub mod nginx;
pub mod postgres;
pub mod prometheus;

pub use backoff::Backoff;
pub use board::{ProcessState, ProcessStatus};
pub use controllers::missing_controllers;
pub use folders::Folders;
pub use hold::Hold;
pub use spec::{SpawnFn, Spawned};
pub use supervisor::{Earlier, ProcessChange, ProcessUsage, Supervisor};
