//! From the agent to an unprivileged child: cgroup, session, account, and exactly the descriptors that are meant for it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::User;
use tokio::process::{Child, Command};

use super::listen;

/// Where the child finds its configuration.
pub(crate) const CONFIG_FD: RawFd = 3;

/// The program to start, opened by the parent: the child's account need not reach the file's folder.
pub(crate) struct Program {
    file: OwnedFd,
}

impl Program {
    /// Opens an executable.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display())))?;
        Ok(Self { file: listen::raise(&file)? })
    }

    /// A command that runs it while `self` lives.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()));
        command.arg0("foobar");
        command
    }
}

/// Everything the child does between fork and exec, prepared so that it only makes system calls.
pub(crate) struct Descent {
    config: OwnedFd,
    passed: Vec<RawFd>,
    cgroup: Option<File>,
    account: Option<(libc::uid_t, libc::gid_t)>,
}

impl Descent {
    /// `config` becomes descriptor 3, `passed` keep their numbers.
    pub(crate) fn new(
        config: &[u8],
        passed: Vec<RawFd>,
        user: Option<&str>,
        cgroup: Option<&Path>,
    ) -> io::Result<Self> {
        // In memory only: it holds private keys.
        let mut memory = File::from(memfd_create("foobar-edge", MFdFlags::MFD_CLOEXEC)?);
        memory.write_all(config)?;
        let account = user.map(account).transpose()?;
        let cgroup = cgroup.map(open_cgroup).transpose()?;
        Ok(Self { config: listen::raise(&memory)?, passed, cgroup, account })
    }

    /// Starts the command.
    pub(crate) fn spawn(self, command: &mut Command) -> io::Result<Child> {
        // The lowest free number: were 3 free, the standard library's own pipe to the child could get it.
        let _placeholder = File::open("/dev/null")?;
        let descent = self;
        // SAFETY: between fork and exec only async-signal-safe system calls are made, on memory that exists already;
        // nothing allocates or locks.
        unsafe {
            command.pre_exec(move || descent.descend());
        }
        command.spawn()
    }

    fn descend(&self) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            // 0 is the writer itself.
            (&*cgroup).write_all(b"0")?;
        }
        // SAFETY: plain system calls with integers, and one null pointer with a length of zero.
        unsafe {
            check(libc::setsid())?;
            if let Some((uid, gid)) = self.account {
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(gid, gid, gid))?;
                check(libc::setresuid(uid, uid, uid))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check(libc::dup2(self.config.as_raw_fd(), CONFIG_FD))?;
            for &descriptor in &self.passed {
                check(libc::fcntl(descriptor, libc::F_SETFD, 0))?;
            }
        }
        Ok(())
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn account(name: &str) -> io::Result<(libc::uid_t, libc::gid_t)> {
    // The name is what `getpwnam` takes: no NUL in it.
    CString::new(name)?;
    match User::from_name(name)? {
        Some(user) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        None => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no account `{name}` for the edge to run as")))
        }
    }
}

fn open_cgroup(folder: &Path) -> io::Result<File> {
    let open = || {
        std::fs::create_dir_all(folder)?;
        OpenOptions::new().write(true).open(folder.join("cgroup.procs"))
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("cannot use the cgroup {}: {error}", folder.display())))
}
