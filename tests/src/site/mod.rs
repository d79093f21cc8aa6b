//! The site's folder: the site file, static pages, secrets, alert rules, and the programs that its servers run.

mod file;
mod www;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::process::run;

pub use file::{METRICS_PORT, PROMETHEUS_PORT};
pub use www::{LARGE_BYTES, SMALL_BYTES, write as write_pages};

/// Programs that the bed starts.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `foobar`.
    pub foobar: PathBuf,
    /// The guest book.
    pub guestbook: PathBuf,
    /// The echo service.
    pub echo: PathBuf,
    /// Who asks it by datagrams.
    pub ask: PathBuf,
    /// Who holds connections.
    pub hold: PathBuf,
    /// Who opens connections to it.
    pub dial: PathBuf,
    /// Who writes to a database.
    pub writer: PathBuf,
}

impl Binaries {
    /// Those beside the running program; `FOOBAR_BIN` names another `foobar`.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        let mut folder = own.parent().context("this program is in no folder")?;
        if folder.ends_with("deps") {
            folder = folder.parent().context("this program is in no target folder")?;
        }
        let beside = |name: &str| {
            let path = folder.join(name);
            let hint = || format!("{} is missing; `cargo xtask build` builds it", path.display());
            path.exists().then(|| path.clone()).with_context(hint)
        };
        let foobar = match std::env::var_os("FOOBAR_BIN") {
            Some(path) => PathBuf::from(path),
            None => beside("foobar")?,
        };
        let (guestbook, echo, ask, dial) = (beside("guestbook")?, beside("echo")?, beside("ask")?, beside("dial")?);
        Ok(Self { foobar, guestbook, echo, ask, hold: beside("hold")?, dial, writer: beside("writer")? })
    }
}

/// The folder of a site.
#[derive(Debug)]
pub struct SiteFolder {
    folder: PathBuf,
    foobar: PathBuf,
}

impl SiteFolder {
    /// Writes the site into `folder`, which everybody may walk through.
    pub fn write(folder: &Path, binaries: &Binaries) -> Result<Self> {
        for name in ["site", "site/www", "site/secrets", "site/app", "site/bin"] {
            fs::create_dir_all(folder.join(name)).with_context(|| format!("cannot make {name} of the site"))?;
        }
        let site = Self { folder: folder.join("site"), foobar: binaries.foobar.clone() };
        www::write(&site.folder.join("www"))?;
        // Copies: the users that they run as may not reach the folder that cargo builds in.
        copy(&binaries.guestbook, &site.folder.join("bin/guestbook"))?;
        copy(&binaries.echo, &site.folder.join("bin/echo"))?;
        site.write_secrets()?;
        let rules = site.copy_rules()?;
        fs::write(site.file(), file::text(&site.folder, rules)).context("cannot write site.toml")?;
        Ok(site)
    }

    /// Makes the certificates that are missing.
    pub fn make_certificates(&self) -> Result<()> {
        run(Command::new(&self.foobar).args(["pki", "--site"]).arg(self.file())).map(drop)
    }

    /// The site file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("site.toml")
    }

    /// The folder of certificates.
    pub fn pki(&self) -> PathBuf {
        self.folder.join("pki")
    }

    /// The program `foobar` that runs it.
    pub fn foobar(&self) -> &Path {
        &self.foobar
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The site file's text.
    pub fn text(&self) -> Result<String> {
        fs::read_to_string(self.file()).context("cannot read site.toml")
    }

    /// Replaces the site file, whole: nobody reads half of it.
    pub fn replace(&self, text: &str) -> Result<()> {
        let fresh = self.folder.join("site.toml.new");
        fs::write(&fresh, text).context("cannot write the new site.toml")?;
        fs::rename(&fresh, self.file()).context("cannot replace site.toml")
    }

    /// Secrets of PostgreSQL are root's alone. The guest book runs as nobody and has no other way to its password than a copy
    /// that belongs to nobody: as with a real site's app account, that account may read that one secret.
    fn write_secrets(&self) -> Result<()> {
        let secrets = self.folder.join("secrets");
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700))?;
        let password = random_password()?;
        write_secret(&secrets.join("guestbook.password"), &password)?;
        write_secret(&secrets.join("replication.password"), &random_password()?)?;
        let copy = self.folder.join("app/guestbook.password");
        write_secret(&copy, &password)?;
        let nobody = User::from_name("nobody")?.context("this machine has no user nobody")?;
        chown(&copy, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).context("cannot give the password away")
    }

    /// Copies the project's alert rules, if they are where the sources are.
    fn copy_rules(&self) -> Result<bool> {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/rules.yml");
        if !rules.exists() {
            return Ok(false);
        }
        fs::copy(&rules, self.folder.join("rules.yml")).context("cannot copy the alert rules")?;
        Ok(true)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("cannot make the copy executable")
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    fs::write(path, "").with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o400))?;
    fs::write(path, format!("{secret}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn random_password() -> Result<String> {
    let mut bytes = [0; 16];
    let mut random = fs::File::open("/dev/urandom").context("cannot open /dev/urandom")?;
    std::io::Read::read_exact(&mut random, &mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
