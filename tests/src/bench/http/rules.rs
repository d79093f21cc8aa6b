//! What the bench adds to the site: rules that let the client through to nginx and in to HAProxy. No firewall is off.

use anyhow::{Context, Result, ensure};

use super::{haproxy, path};
use crate::bed::Bed;
use crate::host::{CLIENT, Host, VIP};

/// Adds the rules to the site file and has the balancer's agent read it.
pub(super) fn open(bed: &Bed) -> Result<()> {
    let web = Host::named(path::WEB).context("no such web server")?.v4();
    let rules = [
        rule("bench-to-nginx", &CLIENT.to_string(), &web.to_string(), "8080"),
        // The client's ports: rules look at no connection, and this one is not the balancer's own.
        rule("bench-from-nginx", &web.to_string(), &CLIENT.to_string(), "1024-65535"),
        rule("bench-to-haproxy", &CLIENT.to_string(), &VIP.to_string(), &haproxy::PORT.to_string()),
    ];
    bed.site().replace(&format!("{}\n{}", bed.site().text()?, rules.concat()))?;
    let output = bed.agent("lb1")?.ask("reload", &[])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the balancer refuses the bench's rules: {}", said.trim());
    Ok(())
}

fn rule(name: &str, from: &str, to: &str, ports: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\non = [\"lb1\"]\nfrom = [\"{from}/32\"]\nto = [\"{to}\"]\nprotocol = \"tcp\"\n\
         ports = [\"{ports}\"]\naction = \"allow\"\n\n"
    )
}
