//! A site of one server, for the tests of this module.

use std::path::Path;

use crate::plan::{Plan, plan};
use crate::site::Site;

/// Its text; admins come from `192.0.2.0/24`.
pub(super) const SITE: &str = r#"[site]
domain = "www.foobar.com"
admin = ["192.0.2.0/24"]

[[server]]
name = "monitor"
role = "monitor"
address = "10.0.1.41"
interfaces = ["eth0"]
"#;

/// The server's plan under this text.
pub(super) fn planned(text: &str) -> Plan {
    plan(&Site::parse(Path::new("site.toml"), text).unwrap(), "monitor").unwrap()
}

/// A rule about TCP.
pub(super) fn rule(name: &str, from: &str, port: u16, action: &str) -> String {
    format!(
        "\n[[rule]]\nname = \"{name}\"\non = [\"monitor\"]\nfrom = [\"{from}\"]\nprotocol = \"tcp\"\n\
         ports = [\"{port}\"]\naction = \"{action}\"\n"
    )
}
