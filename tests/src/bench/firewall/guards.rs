//! The firewalls on a server: ours, the peers', none.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use foobar_common::rules::{Action, Protocol};

use super::cable::Cable;
use super::nft::Ruleset;
use super::ours::{self, Ours};
use super::programs;
use super::xdpfilter::{Features, XdpFilter};
use crate::bench::lab::{self, Lab};
use crate::bpf;

/// A firewall that drops what comes from the first members.
#[derive(Clone, Debug)]
pub(super) enum Guard {
    /// None at all.
    Nothing,
    /// An XDP program that lets everything pass: what XDP itself costs on such an interface.
    Passing,
    /// Ours with five-tuple rules of this protocol.
    Rules(u32, Protocol),
    /// Ours with a set.
    Set(u32),
    /// xdp-filter.
    XdpFilter(u32),
    /// nftables.
    Nft(Ruleset),
}

/// A firewall in force. Dropping it detaches ours; the peers' go with their namespaces.
#[derive(Debug)]
#[expect(dead_code, reason = "held for their lives")]
pub(super) enum Installed {
    /// Nothing to hold.
    Nothing,
    /// A link.
    Link(OwnedFd),
    /// Our programs.
    Ours(Box<Ours>),
    /// xdp-filter's program.
    XdpFilter(XdpFilter),
}

impl Guard {
    /// Puts it in force on the cable's guarded side; `None` where our packet path has no named sets yet.
    pub(super) fn install(&self, lab: &Lab, cable: &Cable) -> Result<Option<Installed>> {
        cable.guarded.run(|| self.install_here(lab, &cable.interface))?
    }

    fn install_here(&self, lab: &Lab, interface: &str) -> Result<Option<Installed>> {
        Ok(Some(match self {
            Self::Nothing => Installed::Nothing,
            Self::Passing => Installed::Link(bpf::attach(programs::reference()?.as_fd(), lab::index(interface)?)?),
            Self::Rules(count, protocol) => {
                let mut rules = ours::tuples(*count - 1, Action::Deny, protocol);
                rules.push(ours::service());
                attached(Ours::load(&rules)?, interface)?
            }
            Self::Set(count) => attached(Ours::with_set(*count, ours::service())?, interface)?,
            Self::XdpFilter(entries) => {
                let pins = lab.pins()?.join(interface);
                Installed::XdpFilter(XdpFilter::load(&pins, lab.run().folder(), interface, Features::All, *entries)?)
            }
            Self::Nft(ruleset) => {
                ruleset.load(interface)?;
                Installed::Nothing
            }
        }))
    }
}

fn attached(mut ours: Ours, interface: &str) -> Result<Installed> {
    ours.attach(interface)?;
    Ok(Installed::Ours(Box::new(ours)))
}
