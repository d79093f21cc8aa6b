//! What an agent remembers over its own death: the site as it was last confirmed, and what was not.
//!
//! A site that was applied to be confirmed, and was not, is never what an agent starts from.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::sets::replace_file;

/// Everything that a plan is made of: the text of the site file, and the prefixes of the files that its sets name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    path: PathBuf,
    text: Arc<str>,
    files: BTreeMap<PathBuf, Arc<[IpNet]>>,
}

impl Snapshot {
    /// A site file without files of sets.
    pub(super) fn of_text(path: &Path, text: &str) -> Self {
        Self { path: path.to_owned(), text: Arc::from(text), files: BTreeMap::new() }
    }

    /// And these files.
    pub(super) fn with_files(self, files: BTreeMap<PathBuf, Arc<[IpNet]>>) -> Self {
        Self { files, ..self }
    }

    /// Path of the site file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What a set's file held.
    pub(super) fn file(&self, path: &Path) -> Option<Arc<[IpNet]>> {
        self.files.get(path).cloned()
    }

    fn digest(&self) -> String {
        let mut digest = Digest::default();
        digest.write(self.text.as_bytes());
        for (path, prefixes) in &self.files {
            digest.write(path.as_os_str().as_encoded_bytes());
            digest.write(digest_of(prefixes).as_bytes());
        }
        digest.text()
    }
}

fn digest_of(prefixes: &[IpNet]) -> String {
    let mut digest = Digest::default();
    for prefix in prefixes {
        match prefix.addr() {
            std::net::IpAddr::V4(address) => digest.write(&address.octets()),
            std::net::IpAddr::V6(address) => digest.write(&address.octets()),
        }
        digest.write(&[prefix.prefix_len()]);
    }
    digest.text()
}

/// The confirmed site, as it lies on the disk.
#[derive(Serialize, Deserialize)]
struct Confirmed {
    path: PathBuf,
    text: String,
    /// Name of the copy of each set's file.
    files: BTreeMap<PathBuf, String>,
}

/// A site that has not been confirmed.
#[derive(Serialize, Deserialize)]
struct Unconfirmed {
    digest: String,
    /// Whether it still waits; else it was taken back.
    waiting: bool,
}

/// Why an agent starts from the confirmed copy instead of the site file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// An agent ended while a change waited.
    DiedWaiting,
    /// This very site was taken back.
    TakenBack,
}

/// The folder of what is remembered.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: PathBuf,
}

impl Memory {
    /// Below a server's state folder; nothing is made.
    pub(super) fn new(state: &Path) -> Self {
        Self { folder: state.join("confirmed") }
    }

