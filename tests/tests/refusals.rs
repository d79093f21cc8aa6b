//! An agent that cannot start says why in one message, leaves with an error, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context, Result, ensure};
use foobar_tests::lone::{LoneServer, SITE};

#[test]
fn an_interface_that_does_not_exist() -> Result<()> {
    let server = LoneServer::new(&SITE.replace("eth0", "eth7"))?;
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("interface `eth7` does not exist here"), "{said}");
    server.untouched()
}

#[test]
fn a_port_in_use() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let _taken = server.namespace()?.run(|| TcpListener::bind("10.0.1.41:9900"))??;
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("10.0.1.41:9900") && said.contains("port in use"), "{said}");
    server.untouched()
}

#[test]
fn a_folder_that_is_no_bpffs() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let said = server.refused(server.folder())?;
    ensure!(said.contains("is not a bpffs") && said.contains("mount -t bpf"), "{said}");
    server.untouched()
}

#[test]
fn pins_that_are_not_ours() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let shared = server.pins().parent().context("a folder")?.to_owned();
    fs::create_dir(&shared)?;
    nix::unistd::chown(&shared, Some(65534.into()), None)?;
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("is not ours alone"), "{said}");
    server.untouched()
}

#[test]
fn pins_of_another_version() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    for folder in [server.pins().parent().context("a folder")?.to_owned(), server.pins(), server.pins().join("abi999")]
    {
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("abi999") && said.contains("foobar detach"), "{said}");
    Ok(())
}

#[test]
fn pins_of_the_same_version_and_another_layout() -> Result<()> {
    let server = LoneServer::new(SITE)?;
    let agent = server.running()?;
    drop(agent);
    // As another build would have left them: the pin's name, and a map of another shape.
    let state = server.state()?;
    fs::rename(state.join("open_counts"), state.join("flows4"))?;
    let kept = state.join("half_open4");
    let (before, links) = (fs::metadata(&kept)?.ino(), server.links()?);
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("flows4 has") && said.contains("foobar detach"), "{said}");
    ensure!(said.contains("left by another build") && said.contains("established flows are lost"), "{said}");
    ensure!(fs::metadata(&kept)?.ino() == before && server.links()? == links, "something was changed");
    server.detach()?;
    drop(server.running()?);
    server.detach()
}

#[test]
fn a_server_that_the_site_does_not_have_and_a_file_with_faults() -> Result<()> {
    let server = LoneServer::new(&SITE.replace("name = \"monitor\"", "name = \"other\""))?;
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("no server `monitor`") && said.contains("other"), "{said}");
    fs::write(server.folder().join("site.toml"), SITE.replace("address =", "adress ="))?;
    let said = server.refused(server.bpffs())?;
    ensure!(said.contains("site.toml:8:1") && said.contains("did you mean `address`"), "{said}");
    server.untouched()
}
