//! What the verifier of this kernel says of each program, how much stack each needs, and the bounds that a regression breaks.

use anyhow::{Context, Result};
use aya::programs::ProgramInfo;
use foobar_user::datapath::object;
use foobar_user::datapath::programs::{CLAMP, CLOSER, FENCE, FOLLOWER, HOOKS, Programs};

use super::stack::Stacks;

/// Programs, the instructions that the verifier may walk at the most (half as many again as when this was set), and the bytes
/// of stack that the deepest chain of calls may take (the kernel allows 512).
const BOUNDS: [(&str, u32, u32); 30] = [
    ("foobar", 5_300, 288),
    ("path4", 145_000, 512),
    ("path6", 365_000, 512),
    ("apart4", 143_000, 512),
    ("apart6", 275_000, 512),
    ("handshake4", 34_000, 256),
    ("handshake6", 28_000, 384),
    ("error4", 72_000, 512),
    ("error6", 200_000, 512),
    ("answer4", 72_000, 320),
    ("answer6", 75_000, 384),
    ("encapsulate4", 4_500, 320),
    ("encapsulate6", 4_500, 384),
    ("decapsulate4", 22_000, 256),
    ("decapsulate6", 22_000, 256),
    ("clamp", 13_500, 64),
    ("answers", 4_500, 192),
    ("tag4", 1_000, 128),
    ("tag6", 1_000, 128),
    ("connections", 215_000, 352),
    ("closed", 300, 64),
    ("connect4", 4_600, 160),
    ("connect6", 9_800, 192),
    ("sendmsg4", 4_700, 192),
    ("sendmsg6", 5_100, 224),
    ("recvmsg4", 36, 32),
    ("recvmsg6", 114, 64),
    ("getpeername4", 36, 32),
    ("getpeername6", 114, 64),
    ("baseline", 1_900, 64),
];
/// The same of `path4` and `path6` on Linux 6.1, which finds fewer states alike; it gives up at 1,000,000.
const OLD_BOUND: u32 = 640_000;

/// Prints the table; what breaks its bound.
pub fn check(programs: &mut Programs) -> Result<Vec<String>> {
    let kernel = nix::sys::utsname::uname().context("cannot ask for the kernel's name")?;
    println!("kernel {}", kernel.release().to_string_lossy());
    let stacks = Stacks::of(object::bytes()?)?;
    println!(
        "{:<12} {:>12} {:>12} {:>8} {:>8} {:>12} {:>12}",
        "program", "verified", "bound", "stack", "bound", "translated", "machine code"
    );
    let mut faults = Vec::new();
    let old = kernel.release().to_string_lossy().starts_with("6.1.");
    for (name, bound, stack_bound) in BOUNDS {
        let bound = if old && name.starts_with("path") { OLD_BOUND } else { bound };
        let info = info(programs, name)?;
        let verified = info.verified_instruction_count();
        let chain = stacks.deepest(name)?;
        let stack = chain.bytes;
        println!(
            "{name:<12} {:>12} {bound:>12} {stack:>6} B {stack_bound:>6} B {:>10} B {:>10} B",
            verified.map_or_else(|| "unknown".to_owned(), |count| count.to_string()),
            info.size_translated().unwrap_or(0),
            info.size_jitted(),
        );
        if verified.is_none_or(|count| count > bound) {
            faults.push(format!("{name}: the verifier walks {verified:?} instructions, {bound} are allowed"));
        }
        if stack > stack_bound {
            let calls = chain.calls.join(", ");
            faults.push(format!("{name}: its calls take {stack} bytes of stack, {stack_bound} are allowed: {calls}"));
        }
    }
    Ok(faults)
}

fn info(programs: &mut Programs, name: &str) -> Result<ProgramInfo> {
    if name == FOLLOWER {
        return Ok(programs.follower(name)?.info()?);
    }
    if name == CLAMP {
        return Ok(programs.leaving(name)?.info()?);
    }
    if name == FENCE {
        return Ok(programs.sending(name)?.info()?);
    }
    if name == CLOSER {
        return Ok(programs.closer(name)?.info()?);
    }
    if HOOKS.contains(&name) {
        return Ok(programs.hook(name)?.info()?);
    }
    Ok(programs.xdp(name)?.info()?)
}