    /// Remembers a site as confirmed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep(&self, snapshot: &Snapshot) -> Result<()> {
        let mut files = BTreeMap::new();
        for (path, prefixes) in &snapshot.files {
            let name = format!("{}.set", digest_of(prefixes));
            let copy = self.folder.join(&name);
            if !copy.exists() {
                let text: String = prefixes.iter().map(|prefix| format!("{prefix}\n")).collect();
                write(&copy, text.as_bytes())?;
            }
            files.insert(path.clone(), name);
        }
        let confirmed = Confirmed { path: snapshot.path.clone(), text: snapshot.text.to_string(), files };
        write(&self.confirmed_path(), &serde_json::to_vec_pretty(&confirmed)?)?;
        self.forget_unconfirmed()?;
        self.clear_copies(confirmed.files.values());
        Ok(())
    }

    /// The site that was confirmed last, if any was.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn confirmed(&self) -> Result<Option<Snapshot>> {
        let Some(confirmed) = read::<Confirmed>(&self.confirmed_path())? else { return Ok(None) };
        let mut files = BTreeMap::new();
        for (path, name) in confirmed.files {
            let copy = self.folder.join(name);
            let text = fs::read_to_string(&copy).with_context(|| format!("cannot read {}", copy.display()))?;
            let prefixes: Result<Vec<IpNet>, _> = text.lines().map(str::parse).collect();
            files.insert(path, prefixes.with_context(|| format!("{} is damaged", copy.display()))?.into());
        }
        Ok(Some(Snapshot { path: confirmed.path, text: confirmed.text.into(), files }))
    }

    /// Notes, before it is in force, that a site has to be confirmed.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn begin(&self, snapshot: &Snapshot) -> Result<()> {
        self.note(snapshot, true)
    }

    /// Notes that a site was taken back.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn taken_back(&self, snapshot: &Snapshot) -> Result<()> {
        self.note(snapshot, false)
    }

    /// Forgets that a site had to be confirmed.
    ///
    /// # Errors
    /// It cannot be removed.
    pub(super) fn forget_unconfirmed(&self) -> Result<()> {
        match fs::remove_file(self.unconfirmed_path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.unconfirmed_path().display()))
            }
            _ => Ok(()),
        }
    }

    /// Whether an agent must not start from this site; `None`: the site file cannot be read.
    ///
    /// # Errors
    /// What was noted cannot be read.
    pub(super) fn doubt(&self, found: Option<&Snapshot>) -> Result<Option<Doubt>> {
        let Some(unconfirmed) = read::<Unconfirmed>(&self.unconfirmed_path())? else { return Ok(None) };
        let same = found.is_some_and(|found| found.digest() == unconfirmed.digest);
        Ok(match unconfirmed {
            Unconfirmed { waiting: true, .. } => Some(Doubt::DiedWaiting),
            _ if same => Some(Doubt::TakenBack),
            _ => None,
        })
    }

    /// After a start from the confirmed copy: what waited is taken back for good.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(unconfirmed) = read::<Unconfirmed>(&self.unconfirmed_path())? else { return Ok(()) };
        write(&self.unconfirmed_path(), &serde_json::to_vec(&Unconfirmed { waiting: false, ..unconfirmed })?)
    }

    fn note(&self, snapshot: &Snapshot, waiting: bool) -> Result<()> {
        write(&self.unconfirmed_path(), &serde_json::to_vec(&Unconfirmed { digest: snapshot.digest(), waiting })?)
    }

    fn confirmed_path(&self) -> PathBuf {
        self.folder.join("site.json")
    }

    fn unconfirmed_path(&self) -> PathBuf {
        self.folder.join("unconfirmed.json")
    }

    /// Removes copies that nothing names any more; one that stays costs only its place.
    fn clear_copies<'a>(&self, named: impl Iterator<Item = &'a String>) {
        let named: Vec<&String> = named.collect();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".set") && !named.contains(&&name) {
                fs::remove_file(entry.path()).ok();
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace_file(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| format!("{} is damaged", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str, prefix: &str) -> Snapshot {
        let files = BTreeMap::from([(PathBuf::from("list.txt"), vec![prefix.parse().unwrap()].into())]);
        Snapshot::of_text(Path::new("site.toml"), text).with_files(files)
    }

    #[test]
    fn a_confirmed_site_is_read_back_with_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert_eq!(memory.confirmed().unwrap(), None);
        memory.keep(&snapshot("one", "192.0.2.0/24")).unwrap();
        memory.keep(&snapshot("two", "2001:db8::/32")).unwrap();
        assert_eq!(memory.confirmed().unwrap(), Some(snapshot("two", "2001:db8::/32")));
        assert_eq!(fs::read_dir(folder.path().join("confirmed")).unwrap().count(), 2, "the first one's copy is gone");
    }

    #[test]
    fn a_site_that_waits_when_its_agent_dies_is_in_doubt_whatever_the_file_says_now() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        memory.keep(&snapshot("good", "192.0.2.0/24")).unwrap();
        memory.begin(&snapshot("new", "192.0.2.0/24")).unwrap();
        for found in [Some("new"), Some("newer"), None] {
            let found = found.map(|text| snapshot(text, "192.0.2.0/24"));
            assert_eq!(memory.doubt(found.as_ref()).unwrap(), Some(Doubt::DiedWaiting));
        }
        memory.settle().unwrap();
        assert_eq!(memory.doubt(Some(&snapshot("new", "192.0.2.0/24"))).unwrap(), Some(Doubt::TakenBack));
        assert_eq!(memory.doubt(Some(&snapshot("newer", "192.0.2.0/24"))).unwrap(), None);
    }

    #[test]
    fn a_site_that_was_taken_back_is_in_doubt_until_it_or_a_file_of_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        memory.begin(&snapshot("new", "192.0.2.0/24")).unwrap();
        memory.taken_back(&snapshot("new", "192.0.2.0/24")).unwrap();
        assert_eq!(memory.doubt(Some(&snapshot("new", "192.0.2.0/24"))).unwrap(), Some(Doubt::TakenBack));
        assert_eq!(memory.doubt(Some(&snapshot("new", "192.0.2.0/25"))).unwrap(), None);
        memory.keep(&snapshot("new", "192.0.2.0/24")).unwrap();
        assert_eq!(memory.doubt(Some(&snapshot("new", "192.0.2.0/24"))).unwrap(), None);
    }
}
