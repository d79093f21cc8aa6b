//! Programs and maps beside the product's object: made from instructions, filled, run, timed, attached.
//!
//! By the `bpf` system call itself: aya loads objects only, and its `test_run` takes whole programs of an object only.

pub(crate) mod caller;
pub(crate) mod code;
pub(crate) mod map;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use code::Instruction;

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// `union bpf_attr` of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_LINK_CREATE`, as far as it is used.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// `struct xdp_md` of a packet that came in by `interface`.
pub(crate) type Context24 = [u32; 6];

/// Which frames an XDP program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffers {
    /// Those in one buffer.
    One,
    /// Those in several, too.
    Many,
}

/// Loads an XDP program.
pub(crate) fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    load_for(Buffers::One, instructions)
}

pub(crate) fn load_for(buffers: Buffers, instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attributes = ProgLoad {
        kind: PROG_TYPE_XDP,
        count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: LOG_BYTES as u32,
        log: log.as_mut_ptr() as u64,
        flags: if buffers == Buffers::Many { XDP_HAS_FRAGS } else { 0 },
        attach_type: ATTACH_TYPE_XDP,
        ..ProgLoad::default()
    };
    // SAFETY: the pointers are to the instructions, a C string and the log, which outlive the call; the sizes are theirs.
    let loaded = unsafe { bpf(PROG_LOAD, &mut attributes) };
    let text = || String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
    descriptor(loaded.with_context(|| format!("the kernel refuses a program of the bed: {}", text()))?)
}

/// Runs a program `repeat` times on `frame`, which came in by interface `ingress`; nanoseconds a run.
pub(crate) fn time(program: BorrowedFd<'_>, frame: &[u8], ingress: u32, repeat: u32) -> Result<f64> {
    // The kernel rounds down.
    Ok(f64::from(test_run(program, frame, ingress, repeat)?.duration) + 0.5)
}

/// Runs a program once; what it returned.
pub(crate) fn once(program: BorrowedFd<'_>, frame: &[u8], ingress: u32) -> Result<u32> {
    Ok(test_run(program, frame, ingress, 1)?.result)
}

fn test_run(program: BorrowedFd<'_>, frame: &[u8], ingress: u32, repeat: u32) -> Result<TestRun> {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: Context24 = [0, u32::try_from(frame.len())?, 0, ingress, 0, 0];
    let mut out = vec![0_u8; frame.len()];
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len())?,
        data_out_size: u32::try_from(out.len())?,
        data_in: frame.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat,
        context_in_size: size_of::<Context24>() as u32,
        context_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: the pointers are to the frame, to a buffer of its size and to the context, which outlive the call.
    unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.context("the kernel cannot run the program")?;
    Ok(attributes)
}

/// Has the kernel send `count` packets: live frames, on which it does what the program returns. Bounded by `count` alone.
pub(crate) fn send(program: BorrowedFd<'_>, frame: &[u8], ingress: u32, count: u32) -> Result<()> {
    let context: Context24 = [0, u32::try_from(frame.len())?, 0, ingress, 0, 0];
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        data_in_size: u32::try_from(frame.len())?,
        data_in: frame.as_ptr() as u64,
        repeat: count,
        context_in_size: size_of::<Context24>() as u32,
        context_in: context.as_ptr() as u64,
        flags: LIVE_FRAMES,
        batch_size: BATCH,
        ..TestRun::default()
    };
    // SAFETY: the pointers are to the frame and to the context, which outlive the call.
    unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.context("the kernel cannot generate packets")?;
    Ok(())
}

/// Opens what is pinned at `path`.
pub(crate) fn pinned(path: &Path) -> Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Object { path: name.as_ptr() as u64, ..Object::default() };
    // SAFETY: the pointer is to a C string that outlives the call.
    let opened = unsafe { bpf(OBJECT_GET, &mut attributes) };
    descriptor(opened.with_context(|| format!("cannot open the pin {}", path.display()))?)
}

/// Attaches an XDP program to an interface of the calling thread's namespace, until the returned link is closed.
pub(crate) fn attach(program: BorrowedFd<'_>, interface: u32) -> Result<OwnedFd> {
    let program = program.as_raw_fd().cast_unsigned();
    let mut attributes = LinkCreate { program, interface, attach_type: ATTACH_TYPE_XDP, flags: DRIVER_MODE };
    // SAFETY: no pointers.
    descriptor(unsafe { bpf(LINK_CREATE, &mut attributes) }.context("cannot attach a program of the bed")?)
}

/// # Safety
/// The attributes must be those of `command`, and every pointer in them valid for the call and of the size they name.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: as the caller promises; the size is that of the structure.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn descriptor(raw: i32) -> Result<OwnedFd> {
    ensure!(raw >= 0, "the kernel returned no descriptor");
    // SAFETY: the kernel has just made it for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

// Numbers of `linux/bpf.h`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const OBJECT_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const DRIVER_MODE: u32 = 4;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`, and how many of them at a time: as many as NAPI takes.
const LIVE_FRAMES: u32 = 2;
const BATCH: u32 = 64;
const LOG_BYTES: usize = 64 << 10;
