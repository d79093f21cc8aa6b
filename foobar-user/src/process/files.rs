//! Files written whole or not at all, and fingerprints of their content.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use super::account::Account;

/// Writes `content` to `path` through a renamed neighbour, only when it differs; returns whether it did.
pub(super) fn write_if_changed(path: &Path, content: &str, mode: u32, owner: Option<&Account>) -> Result<bool> {
    match fs::read(path) {
        Ok(old) if old == content.as_bytes() => return Ok(false),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    write(new, content, mode, owner).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(new, path).with_context(|| format!("cannot rename {} to {}", new.display(), path.display()))?;
    Ok(true)
}

/// Reads a file from a folder that belongs to another account; no link of its is followed.
pub(super) fn read_own(path: &Path) -> Result<String> {
    let read = || {
        let mut text = String::new();
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, content: &str, mode: u32, owner: Option<&Account>) -> std::io::Result<()> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content.as_bytes())?;
    file.set_permissions(Permissions::from_mode(mode))?;
    if let Some(owner) = owner {
        owner.own_file(&file)?;
    }
    file.sync_all()
}

/// Makes a folder that every account can walk through.
pub(super) fn walkable_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))?;
    let mode = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.permissions().mode();
    if mode & 0o011 != 0o011 {
        fs::set_permissions(path, Permissions::from_mode((mode & 0o7777) | 0o011))
            .with_context(|| format!("cannot let other accounts walk through {}", path.display()))?;
    }
    Ok(())
}

/// Makes a folder that belongs to one account; what is in it stays as it is.
pub(super) fn owned_folder(path: &Path, mode: u32, owner: &Account) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("cannot make the folder {}", path.display()))?;
    owner.own(path).with_context(|| format!("cannot give {} to the account {}", path.display(), owner.name))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// Brings a folder's entries to disk.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|folder| folder.sync_all()).with_context(|| format!("cannot sync {}", path.display()))
}

/// FNV-1a of the parts: stable over builds, so that a new agent recognises what an old one started.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for part in parts {
        part.len().to_le_bytes().into_iter().for_each(&mut add);
        part.iter().copied().for_each(&mut add);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn fingerprints_tell_where_parts_end() {
        assert_ne!(fingerprint([b"ab".as_slice(), b"c"]), fingerprint([b"a".as_slice(), b"bc"]));
        assert_eq!(fingerprint([b"ab".as_slice()]), fingerprint([b"ab".as_slice()]));
    }
}
