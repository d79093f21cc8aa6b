//! An agent that cannot start says why in one message, leaves with an error, and changes nothing.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use foobar_tests::process::output;
use foobar_tests::site::Binaries;
use foobar_tests::{Network, Silent, bpffs};
use tempfile::TempDir;

/// A server in a namespace of the bed's network, with a site file of its own.
struct Server {
    network: Network,
    folder: TempDir,
}

/// A site of one monitor: nothing to run but the firewall.
const SITE: &str = r#"[site]
domain = "www.foobar.com"
admin = ["10.0.1.1/32"]

[[server]]
name = "monitor"
role = "monitor"
address = "10.0.1.41"
interfaces = ["eth0"]
"#;

impl Server {
    fn new(site: &str) -> Result<Self> {
        bpffs::ensure(&Silent)?;
        let server = Self { network: Network::create(&Silent)?, folder: tempfile::tempdir()? };
        fs::write(server.folder.path().join("site.toml"), site)?;
        Ok(server)
    }

    fn pins(&self) -> PathBuf {
        self.network.bpffs().join("foobar/monitor")
    }

    /// Starts the agent, which must end by itself, and returns what it said.
    fn refused(&self, bpffs: &Path, options: &[&str]) -> Result<String> {
        let folder = self.folder.path();
        let mut command = Command::new(Binaries::find()?.foobar);
        command.arg("agent").arg("--site").arg(folder.join("site.toml")).args(["--server", "monitor"]);
        command.arg("--run-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
        command.arg("--bpffs").arg(bpffs).arg("--cgroup").arg(self.network.cgroup("monitor")).args(options);
        // An agent that starts after all is stopped, and then its exit code is 0: the test fails.
        let mut limited = Command::new("timeout");
        limited.arg("20").arg(command.get_program()).args(command.get_args());
        self.network.namespace("monitor")?.attach(&mut limited);
        let Output { status, stderr, .. } = output(&mut limited)?;
        let said = String::from_utf8_lossy(&stderr).into_owned();
        ensure!(status.code() == Some(1), "it ended with {status}:\n{said}");
        Ok(said)
    }

    /// Nothing is attached and nothing pinned.
    fn untouched(&self) -> Result<()> {
        let links = self.pins().join("links");
        let pinned = fs::read_dir(&links).map(Iterator::count).unwrap_or_default();
        ensure!(pinned == 0, "{pinned} links are pinned in {}", links.display());
        Ok(())
    }
}

#[test]
fn an_interface_that_does_not_exist() -> Result<()> {
    let server = Server::new(&SITE.replace("eth0", "eth7"))?;
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("interface `eth7` does not exist here"), "{said}");
    server.untouched()
}

#[test]
fn a_port_in_use() -> Result<()> {
    let server = Server::new(SITE)?;
    let _taken = server.network.namespace("monitor")?.run(|| TcpListener::bind("10.0.1.41:9900"))??;
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("10.0.1.41:9900") && said.contains("port in use"), "{said}");
    server.untouched()
}

#[test]
fn a_folder_that_is_no_bpffs() -> Result<()> {
    let server = Server::new(SITE)?;
    let said = server.refused(server.folder.path(), &[])?;
    ensure!(said.contains("is not a bpffs") && said.contains("mount -t bpf"), "{said}");
    server.untouched()
}

#[test]
fn pins_that_are_not_ours() -> Result<()> {
    let server = Server::new(SITE)?;
    let shared = server.pins().parent().context("a folder")?.to_owned();
    fs::create_dir(&shared)?;
    nix::unistd::chown(&shared, Some(65534.into()), None)?;
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("is not ours alone"), "{said}");
    server.untouched()
}

#[test]
fn pins_of_another_version() -> Result<()> {
    let server = Server::new(SITE)?;
    for folder in [server.pins().parent().context("a folder")?.to_owned(), server.pins(), server.pins().join("abi999")]
    {
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("abi999") && said.contains("foobar detach"), "{said}");
    Ok(())
}

#[test]
fn a_server_that_the_site_does_not_have_and_a_file_with_faults() -> Result<()> {
    let server = Server::new(&SITE.replace("name = \"monitor\"", "name = \"other\""))?;
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("no server `monitor`") && said.contains("other"), "{said}");
    fs::write(server.folder.path().join("site.toml"), SITE.replace("address =", "adress ="))?;
    let said = server.refused(server.network.bpffs(), &[])?;
    ensure!(said.contains("site.toml:8:1") && said.contains("did you mean `address`"), "{said}");
    server.untouched()
}
