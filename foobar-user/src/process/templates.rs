//! Files of a command: written whole, from templates, into folders that only root can change.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::account::Account;
use super::files;
use crate::plan::{FileContent, FilePlan, fill};

/// Writes all files, or none when one cannot be read; returns a fingerprint of them, empty when there are none.
pub(super) fn write(plans: &[FilePlan], account: &Account) -> Result<String> {
    if plans.is_empty() {
        return Ok(String::new());
    }
    let contents = plans.iter().map(content).collect::<Result<Vec<String>>>()?;
    for (plan, content) in plans.iter().zip(&contents) {
        let folder = plan.path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        roots_own(folder)?;
        files::write_if_changed(&plan.path, content, plan.mode, Some(account))?;
    }
    let modes: Vec<String> = plans.iter().map(|plan| format!("{} {:o}", plan.path.display(), plan.mode)).collect();
    Ok(files::fingerprint(modes.iter().chain(&contents).map(String::as_bytes)))
}

fn content(plan: &FilePlan) -> Result<String> {
    match &plan.content {
        FileContent::Text(text) => Ok(text.clone()),
        FileContent::Template { path, values } => {
            let text =
                fs::read_to_string(path).with_context(|| format!("cannot read the template {}", path.display()))?;
            Ok(fill(&text, values))
        }
    }
}

/// Fails when somebody else could have root write to another place: by a link, or by a folder put in another's stead.
fn roots_own(folder: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    // As it is written, and where its links lead.
    let real = folder.canonicalize().with_context(|| format!("cannot reach {}", folder.display()))?;
    for part in folder.ancestors().chain(real.ancestors()) {
        let about = fs::symlink_metadata(part).with_context(|| format!("cannot look at {}", part.display()))?;
        // In a sticky folder nobody can put another's folder away.
        let closed = about.mode() & 0o022 == 0 || about.mode() & 0o1000 != 0 || about.is_symlink();
        if about.uid() != 0 || !closed {
            bail!(
                "{} can be changed by others than root, who could lead this file elsewhere: write it to a folder of root's",
                part.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn plan(path: PathBuf, content: FileContent) -> FilePlan {
        FilePlan { path, content, mode: 0o600 }
    }

    #[test]
    fn files_are_written_from_templates_and_a_missing_one_writes_none() {
        let place = tempfile::tempdir().unwrap();
        let account = Account::named("root").unwrap();
        let template = place.path().join("template");
        let values = vec![("server".to_owned(), "web1".to_owned())];
        fs::write(&template, "I am {server}, {not} you").unwrap();
        let of = |path: &Path| FileContent::Template { path: path.to_owned(), values: values.clone() };
        let first = place.path().join("sub/first");
        let print = write(&[plan(first.clone(), of(&template))], &account).unwrap();
        assert_eq!(fs::read_to_string(&first).unwrap(), "I am web1, {not} you");
        assert_eq!(fs::metadata(&first).unwrap().mode() & 0o777, 0o600);
        assert_eq!(print, write(&[plan(first.clone(), of(&template))], &account).unwrap());

        let second = place.path().join("second");
        let missing = of(&place.path().join("nowhere"));
        let both = [plan(second.clone(), FileContent::Text("x".into())), plan(first, missing)];
        assert!(format!("{:#}", write(&both, &account).unwrap_err()).contains("nowhere"));
        assert!(!second.exists(), "all or none");
        assert_ne!(print, write(&both[..1], &account).unwrap());
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let account = Account::named("root").unwrap();
        let open = place.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let text = || FileContent::Text("x".into());
        let error = write(&[plan(open.join("file"), text())], &account).unwrap_err();
        assert!(format!("{error:#}").contains("can be changed by others"), "{error:#}");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        write(&[plan(open.join("file"), text())], &account).unwrap();
        let link = place.path().join("link");
        symlink(&open, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
        assert!(write(&[plan(link.join("file"), text())], &account).is_err(), "a link of somebody else's");
    }
}
