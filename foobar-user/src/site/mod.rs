//! The site file: read, validated once, and from then on a value that cannot be wrong in itself.
//!
//! [`Site::read`] looks at nothing but the file; what it names (certificates, passwords) is looked at by
//! [`Checked::check_files`], because `foobar pki` makes some of it and another machine has none of it.

mod at;
mod check;
mod fault;
mod model;
mod read;
mod section;
pub mod sets;
mod text;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

pub use at::{At, Span};
pub use check::files::Extent;
pub use fault::{Fault, Faults, Severity, Source};
pub use model::{
    Database, Etcd, Forward, Peer, Place, Process, Server, Service, Set, Site, SiteCheck, SiteCheckKind, SiteContent,
    SiteFile, SiteProcess, SiteReady, SiteReadyCheck, Target, Tls, UserRule,
};

/// A site, its source, and what a person should look at in it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The site.
    pub site: Site,
    /// Its file.
    pub source: Source,
    /// Warnings only.
    pub warnings: Faults,
}

impl Site {
    /// Reads and validates a site file, and nothing that it names.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        Checked::read(path).map(|checked| checked.site)
    }

    /// Validates the text of a site file; `path` names it in faults and is what relative paths are relative to.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Faults> {
        Checked::parse(path, text).map(|checked| checked.site)
    }
}

impl Checked {
    /// As [`Site::read`], with the warnings.
    ///
    /// # Errors
    /// Every fault of the file.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        let text = text(path).map_err(|why| Faults::unreadable(path, why))?;
        Self::parse(path, &text)
    }

    /// As [`Site::parse`], with the warnings.
    ///
    /// # Errors
    /// Every fault of the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Faults> {
        let source = Source { path: path.to_owned(), text: Arc::from(text) };
        let faults = section::Collector::default();
        let draft = read::read(&source, &faults);
        if let Some(draft) = &draft {
            check::check(draft, &faults);
        }
        let faults = Faults::new(source.clone(), faults.into_faults());
        match draft {
            Some(draft) if faults.errors() == 0 => Ok(Self { site: draft.site, source, warnings: faults }),
            _ => Err(faults),
        }
    }

    /// Looks at the files that the site names, as far as `extent` says: missing, unreadable, expired, open to others.
    #[must_use]
    pub fn check_files(&self, extent: Extent<'_>) -> Faults {
        let faults = section::Collector::default();
        check::files::check(&self.site, extent, &faults);
        Faults::new(self.source.clone(), faults.into_faults())
    }
}

/// The file's text.
fn text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path)
        .map_err(|error| format!("cannot open the site file: {error}; name it with `--site`"))?;
    let mut bytes = Vec::new();
    file.take(read::FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot read the site file: {error}"))?;
    if bytes.len() as u64 > read::FILE_BYTES_MAX {
        return Err(format!("the site file is larger than {} bytes; is this the right file?", read::FILE_BYTES_MAX));
    }
    String::from_utf8(bytes).map_err(|_| "the site file is not UTF-8; is this the right file?".to_owned())
}
