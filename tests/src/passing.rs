//! An XDP program that lets everything pass, for the far end of a cable.
//!
//! What a program sends back with `XDP_TX` arrives at the other end of a veth pair only when that end has a program, too. Real
//! network cards know no such rule, so nothing of it is in the product.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

use crate::bpf::code::{Instruction, JUMP_NOT_EQUAL, LOAD_8, XDP_DROP, XDP_PASS, leave, op, packet_program};
use crate::bpf::{self, Buffers};
use crate::namespace::Namespace;

/// Offset of the first byte of an IPv4 destination.
const DESTINATION: i16 = 30;

/// The program, attached until this is dropped.
#[derive(Debug)]
pub struct Passing {
    _link: OwnedFd,
}

impl Passing {
    /// Attaches it to an interface of a namespace.
    pub fn attach(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::load(namespace, interface, &leave(XDP_PASS))
    }

    /// The same, but what is for IPv4 addresses that begin with this byte ends here: as answers to forged sources do elsewhere,
    /// at nobody's cost.
    pub fn attach_but(namespace: &Namespace, interface: &str, first: u8) -> Result<Self> {
        let [drop, exit] = leave(XDP_DROP);
        let [pass, exit_too] = leave(XDP_PASS);
        let look = [op(LOAD_8, 4, 2, DESTINATION, 0), op(JUMP_NOT_EQUAL, 4, 0, 2, i32::from(first))];
        let body = [&look[..], &[drop, exit, pass, exit_too]].concat();
        Self::load(namespace, interface, &packet_program(DESTINATION + 4, &body))
    }

    fn load(namespace: &Namespace, interface: &str, program: &[Instruction]) -> Result<Self> {
        let link = namespace.run(|| {
            let index = if_nametoindex(interface).with_context(|| format!("no interface {interface}"))?;
            // For frames of several buffers, so that it does not bound the MTU of the other end.
            bpf::attach(bpf::load_for(Buffers::Many, program)?.as_fd(), index)
        })??;
        Ok(Self { _link: link })
    }
}
