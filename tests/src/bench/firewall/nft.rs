//! Rule sets of nftables that drop what comes from the first members: one rule an address, or a set; at either hook.

use std::fmt::Write as _;
use std::process::Command;

use anyhow::Result;

use super::addresses::{Who, prefix};
use crate::process::feed;

/// Where nftables looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// Before the network stack.
    Ingress,
    /// Before the socket.
    Input,
}

/// How it knows the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A rule an address.
    Linear(u32),
    /// A set of addresses.
    Set(u32),
    /// A set of prefixes.
    Intervals(u32),
}

/// A rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ruleset {
    /// Where.
    pub(super) hook: Hook,
    /// How.
    pub(super) form: Form,
    /// Whether packets of known connections skip the rest; at the input hook.
    pub(super) stateful: bool,
}

impl Ruleset {
    /// Has the calling thread's namespace keep to it on `interface`.
    pub(super) fn load(self, interface: &str) -> Result<()> {
        feed(Command::new("nft").args(["--file", "-"]), &self.text(interface))
    }

    fn text(self, interface: &str) -> String {
        let (family, hook) = match self.hook {
            Hook::Ingress => ("netdev", format!("ingress device \"{interface}\"")),
            Hook::Input => ("ip", "input".to_owned()),
        };
        let mut text = format!("table {family} bench {{\n");
        let mut rules = String::new();
        if self.stateful {
            rules += "ct state established,related accept\n";
        }
        match self.form {
            Form::Linear(count) => {
                for number in 0..count {
                    let _ = writeln!(rules, "ip saddr {} drop", Who::Members.address(number));
                }
            }
            Form::Set(count) => {
                text += &set("type ipv4_addr", (0..count).map(|number| Who::Members.address(number).to_string()));
                rules += "ip saddr @members drop\n";
            }
            Form::Intervals(count) => {
                let kind = "type ipv4_addr; flags interval; auto-merge";
                text += &set(kind, (0..count).map(|number| prefix(number).to_string()));
                rules += "ip saddr @members drop\n";
            }
        }
        text + &format!("chain members {{\ntype filter hook {hook} priority 0; policy accept;\n{rules}}}\n}}\n")
    }
}

fn set(kind: &str, elements: impl Iterator<Item = String>) -> String {
    format!("set members {{\n{kind};\nelements = {{ {} }}\n}}\n", elements.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_an_address_or_a_set() {
        let linear = Ruleset { hook: Hook::Input, form: Form::Linear(2), stateful: true };
        let text = linear.text("eth0");
        assert!(text.starts_with("table ip bench {\nchain members {\ntype filter hook input priority 0"), "{text}");
        assert!(text.contains("ct state established,related accept\nip saddr 16.0.0.0 drop\nip saddr "), "{text}");
        let set = Ruleset { hook: Hook::Ingress, form: Form::Set(1), stateful: false };
        let text = set.text("eth0");
        assert!(text.contains("hook ingress device \"eth0\"") && text.contains("elements = { 16.0.0.0 }"), "{text}");
    }
}
