//! The `rallypoint` daemon.

fn main() {}
