//! An XDP program that lets everything pass, for the far end of a cable.
//!
//! What a program sends back with `XDP_TX` arrives at the other end of a veth pair only when that end has a program, too. Real
//! network cards know no such rule, so nothing of it is in the product.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use crate::bpf;
use crate::bpf::code::{XDP_PASS, leave};
use crate::namespace::Namespace;

/// The program, attached until this is dropped.
#[derive(Debug)]
pub struct Passing {
    _link: OwnedFd,
}

impl Passing {
    /// Attaches it to an interface of a namespace.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        let link = namespace.run(|| {
            let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
            bpf::attach(bpf::load(&leave(XDP_PASS))?.as_fd(), index)
        })??;
        Ok(Self { _link: link })
    }
}
