//! A namespace in which the kernel can route what the programs forward: two cables, a route, a resolved neighbour.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::leftovers;
use crate::namespace::Namespace;
use crate::process::feed;
use crate::run::Run;

/// The namespace. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Place {
    namespace: Namespace,
    run: Run,
}

impl Place {
    /// Makes the namespace.
    pub(super) fn create() -> Result<Self> {
        let run = Run::create()?;
        let name = format!("{}-packets", run.name());
        let ip = |arguments: &[&str], script: &str| feed(Command::new("ip").args(arguments), script);
        let made = ip(&["-batch", "-"], &format!("netns add {name}\n")).and_then(|()| Namespace::open(&name));
        // The guard comes first: whatever fails from here on, what was made is removed.
        let namespace = match made {
            Ok(namespace) => namespace,
            Err(error) => {
                leftovers::remove(run.id())?;
                return Err(error);
            }
        };
        let place = Self { namespace, run };
        place.inside(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?.context("cannot switch forwarding on")?;
        ip(&["-netns", &name, "-batch", "-"], CABLES)?;
        Ok(place)
    }

    /// Runs `work` on a thread inside.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace.run(work)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove(self.run.id()) {
            eprintln!("foobar-tests: the run {} was not removed whole: {error:#}", self.run.id());
        }
    }
}

/// Index of the interface by which packets come, in the calling thread's namespace.
pub(super) fn ingress() -> Result<u32> {
    let index = nix::net::if_::if_nametoindex("in0").context("the bench's interface in0 is missing")?;
    ensure!(index != 0, "in0 has no index");
    Ok(index)
}

/// Both ends of each cable are here: nothing is sent, only looked up.
const CABLES: &str = "\
link add in0 type veth peer name in1
link add out0 type veth peer name out1
link set in0 up
link set in1 up
link set out0 up
link set out1 up
addr add 10.0.0.1/24 dev in0
addr add 10.0.1.1/24 dev out0
route add 198.18.0.0/15 via 10.0.0.2
neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev in0 nud permanent
neigh replace 10.0.1.11 lladdr 02:00:00:00:01:0b dev out0 nud permanent
neigh replace 10.0.1.12 lladdr 02:00:00:00:01:0c dev out0 nud permanent
";
