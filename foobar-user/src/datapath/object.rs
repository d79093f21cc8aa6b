//! The eBPF object that is built into this binary.

use anyhow::Result;

/// The object's bytes.
///
/// # Errors
/// This binary was built without it.
pub fn bytes() -> Result<&'static [u8]> {
    #[cfg(bpf_embedded)]
    {
        Ok(aya::include_bytes_aligned!(env!("FOOBAR_BPF_OBJECT")))
    }
    #[cfg(not(bpf_embedded))]
    {
        anyhow::bail!("this binary was built without the packet path: build it with `cargo xtask build`")
    }
}
