//! What the edge process gives up before the first byte of traffic: root, capabilities, core dumps, being debugged.

use anyhow::{Context, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::limits;

/// Gives everything up; fails when the process is root and nobody said it may be.
pub(crate) fn harden(allow_root: bool) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() && !allow_root {
        bail!("`foobar edge` refuses to run as root: the agent starts it as an unprivileged account");
    }
    nix::sys::prctl::set_no_new_privs().context("set no_new_privs")?;
    nix::sys::prctl::set_dumpable(false).context("forbid core dumps and debuggers")?;
    drop_capabilities().context("drop all capabilities")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("set the core file limit to zero")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raise the limit of open files")
}

/// Connections that the limit of open files has room for: each may need one more to a backend.
pub(crate) fn connection_limit() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let room = soft.saturating_sub(limits::RESERVED_DESCRIPTORS) / 2;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, limits::CONNECTIONS)
}

/// `capset(2)` with three empty sets, and no ambient ones.
fn drop_capabilities() -> std::io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: VERSION, pid: 0 };
    let sets = [[0_u32; 3]; 2];
    // SAFETY: both pointers are to live values of the layout of `capset(2)` version 3: a header of version and pid,
    // and two blocks of effective, permitted and inheritable bits. The kernel only reads them.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: this prctl takes integers only.
    let done = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
