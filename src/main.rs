//! The binary `nodebus`.
fn main() {}
