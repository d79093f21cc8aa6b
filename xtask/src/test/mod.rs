//! `cargo xtask test`.
use anyhow::Result;
use crate::cli::TestOptions;
pub(crate) fn run(_: &TestOptions) -> Result<bool> { Ok(true) }
