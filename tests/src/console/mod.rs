//! `foobar-bed run`: sets the site up, shows it working, and takes it down.

mod measure;
mod report;
pub(crate) mod screen;
mod session;
pub(crate) mod stop;
mod view;

pub use session::{Arguments, run};
