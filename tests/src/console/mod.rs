//! `foobar-bed run`: sets the site up, shows it working, and takes it down.

mod measure;
mod report;
mod screen;
mod session;
mod stop;
mod view;

pub use session::{Arguments, run};
