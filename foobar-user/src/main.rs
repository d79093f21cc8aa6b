//! The binary `foobar`.

fn main() {}
