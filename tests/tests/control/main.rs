//! The operator's commands against a real agent: what they say is what the firewall then does.

mod apply;
mod explain;
mod rules;
mod sets;
mod watch;

use std::time::Duration;

use anyhow::Result;
use foobar_tests::lone::SITE;

/// A port on which nobody listens: let through means refused.
const PORT: u16 = 8123;
/// In which everything has to happen.
const DEADLINE: Duration = Duration::from_secs(15);

/// The site with a rule more.
fn with_rule(name: &str, action: &str, from: &str, more: &str) -> String {
    format!(
        "{SITE}\n[[rule]]\nname = \"{name}\"\non = [\"monitor\"]\nfrom = [\"{from}\"]\nprotocol = \"tcp\"\n\
         ports = [\"{PORT}\"]\naction = \"{action}\"\n{more}\n"
    )
}

/// The site with the port open for everybody.
fn open_site() -> String {
    with_rule("extra", "allow", "any", "")
}

/// Line of a rule's name in a site's text: rules are told by the line of their head, one above.
fn line_of(site: &str, name: &str) -> Result<usize> {
    let found = site.lines().position(|line| line == format!("name = \"{name}\""));
    found.ok_or_else(|| anyhow::anyhow!("no rule `{name}`"))
}
