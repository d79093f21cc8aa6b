//! `foobar check`, `foobar plan`, `foobar pki`: what can be said of a site file without an agent.

use std::path::Path;

use anyhow::Result;
use foobar_user::site::{Checked, Extent, sets};
use foobar_user::{pki, plan};

pub(super) fn check(path: &Path) -> Result<()> {
    let checked = Checked::read(path)?;
    if !checked.warnings.is_empty() {
        eprintln!("{}", checked.warnings);
    }
    let files = checked.check_files(Extent::Site);
    if !files.is_empty() {
        eprintln!("{files}");
    }
    let site = &checked.site;
    anyhow::ensure!(
        files.errors() == 0,
        "{} is good, but files that it names are not: `foobar pki` makes certificates and passwords that are missing",
        path.display()
    );
    let counts =
        format!("{} servers, {} services, {} rules", site.servers.len(), site.services.len(), site.rules.len());
    println!("{}: {counts}, {} sets, no fault", path.display(), site.sets.len());
    for set in &site.sets {
        println!("set {}: {} prefixes", set.name.value, sets::read(set)?.len());
    }
    Ok(())
}

pub(super) fn show_plan(path: &Path, server: &str, json: bool) -> Result<()> {
    let checked = Checked::read(path)?;
    let plan = plan::plan(&checked.site, server)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", plan::show(&plan));
    }
    Ok(())
}

pub(super) fn make_pki(path: &Path, force: bool) -> Result<()> {
    let checked = Checked::read(path)?;
    for item in pki::run(&checked.site, force)? {
        println!("{item}");
    }
    Ok(())
}
