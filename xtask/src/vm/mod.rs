//! VMs.
