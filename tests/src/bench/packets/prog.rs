//! Programs beside the product's object: loading one from instructions, a program array, and timed runs of any.
//!
//! By the `bpf` system call itself: aya loads objects only, and its `test_run` takes whole programs of an object only.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Instruction {
    /// Operation.
    pub(super) code: u8,
    /// Destination in the low half, source in the high one.
    pub(super) registers: u8,
    /// Offset of a memory access or jump.
    pub(super) offset: i16,
    /// Constant.
    pub(super) immediate: i32,
}

/// `union bpf_attr` of `BPF_MAP_CREATE`, as far as it is used.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// `union bpf_attr` of `BPF_MAP_UPDATE_ELEM`.
#[repr(C)]
struct MapUpdate {
    map: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

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

/// `struct xdp_md` of a packet that came in by `interface`.
pub(super) type Context24 = [u32; 6];

/// Loads an XDP program.
pub(super) fn load(instructions: &[Instruction]) -> Result<OwnedFd> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attributes = ProgLoad {
        kind: PROG_TYPE_XDP,
        count: u32::try_from(instructions.len())?,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: LOG_BYTES as u32,
        log: log.as_mut_ptr() as u64,
        attach_type: ATTACH_TYPE_XDP,
        ..ProgLoad::default()
    };
    // SAFETY: the pointers are to the instructions, a C string and the log, which outlive the call; the sizes are theirs.
    let loaded = unsafe { bpf(PROG_LOAD, &mut attributes) };
    let text = || String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
    descriptor(loaded.with_context(|| format!("the kernel refuses the bench's wrapper: {}", text()))?)
}

/// An array of programs with `target` at index 0.
pub(super) fn program_array(target: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut create = MapCreate { kind: MAP_TYPE_PROG_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: no pointers.
    let array = descriptor(unsafe { bpf(MAP_CREATE, &mut create) }.context("cannot make a program array")?)?;
    let (key, value) = (0_u32, target.as_raw_fd());
    let mut update = MapUpdate {
        map: array.as_raw_fd().cast_unsigned(),
        _pad: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: key and value are four bytes each, as the map was made, and outlive the call.
    unsafe { bpf(MAP_UPDATE, &mut update) }.context("cannot put a program into the program array")?;
    Ok(array)
}

/// Runs a program `repeat` times on `frame`, which came in by interface `ingress`; nanoseconds a run.
pub(super) fn time(program: BorrowedFd<'_>, frame: &[u8], ingress: u32, repeat: u32) -> Result<f64> {
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
    // The kernel rounds down.
    Ok(f64::from(attributes.duration) + 0.5)
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
const PROG_TEST_RUN: libc::c_long = 10;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const LOG_BYTES: usize = 64 << 10;
