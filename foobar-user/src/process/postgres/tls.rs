//! Certificates for replication, in copies that PostgreSQL's account may read: those of the site stay root's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::account::Account;
use super::super::files;
use crate::plan::TlsFiles;

/// Where the copies are.
pub(super) struct Paths {
    pub(super) ca: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Paths {
    pub(super) fn of(folder: &Path) -> Self {
        let tls = folder.join("tls");
        Self { ca: tls.join("ca.pem"), certificate: tls.join("server.pem"), key: tls.join("server.key") }
    }

    /// Copies what has changed; returns the fingerprint of all.
    pub(super) fn copy(&self, from: &TlsFiles, account: &Account) -> Result<String> {
        if let Some(folder) = self.key.parent() {
            files::owned_folder(folder, 0o700, account)?;
        }
        let mut texts = Vec::new();
        for (from, to) in [(&from.ca, &self.ca), (&from.certificate, &self.certificate), (&from.key, &self.key)] {
            let text = fs::read_to_string(from)
                .with_context(|| format!("cannot read {}; `foobar pki` makes missing certificates", from.display()))?;
            files::write_if_changed(to, &text, 0o600, Some(account))?;
            texts.push(text);
        }
        Ok(files::fingerprint(texts.iter().map(String::as_bytes)))
    }
}
